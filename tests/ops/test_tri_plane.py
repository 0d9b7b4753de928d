"""Lookup in three planes against polynomials it has to reproduce, grid_sample, and itself on other paths.

Measured against the reference in float32: forward 2e-6, gradients 2e-6 on cpu and lavapipe.
"""

import pytest
import torch
from torch.nn.functional import grid_sample
from torch.testing import assert_close

from taichi_nerf.kernels import tri_plane as kernels
from taichi_nerf.ops import tri_plane
from taichi_nerf.ops.tri_plane import sample_tri_planes
from taichi_nerf.runtime import DeviceArray

REDUCTIONS = ["mean", "sum", "product", "concatenate"]


def three_functions(u, v):
    """One bilinear function per plane, of its width and height axis."""
    return torch.stack([1 + u + 2 * v, 2 - u * v, 1 + 3 * u + u * v])


def planes_of_functions(height, width):
    v, u = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return three_functions(u, v)[..., None]


def test_planes_are_xy_xz_yz_and_reproduce_bilinear_functions(backend, generator):
    positions = torch.rand(200, 3, generator=generator)
    x, y, z = positions.unbind(-1)
    values = [1 + x + 2 * y, 2 - x * z, 1 + 3 * y + y * z]
    planes = planes_of_functions(5, 7)
    side_by_side = sample_tri_planes(positions, planes, reduce="concatenate")
    assert_close(side_by_side, torch.stack(values, -1), atol=2e-6, rtol=0)
    assert_close(sample_tri_planes(positions, planes, reduce="sum")[:, 0], sum(values), atol=5e-6, rtol=0)
    assert_close(sample_tri_planes(positions, planes, reduce="mean")[:, 0], sum(values) / 3, atol=2e-6, rtol=0)
    product = values[0] * values[1] * values[2]
    assert_close(sample_tri_planes(positions, planes, reduce="product")[:, 0], product, atol=2e-5, rtol=0)


def test_gradient_of_a_product_is_the_product_rule(backend, generator):
    positions = torch.rand(100, 3, generator=generator, requires_grad=True)
    sample_tri_planes(positions, planes_of_functions(5, 7), reduce="product").sum().backward()
    exact = positions.detach().double().requires_grad_()
    x, y, z = exact.unbind(-1)
    ((1 + x + 2 * y) * (2 - x * z) * (1 + 3 * y + y * z)).sum().backward()
    assert_close(positions.grad, exact.grad.float(), atol=2e-4, rtol=0)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("n_channels", [1, 5, 16])
def test_equals_the_same_lookup_of_planes_in_double(reduce, n_channels, backend, generator):
    """grid_sample in 64 bits with all gradients, partly outside."""
    positions = 1.4 * torch.rand(150, 3, generator=generator) - 0.2
    planes = torch.randn(3, 4, 6, n_channels, generator=generator)
    inputs = [positions.requires_grad_(), planes.requires_grad_()]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    samples = [
        grid_sample(plane.permute(2, 0, 1)[None], 2 * exact[0][None, None][..., axes] - 1, "bilinear", "border", True)[0, :, 0].T
        for plane, axes in zip(exact[1], ([0, 1], [0, 2], [1, 2]), strict=True)
    ]
    a, b, c = samples
    wanted = {"mean": (a + b + c) / 3, "sum": a + b + c, "product": a * b * c, "concatenate": torch.cat(samples, -1)}[reduce]
    ours = sample_tri_planes(*inputs, reduce=reduce)
    assert_close(ours, wanted.float(), atol=2e-5, rtol=0)
    weights = torch.randn(wanted.shape, generator=generator)
    theirs = torch.autograd.grad(wanted, exact, weights.double())
    for mine, right in zip(torch.autograd.grad(ours, inputs, weights), theirs, strict=True):
        assert_close(mine, right.float(), atol=1e-5 * float(right.abs().max()), rtol=0)


def test_outside_is_the_border_with_no_gradient_along_the_clamped_axis(backend, generator):
    planes = torch.randn(3, 4, 4, 2, generator=generator)
    outside = torch.tensor([[-0.5, 0.4, 0.6], [0.3, 1.7, 0.6], [0.3, 0.4, 1e30]], requires_grad=True)
    sampled = sample_tri_planes(outside, planes)
    assert torch.equal(sampled, sample_tri_planes(outside.detach().clamp(0, 1), planes))
    sampled[:, 0].sum().backward()
    assert torch.equal(outside.grad.diagonal(), torch.zeros(3))
    assert (outside.grad[~torch.eye(3, dtype=torch.bool)] != 0).all()


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nan_reads_and_writes_inside_the_planes(reduce, backend, generator):
    positions = torch.tensor([[float("nan")] * 3, [float("inf"), -float("inf"), 0.5]], requires_grad=True)
    planes = torch.randn(3, 3, 3, 4, generator=generator).requires_grad_()
    sample_tri_planes(positions, planes, reduce=reduce).sum().backward()
    assert torch.isfinite(positions.grad).all()
    assert torch.isfinite(planes.grad).all()


@pytest.mark.parametrize("n_owners", [1, 3, 40])
def test_owners_add_up_what_atomics_do(n_owners, cpu, generator):
    positions = 1.2 * torch.rand(400, 3, generator=generator) - 0.1
    owners = (torch.arange(13) % n_owners).int()
    for n_slots, divisor in ((1, 3), (3, 1)):
        weights = torch.randn(400, n_slots * 6, generator=generator)
        planes, order = torch.randn(3, 13, 5, 6, generator=generator), torch.randperm(400, generator=generator).int()
        atomic, owned = torch.zeros(3, 13, 5, 6), torch.zeros(3, 13, 5, 6)
        lookup, shares = (positions, planes, weights, divisor), torch.empty(2, 400, 3)
        kernels.sample_tri_planes_adjoint(positions, weights, divisor, 2, 2, atomic)
        kernels.sample_tri_planes_owned_adjoint(*lookup, order, owners, n_owners, 8, 3, True, owned, shares)
        assert_close(owned, atomic, atol=1e-5, rtol=0)
        of_positions = torch.empty(400, 3)
        kernels.sample_tri_planes_positions_adjoint(*lookup, 2, of_positions)
        assert_close(shares.sum(0), of_positions, atol=1e-4, rtol=0)


def test_an_owner_leaves_the_rows_of_others_alone(cpu, generator):
    """Only thread 0 runs; a race would seldom show."""
    positions = torch.rand(400, 3, generator=generator)
    weights = torch.randn(400, 6, generator=generator)
    owners = torch.tensor([0, 1, 1, 0, 1], dtype=torch.int32)
    atomic, owned = torch.zeros(3, 5, 4, 6), torch.zeros(3, 5, 4, 6)
    kernels.sample_tri_planes_adjoint(positions, weights, 1, 2, 2, atomic)
    lookup, no_order = (positions, torch.empty_like(owned), weights, 1), torch.zeros(1, dtype=torch.int32)
    kernels.sample_tri_planes_owned_adjoint(*lookup, no_order, owners, 1, 8, 3, False, owned, torch.empty(2, 1, 3))
    assert_close(owned, atomic * (owners == 0)[:, None, None], atol=1e-5, rtol=0)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_sharing_channels_between_threads_changes_nothing(reduce, cpu, generator):
    """The GPUs' split of the forward pass; six groups do not fill eight threads."""
    positions, planes = torch.rand(50, 3, generator=generator), torch.randn(3, 4, 5, 12, generator=generator)
    split = torch.empty(50, 36 if reduce == "concatenate" else 12)
    no_order = torch.zeros(1, dtype=torch.int32)
    kernels.sample_tri_planes(positions, planes, no_order, kernels.REDUCE[reduce], 1, 2, 3, split)
    assert torch.equal(split, sample_tri_planes(positions, planes, reduce=reduce))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_planes_larger_than_caches_give_what_small_ones_do(reduce, cpu, generator, monkeypatch):
    """Those are visited in another order; NaN and positions outside have a place in it, too."""
    positions = (1.4 * torch.rand(300, 3, generator=generator) - 0.2).requires_grad_()
    positions.data[7, 1] = float("nan")
    planes = torch.randn(3, 9, 8, 5, generator=generator).requires_grad_()
    found = []
    for cached in (1, 2**20):
        monkeypatch.setattr(tri_plane, "CACHED", cached)
        sample = sample_tri_planes(positions, planes, reduce=reduce)
        found.append((sample, *torch.autograd.grad(sample.square().sum(), (positions, planes))))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert_close(found[0][2], found[1][2], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_device_array_is_the_tensor(reduce, backend, generator):
    positions = torch.rand(64, 3, generator=generator, requires_grad=True)
    planes = torch.randn(3, 5, 6, 4, generator=generator, requires_grad=True)
    array = DeviceArray(planes, requires_grad=True)
    ours, wanted = sample_tri_planes(positions, array, reduce=reduce), sample_tri_planes(positions, planes, reduce=reduce)
    assert torch.equal(ours, wanted)
    weights = torch.randn(wanted.shape, generator=generator)
    of_positions, of_planes = torch.autograd.grad(wanted, (positions, planes), weights)
    ours.backward(weights)
    assert_close(array.grad_to_torch(), of_planes, atol=2e-5, rtol=0)
    assert torch.equal(positions.grad, of_positions)
    sample_tri_planes(positions, array, reduce=reduce).backward(weights)
    assert_close(array.grad_to_torch(), 2 * of_planes, atol=4e-5, rtol=0)


def test_refuses_an_unknown_reduction_and_names_the_known(cpu):
    with pytest.raises(ValueError, match="one of mean, sum, product, concatenate, got 'max'"):
        sample_tri_planes(torch.zeros(1, 3), torch.zeros(3, 2, 2, 1), reduce="max")


def test_refuses_planes_without_points(cpu):
    with pytest.raises(ValueError, match="planes has to have at least one point"):
        sample_tri_planes(torch.zeros(1, 3), torch.zeros(3, 2, 0, 1))
