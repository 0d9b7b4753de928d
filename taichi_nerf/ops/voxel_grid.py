"""Trilinear lookup in a dense grid of features. See `kernels/voxel_grid.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import voxel_grid
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.runtime import DeviceArray, current


def sample_voxel_grid(
    positions: Tensor,  # [n, 3] x, y, z in [0, 1]
    grid: Tensor,  # [depth, height, width, n_channels]
) -> Tensor:
    """The features at positions of the unit cube: [n, n_channels]. Grid points lie on its corners.

    The same convention as grid_sample's align_corners=True with border padding: positions outside take the border's value
    and have no gradient along that axis. `grid` is a tensor, or a DeviceArray whose `grad` the backward pass adds to.
    Gradients flow to both.
    """
    check("sample_voxel_grid", lasting=("grid",), positions=(positions, "n 3"), grid=(grid, "depth height width n_channels"))
    if 0 in grid.shape:
        raise ValueError(f"sample_voxel_grid: grid has to have at least one point along every axis, got {list(grid.shape)}")
    if isinstance(grid, DeviceArray):
        sample: Tensor = _SampleVoxelGrid.apply(positions, grid.anchor, grid)
    else:
        sample = _SampleVoxelGrid.apply(positions, grid, None)
    return sample


def _lanes_and_log_parts(n_channels: int) -> tuple[int, int]:
    """How the kernels group channels: on the CPU a thread takes all groups of a position, on GPUs one."""
    lanes = max(d for d in (1, 2, 3, 4) if n_channels % d == 0)
    return lanes, 0 if current().arch == "cpu" else (n_channels // lanes - 1).bit_length()


class _SampleVoxelGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions, grid, array):  # type: ignore[no-untyped-def]
        positions = plain(positions)
        values, n_channels = (plain(grid), grid.shape[3]) if array is None else (array.data, array.shape[3])
        out = fresh(positions, len(positions), n_channels)
        check("sample_voxel_grid", output=(out, "n n_channels"))
        if len(positions):
            launch(voxel_grid.sample_voxel_grid, positions, values, *_lanes_and_log_parts(n_channels), out)
        ctx.save_for_backward(positions, *(() if array is not None else (values,)))
        ctx.array = array
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out):  # type: ignore[no-untyped-def]
        positions, *saved = (tensor.detach() for tensor in ctx.saved_tensors)
        grid, grad_out = saved[0] if saved else ctx.array.data, plain(grad_out)
        of_positions = of_grid = None
        if ctx.needs_input_grad[0]:
            of_positions = torch.empty_like(positions)
            if len(positions):
                launch(voxel_grid.sample_voxel_grid_positions_adjoint, positions, grid, grad_out, of_positions)
        if ctx.needs_input_grad[1]:
            of_grid = torch.zeros_like(grid) if saved else ctx.array.grad
            if len(positions):
                _add_gradient_of_grid(positions, grad_out, of_grid)
        return of_positions, of_grid if saved else None, None


def _add_gradient_of_grid(positions: Tensor, grad_out: Tensor, of_grid: Any) -> None:
    backend = current()
    lanes, log_parts = _lanes_and_log_parts(grad_out.shape[1])
    if backend.arch == "cpu":
        # Slabs, for most positions to concern one thread only; four a thread, for a scene in the middle to be shared out.
        layers = torch.arange(of_grid.shape[0], dtype=torch.int32)
        owners = layers // max(1, of_grid.shape[0] // (4 * backend.n_threads)) % backend.n_threads
        launch(voxel_grid.sample_voxel_grid_owned_adjoint, positions, grad_out, owners, backend.n_threads, lanes, of_grid)
    else:
        launch(voxel_grid.sample_voxel_grid_adjoint, positions, grad_out, lanes, log_parts, of_grid)
