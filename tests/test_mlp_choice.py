"""A network by torch and by the fused kernel: the same parameters, the same function."""

import pytest
import torch

from taichi_nerf.fields.hash_grid_field import HashGridField, HashGridSettings
from taichi_nerf.fields.mlp import Mlp, MlpSettings
from taichi_nerf.fields.mlp_choice import chosen, measured
from taichi_nerf.launch import watching
from taichi_nerf.ops.hash_grid import level_layout

WIDTHS = (5, 16, 16, 3)


def networks(backend):
    made = [
        Mlp(WIDTHS, torch.Generator().manual_seed(4), implementation=kind).to(backend.torch_device)
        for kind in ("torch", "taichi")
    ]  # fmt: skip
    rows = torch.randn(70, 5, generator=torch.Generator().manual_seed(5)).to(backend.torch_device)
    return made, rows


def test_both_give_the_same_rows_and_gradients(backend):
    (plain, fused), rows = networks(backend)
    launched = []
    with watching(lambda name, milliseconds: launched.append(name)):
        outputs = [network(rows) for network in (plain, fused)]
        for out in outputs:
            out.square().sum().backward()
    assert launched  # the second is the kernel
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_does_not_depend_on_who_multiplies(backend):
    (plain, fused), rows = networks(backend)
    with torch.no_grad():
        plain.weights[0].mul_(2)
    fused.load_state_dict(plain.state_dict())
    torch.testing.assert_close(fused(rows), plain(rows), atol=1e-5, rtol=1e-5)


def test_a_field_takes_what_its_settings_say(backend):
    size = {"n_levels": 2, "log2_table_size": 6, "max_resolution": 32, "n_hidden": 16}
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    for kind, is_fused in (("torch", False), ("taichi", True)):
        settings = HashGridSettings(**size, mlp=MlpSettings(kind))
        field = HashGridField(settings, box, "none", 1, torch.Generator().manual_seed(0))
        assert field.density_mlp.is_fused is field.color_mlp.is_fused is is_fused
    assert len(field.table) == sum(level.size for level in level_layout(2, 16, 32, None, 6))


def test_auto_is_one_of_the_two_and_on_processors_torch(backend):
    kind = chosen("auto", WIDTHS, "float32")
    assert kind in ("torch", "taichi")
    if backend.arch != "cuda":
        assert kind == "torch"


def test_measuring_gives_times_of_both(backend):
    times = measured((4, 8, 2), "float32", n_rows=256)
    assert times.torch > 0
    assert times.taichi > 0


def test_the_kernel_has_no_biases():
    with pytest.raises(ValueError, match="no biases"):
        Mlp(WIDTHS, torch.Generator(), biases=True, implementation="taichi")


@pytest.mark.parametrize("widths", [(8, 128, 16), (41, 3), (8, 16, 16, 16, 16, 3)])
def test_networks_that_the_kernel_does_not_take_are_refused_by_the_settings_name(cpu, widths):
    assert chosen("torch", widths, "float32") == chosen("auto", widths, "float32") == "torch"
    with pytest.raises(ValueError, match=r"mlp\.implementation=taichi: takes two to four layers of at most 64 numbers"):
        chosen("taichi", widths, "float32")
