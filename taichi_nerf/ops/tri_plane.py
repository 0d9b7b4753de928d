"""Bilinear lookup in three planes of features. See `kernels/tri_plane.py` for the formulas."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taichi_nerf.kernels import tri_plane
from taichi_nerf.ops.door import check, plain
from taichi_nerf.runtime import DeviceArray, current


def sample_tri_planes(
    positions: Tensor,  # [n, 3] x, y, z in [0, 1]
    planes: Tensor,  # [3, height, width, n_channels] spanned by xy, xz, yz
    *,
    reduce: Literal["mean", "sum", "product", "concatenate"] = "mean",
) -> Tensor:
    """The features at positions of the unit cube: [n, n_channels], or [n, 3 * n_channels] side by side.

    Of the two axes of a plane the first runs along its width, the second along its height; grid points lie on the corners
    (grid_sample's align_corners=True with border padding). Positions outside take the border's value and have no gradient
    along that axis. `planes` is a tensor, or a DeviceArray whose `grad` the backward pass adds to. Gradients flow to both.
    """
    check("sample_tri_planes", lasting=("planes",), positions=(positions, "n 3"), planes=(planes, "3 height width n_channels"))
    if 0 in planes.shape:
        raise ValueError(f"sample_tri_planes: planes has to have at least one point along every axis, got {list(planes.shape)}")
    if reduce not in tri_plane.REDUCE:
        raise ValueError(f"sample_tri_planes: reduce has to be one of {', '.join(tri_plane.REDUCE)}, got {reduce!r}")
    if isinstance(planes, DeviceArray):
        sample: Tensor = _SampleTriPlanes.apply(positions, planes.anchor, planes, reduce)
    else:
        sample = _SampleTriPlanes.apply(positions, planes, None, reduce)
    return sample


def _lanes_and_log_parts(n_channels: int) -> tuple[int, int]:
    """How the kernels group channels: on the CPU a thread takes all groups of a position, on GPUs one."""
    lanes = max(d for d in (1, 2, 3, 4) if n_channels % d == 0)
    return lanes, 0 if current().arch == "cpu" else (n_channels // lanes - 1).bit_length()


class _SampleTriPlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions, planes, array, reduce):  # type: ignore[no-untyped-def]
        positions = plain(positions)
        values, n_channels = (plain(planes), planes.shape[3]) if array is None else (array.data, array.shape[3])
        out = positions.new_empty(len(positions), 3 * n_channels if reduce == "concatenate" else n_channels)
        check("sample_tri_planes", output=(out, "n n_channels"))
        if len(positions):
            code = tri_plane.REDUCE[reduce]
            tri_plane.sample_tri_planes(positions, values, code, *_lanes_and_log_parts(n_channels), out)
        ctx.save_for_backward(positions, *(() if array is not None else (values,)))
        ctx.array, ctx.reduce = array, reduce
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out):  # type: ignore[no-untyped-def]
        positions, *saved = (tensor.detach() for tensor in ctx.saved_tensors)
        planes, grad_samples = saved[0] if saved else ctx.array.data, plain(grad_out)
        n, divisor = len(positions), 3 if ctx.reduce == "mean" else 1
        if ctx.reduce == "product" and n:
            grad_samples = grad_out.new_empty(n, 3 * grad_out.shape[1])
            tri_plane.sample_tri_planes_product_adjoint(positions, planes, plain(grad_out), grad_samples)
        of_positions = of_planes = None
        if ctx.needs_input_grad[0]:
            of_positions = torch.empty_like(positions)
            if n:
                tri_plane.sample_tri_planes_positions_adjoint(positions, planes, grad_samples, divisor, of_positions)
        if ctx.needs_input_grad[1]:
            of_planes = torch.zeros_like(planes) if saved else ctx.array.grad
            if n:
                _add_gradient_of_planes(positions, grad_samples, divisor, of_planes)
        return of_positions, of_planes if saved else None, None, None


def _add_gradient_of_planes(positions: Tensor, grad_samples: Tensor, divisor: int, of_planes: Any) -> None:
    backend = current()
    lanes, log_parts = _lanes_and_log_parts(of_planes.shape[3])
    if backend.arch == "cpu":
        # Bands, for most positions to concern one thread only; four a thread, for a scene in the middle to be shared out.
        rows = torch.arange(of_planes.shape[1], dtype=torch.int32)
        owners = rows // max(1, of_planes.shape[1] // (4 * backend.n_threads)) % backend.n_threads
        tri_plane.sample_tri_planes_owned_adjoint(positions, grad_samples, divisor, owners, backend.n_threads, lanes, of_planes)
    else:
        tri_plane.sample_tri_planes_adjoint(positions, grad_samples, divisor, lanes, log_parts, of_planes)
