"""Bilinear lookup in three planes of features. See `kernels/tri_plane.py` for the formulas."""

from typing import Any, Literal

import torch
from torch import Tensor

from taichi_nerf.kernels import tri_plane
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.runtime import DeviceArray, current

CACHED = 2**20  # floats of a plane that stay near a core


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


def _lanes(n_channels: int, longest: int = 32) -> tuple[int, int]:
    """Positions and channels that a thread takes at once; groups of channels have to fill up."""
    on_cpu = current().arch == "cpu"
    longest = longest if on_cpu else 4
    return 8 if on_cpu else 1, next(d for d in (32, 16, 8, 4, 3, 2, 1) if d <= longest and n_channels % d == 0)


def _order(positions: Tensor, planes: Any) -> Tensor:
    """On the CPU, where planes are larger than caches: the positions by cells of 32 x 32 x 32, x innermost."""
    if current().arch != "cpu" or planes.shape[1] * planes.shape[2] * planes.shape[3] < CACHED:
        return torch.zeros(1, dtype=torch.int32, device=positions.device)
    x, y, z = (positions.clamp(0, 1) * 31.999).to(torch.int16).unbind(-1)
    return ((z * 32 + y) * 32 + x).sort().indices.int()


def _log_parts(n_channels: int) -> int:
    """On the CPU a thread takes all groups of a position, on GPUs one."""
    return 0 if current().arch == "cpu" else (n_channels // _lanes(n_channels)[1] - 1).bit_length()


class _SampleTriPlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions, planes, array, reduce):  # type: ignore[no-untyped-def]
        positions = plain(positions)
        values, n_channels = (plain(planes), planes.shape[3]) if array is None else (array.data, array.shape[3])
        out = fresh(positions, len(positions), 3 * n_channels if reduce == "concatenate" else n_channels)
        check("sample_tri_planes", output=(out, "n n_channels"))
        if len(positions):
            code = tri_plane.REDUCE[reduce]
            order = _order(positions, planes if array is None else array)
            split = (*_lanes(n_channels), _log_parts(n_channels))
            launch(tri_plane.sample_tri_planes, positions, values, order, code, *split, out)
            ctx.order = order
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
            launch(tri_plane.sample_tri_planes_product_adjoint, positions, planes, plain(grad_out), grad_samples)
        of_positions = torch.empty_like(positions) if ctx.needs_input_grad[0] else None
        of_planes = None
        if ctx.needs_input_grad[1]:
            of_planes = torch.zeros_like(planes) if saved else ctx.array.grad
        if n:
            _add_gradients(positions, planes, grad_samples, divisor, ctx.order, of_positions, of_planes)
        return of_positions, of_planes if saved else None, None, None


def _add_gradients(
    positions: Tensor,
    planes: Any,
    grad_samples: Tensor,
    divisor: int,
    order: Tensor,
    of_positions: Tensor | None,
    of_planes: Any,
) -> None:
    backend = current()
    n_lanes, group = _lanes(planes.shape[3], longest=8)
    if of_planes is not None and backend.arch == "cpu":
        # Bands, for most positions to concern one thread only; four a thread, for a scene in the middle to be shared out.
        rows = torch.arange(planes.shape[1], dtype=torch.int32)
        owners = rows // max(1, planes.shape[1] // (4 * backend.n_threads)) % backend.n_threads
        with_positions = of_positions is not None
        shares = positions.new_empty(2, len(positions) if with_positions else 1, 3)
        split = (order, owners, backend.n_threads, n_lanes, group, with_positions)
        launch(tri_plane.sample_tri_planes_owned_adjoint, positions, planes, grad_samples, divisor, *split, of_planes, shares)
        if of_positions is not None:
            torch.add(shares[0], shares[1], out=of_positions)
        return
    if of_planes is not None:
        log_parts = _log_parts(planes.shape[3])
        launch(tri_plane.sample_tri_planes_adjoint, positions, grad_samples, divisor, group, log_parts, of_planes)
    if of_positions is not None:
        launch(tri_plane.sample_tri_planes_positions_adjoint, positions, planes, grad_samples, divisor, group, of_positions)
