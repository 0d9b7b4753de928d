"""Trilinear lookup against polynomials it has to reproduce, grid_sample, and itself on other paths.

Measured against the reference in float32: equal forward, gradients 5e-7 on cpu and lavapipe.
"""

import pytest
import torch
from torch.nn.functional import grid_sample
from torch.testing import assert_close

from taichi_nerf.kernels import voxel_grid as kernels
from taichi_nerf.ops import voxel_grid
from taichi_nerf.ops.voxel_grid import sample_voxel_grid
from taichi_nerf.runtime import DeviceArray


def torch_sample(positions, grid):
    """Torch's own trilinear lookup, with the same convention in other coordinates."""
    volume = grid.permute(3, 0, 1, 2)[None]
    return grid_sample(volume, 2 * positions[None, None, None] - 1, "bilinear", "border", align_corners=True)[0, :, 0, 0].T


def test_reproduces_trilinear_functions(backend, generator):
    def function(x, y, z):
        return torch.stack([1 + 2 * x - y + 3 * z, x * y - z * x, x * y * z], -1)

    axes = [torch.linspace(0, 1, size) for size in (4, 5, 7)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    positions = torch.rand(300, 3, generator=generator)
    assert_close(sample_voxel_grid(positions, function(x, y, z)), function(*positions.unbind(-1)), atol=1e-6, rtol=0)


def test_gradient_of_position_is_that_of_a_linear_function(backend, generator):
    axes = [torch.linspace(0, 1, size) for size in (4, 5, 7)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    positions = torch.rand(100, 3, generator=generator, requires_grad=True)
    sample_voxel_grid(positions, (2 * x - y + 3 * z)[..., None]).sum().backward()
    assert_close(positions.grad, torch.tensor([2.0, -1.0, 3.0]).expand(100, 3), atol=1e-5, rtol=0)


def test_grid_points_give_back_their_own_features(backend, generator):
    grid = torch.randn(3, 4, 5, 2, generator=generator)
    z, y, x = torch.meshgrid(*(torch.arange(size) / (size - 1) for size in (3, 4, 5)), indexing="ij")
    sampled = sample_voxel_grid(torch.stack([x, y, z], -1).reshape(-1, 3), grid)
    assert_close(sampled, grid.reshape(-1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_channels", [1, 3, 11, 16, 28])
def test_equals_grid_sample_and_its_gradients(n_channels, backend, generator):
    positions = (1.4 * torch.rand(200, 3, generator=generator) - 0.2).requires_grad_()
    grid = torch.randn(6, 3, 5, n_channels, generator=generator).requires_grad_()
    weights = torch.randn(200, n_channels, generator=generator)
    ours, theirs = sample_voxel_grid(positions, grid), torch_sample(positions, grid)
    assert_close(ours, theirs, atol=2e-6, rtol=0)
    gradients = (torch.autograd.grad(outputs, (positions, grid), weights) for outputs in (ours, theirs))
    for mine, wanted in zip(*gradients, strict=True):
        assert_close(mine, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_outside_is_the_border_with_no_gradient_along_the_clamped_axis(backend, generator):
    grid = torch.randn(4, 4, 4, 2, generator=generator)
    outside = torch.tensor([[-0.5, 0.4, 0.6], [0.3, 1.7, 0.6], [0.3, 0.4, 1e30]], requires_grad=True)
    sampled = sample_voxel_grid(outside, grid)
    assert torch.equal(sampled, sample_voxel_grid(outside.detach().clamp(0, 1), grid))
    sampled[:, 0].sum().backward()
    assert torch.equal(outside.grad.diagonal(), torch.zeros(3))
    assert (outside.grad[~torch.eye(3, dtype=torch.bool)] != 0).all()


def test_nan_reads_and_writes_inside_the_grid(backend, generator):
    positions = torch.tensor([[float("nan")] * 3, [float("inf"), -float("inf"), 0.5]], requires_grad=True)
    grid = torch.randn(3, 3, 3, 4, generator=generator).requires_grad_()
    sampled = sample_voxel_grid(positions, grid)
    assert torch.equal(sampled[0].detach(), grid.detach()[0, 0, 0])
    sampled.sum().backward()
    assert torch.isfinite(positions.grad).all()
    assert torch.isfinite(grid.grad).all()
    assert_close(grid.grad.sum(), torch.tensor(8.0))


def test_weights_sum_to_one(backend, generator):
    """So the gradient of the grid sums to that of the samples."""
    positions = torch.rand(500, 3, generator=generator)
    grid = torch.zeros(9, 8, 7, 3, requires_grad=True)
    weights = torch.randn(500, 3, generator=generator)
    sample_voxel_grid(positions, grid).backward(weights)
    assert_close(grid.grad.sum((0, 1, 2)), weights.sum(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_owners", [1, 3, 40])
def test_owners_add_up_what_atomics_do(n_owners, cpu, generator):
    positions = 1.2 * torch.rand(400, 3, generator=generator) - 0.1
    weights = torch.randn(400, 6, generator=generator)
    atomic, owned = torch.zeros(13, 4, 5, 6), torch.zeros(13, 4, 5, 6)
    kernels.sample_voxel_grid_adjoint(positions, weights, 2, 2, atomic)
    owners = (torch.arange(13) % n_owners).int()
    kernels.sample_voxel_grid_owned_adjoint(positions, weights, owners, n_owners, 3, owned)
    assert_close(owned, atomic, atol=1e-5, rtol=0)


def test_an_owner_leaves_the_layers_of_others_alone(cpu, generator):
    """Only thread 0 runs; a race would seldom show."""
    positions = torch.rand(400, 3, generator=generator)
    weights = torch.randn(400, 6, generator=generator)
    owners = torch.tensor([0, 1, 1, 0, 1], dtype=torch.int32)
    atomic, owned = torch.zeros(5, 4, 5, 6), torch.zeros(5, 4, 5, 6)
    kernels.sample_voxel_grid_adjoint(positions, weights, 2, 2, atomic)
    kernels.sample_voxel_grid_owned_adjoint(positions, weights, owners, 1, 3, owned)
    assert_close(owned, atomic * (owners == 0)[:, None, None, None], atol=1e-5, rtol=0)


def test_sharing_channels_between_threads_changes_nothing(cpu, generator):
    """The GPUs' split of the forward pass; six groups do not fill eight threads."""
    positions, grid = torch.rand(50, 3, generator=generator), torch.randn(3, 4, 5, 12, generator=generator)
    split, whole = torch.empty(50, 12), torch.empty(50, 12)
    kernels.sample_voxel_grid(positions, grid, 2, 3, split)
    kernels.sample_voxel_grid(positions, grid, 3, 0, whole)
    assert torch.equal(split, whole)


def test_a_device_array_is_the_tensor(backend, generator):
    positions = torch.rand(64, 3, generator=generator, requires_grad=True)
    grid = torch.randn(4, 5, 6, 3, generator=generator, requires_grad=True)
    array = DeviceArray(grid, requires_grad=True)
    weights = torch.randn(64, 3, generator=generator)
    ours, wanted = sample_voxel_grid(positions, array), sample_voxel_grid(positions, grid)
    assert torch.equal(ours, wanted)
    of_positions, of_grid = torch.autograd.grad(wanted, (positions, grid), weights)
    ours.backward(weights)
    assert_close(array.grad_to_torch(), of_grid, atol=1e-5, rtol=0)
    assert torch.equal(positions.grad, of_positions)
    sample_voxel_grid(positions, array).backward(weights)
    assert_close(array.grad_to_torch(), 2 * of_grid, atol=1e-5, rtol=0)


def test_a_device_array_needs_no_gradient_of_positions(backend):
    array = DeviceArray(torch.ones(2, 2, 2, 1), requires_grad=True)
    sample_voxel_grid(torch.full((1, 3), 0.5), array).sum().backward()
    assert_close(array.grad_to_torch(), torch.full((2, 2, 2, 1), 0.125))


def test_every_layer_has_an_owner_that_runs(cpu):
    """A grid with fewer layers than threads, and one with many."""
    for depth in (1, 2, 3, 50):
        grid = torch.zeros(depth, 2, 2, 1, requires_grad=True)
        z = torch.linspace(0, 1, 101)
        sample_voxel_grid(torch.stack([z, z, z], -1), grid).sum().backward()
        assert_close(grid.grad.sum(), torch.tensor(101.0), atol=1e-3, rtol=0)
        assert (grid.grad.sum((1, 2, 3)) > 0).all()


def test_refuses_a_grid_without_points(cpu):
    with pytest.raises(ValueError, match="grid has to have at least one point"):
        sample_voxel_grid(torch.zeros(1, 3), torch.zeros(2, 0, 2, 1))


def test_computes_only_the_gradients_that_are_asked_for(cpu, monkeypatch):
    def never(*arguments):
        raise AssertionError("computed in vain")

    monkeypatch.setattr(voxel_grid, "_add_gradient_of_grid", never)
    positions = torch.rand(4, 3, requires_grad=True)
    sample_voxel_grid(positions, torch.rand(2, 2, 2, 1)).sum().backward()
    assert positions.grad is not None
