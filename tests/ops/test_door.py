"""The checks at the door of every op are themselves checked."""

import pytest
import torch

from taichi_nerf.ops.compositing import composite_rays
from taichi_nerf.ops.door import check, plain
from taichi_nerf.ops.ray_marching import march_rays, sample_positions
from taichi_nerf.runtime import DeviceArray


def test_returns_the_sizes_that_names_stand_for(cpu):
    assert check("op", a=(torch.zeros(4, 2), "n 2"), b=(torch.zeros(4, 7), "n channels")) == {"n": 4, "channels": 7}


def test_an_absent_argument_is_skipped(cpu):
    assert check("op", a=(None, "n 2"), b=(torch.zeros(3), "n")) == {"n": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": (torch.zeros(4, 3), "n 2")}, r"op: a has to have shape \[n, 2\], got \[4, 3\]"),
        ({"a": (torch.zeros(4), "n"), "b": (torch.zeros(5), "n")}, r"op: b has to have shape \[n\] with n=4, got \[5\]"),
        ({"a": (torch.zeros(4, 1), "n")}, r"op: a has to have shape \[n\], got \[4, 1\]"),
        ({"a": (torch.zeros(4, device="meta"), "n")}, r"op: a is on meta, but the cpu backend takes tensors on cpu"),
        ({"a": (torch.zeros(1).expand(2**31), "n")}, r"op: a has 2147483648 elements, more than 32-bit indices reach"),
    ],
)
def test_names_the_argument_and_what_was_expected(cpu, arguments, message):
    with pytest.raises(ValueError, match=message):
        check("op", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": (torch.zeros(4).half(), "n")}, r"op: a has to be float32 \(or float64 on the CPU\), got torch.float16"),
        ({"a": (torch.zeros(4).long(), "n", torch.int32)}, r"op: a has to be torch.int32, got torch.int64"),
        ({"a": (torch.zeros(4), "n"), "b": (torch.zeros(4).double(), "n")}, r"op: b is torch.float64 but a is torch.float32"),
        ({"a": ([1.0, 2.0], "n")}, r"op: a has to be a tensor of shape \[n\], got list"),
    ],
)
def test_names_the_type_that_was_expected(cpu, arguments, message):
    with pytest.raises(TypeError, match=message):
        check("op", **arguments)


def test_64_bits_are_refused_where_the_backend_has_none(backend):
    if not backend.copies:
        pytest.skip("this backend computes in 64 bits")
    with pytest.raises(TypeError, match="does not compute in: use float32"):
        check("op", a=(torch.zeros(4).double(), "n"))


def test_a_device_array_passes_only_where_it_is_expected(backend):
    array = DeviceArray(torch.zeros(4, 2))
    assert check("op", lasting=("table",), table=(array, "n 2")) == {"n": 4}
    t = torch.zeros(4)
    with pytest.raises(TypeError, match=r"color has to be a tensor of shape \[n_samples, n_channels\], got DeviceArray"):
        composite_rays(t, array, t, t, torch.zeros(1, 2, dtype=torch.int32))


def test_a_kernel_never_sees_history_or_gaps():
    leaf = torch.zeros(4, 6, requires_grad=True)
    passed = plain(leaf[:, ::2])
    assert passed.is_contiguous()
    assert not passed.requires_grad


def test_spans_and_indices_that_would_read_foreign_memory_are_refused(cpu):
    t = torch.zeros(4)
    for span in ([0, 50_000_000], [-40_000_000, 3], [2, 3], [0, -1]):
        with pytest.raises(ValueError, match=r"composite_rays: spans has to"):
            composite_rays(t, torch.zeros(4, 3), t, t, torch.tensor([span], dtype=torch.int32))
    rays, spans = torch.zeros(1, 3), torch.tensor([[0, 4]], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"sample_positions: ray_indices has to be in 0 to 0, got 0 to 7"):
        sample_positions(rays, rays, t, t, torch.tensor([0, 7, 0, 0], dtype=torch.int32), spans)


@pytest.mark.parametrize("most", [0, 2**24 + 1, 2**31 - 1, 2**32 + 5])
def test_a_limit_whose_sums_would_wrap_is_refused(cpu, most):
    ray, t = torch.ones(1, 3), torch.ones(1)
    with pytest.raises(ValueError, match="max_samples_per_ray"):
        march_rays(
            ray, ray, t, t, torch.zeros(1024, dtype=torch.int32), torch.tensor([[-1.0] * 3, [1.0] * 3]),
            step_size=0.1, resolution=32, max_samples_per_ray=most,
        )  # fmt: skip
