"""Multiresolution hash encoding. See `kernels/hash_grid.py` for the formulas and `reference/hash_grid.py` for the layout."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taichi_nerf.kernels import hash_grid as kernels
from taichi_nerf.ops.door import LARGEST, check, fresh, plain

# The layout of the table is part of the specification, so it stands there, in plain Python, and once.
from taichi_nerf.reference.hash_grid import Level, initialise_table, level_layout
from taichi_nerf.runtime import DeviceArray, current

__all__ = ["hash_grid", "initialise_table", "level_layout"]


def hash_grid(
    positions: Tensor,  # [n, 3] in [0, 1]
    table: Tensor,  # [n_entries, n_features]
    *,
    n_levels: int = 16,
    base_resolution: int = 16,
    max_resolution: int = 1024,
    per_level_scale: float | None = None,
    log2_table_size: int = 19,
    features: Tensor | None = None,  # [n, n_levels * n_features]
) -> Tensor:
    """The features of every level, interpolated trilinearly: [n, n_levels * n_features], coarse levels first.

    `features`, what an earlier call gave for these positions and this table, saves looking them up again: then only
    gradients are left to compute, and they do not flow to it.

    Coordinates outside [0, 1] are taken to the border, NaN to 0; neither has a gradient. Gradients flow to positions and
    table. The table may be a DeviceArray; its gradient is then added to `table.grad` and does not cross to the host.
    `initialise_table(n_features, **layout)` makes a table.
    """
    sizes = check("hash_grid", lasting=("table",), positions=(positions, "n 3"), table=(table, "n_entries n_features"))
    layout = level_layout(n_levels, base_resolution, max_resolution, per_level_scale, log2_table_size)
    n_entries = layout[-1].offset + layout[-1].size
    if sizes["n_entries"] != n_entries:
        raise ValueError(
            f"hash_grid: table has to have shape [n_entries, n_features] with n_entries={n_entries} "
            f"for {n_levels} levels of these resolutions, got {list(table.shape)}"
        )
    if sizes["n"] * n_levels * sizes["n_features"] > LARGEST:
        raise ValueError(f"hash_grid: {sizes['n']} positions give more features than 32-bit indices reach: split the call")
    check("hash_grid", positions=(positions, "n 3"), features=(features, f"n {n_levels * sizes['n_features']}"))
    on_device = table if isinstance(table, DeviceArray) else None
    return _HashGrid.apply(positions, table if on_device is None else on_device.anchor, on_device, layout, features)


@lru_cache(maxsize=64)
def _uploaded(layout: tuple[Level, ...], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A layout as kernels take it: integers [n_levels, 4] and scales [n_levels]."""
    rows = [[level.offset, level.size, level.resolution, level.is_hashed] for level in layout]
    scales = [level.scale for level in layout]
    return torch.tensor(rows, dtype=torch.int32, device=device), torch.tensor(scales, dtype=dtype, device=device)


class _HashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions, table, on_device, layout, features):  # type: ignore[no-untyped-def]
        positions = plain(positions)
        values = plain(table) if on_device is None else on_device.data
        ctx.n_features = n_features = (table if on_device is None else on_device).shape[1]
        ctx.on_device, ctx.layout = on_device, layout
        n = positions.shape[0]
        ctx.scratch = None
        ctx.save_for_backward(positions, *([values] if on_device is None else []))
        if features is not None:
            return features.view_as(features)
        out = fresh(positions, n, len(layout) * n_features)
        levels = _uploaded(layout, positions.device, positions.dtype)
        if out.numel() and current().arch == "cpu":
            # Kept for the backward pass, which needs as much: 16 MB anew would be 4,000 page faults, about 10 ms.
            ctx.scratch = fresh(positions, n * len(layout), n_features)
            kernels.encode(positions, values, *levels, n_features, current().n_threads, ctx.scratch, out)
        elif out.numel():
            kernels.encode_by_points(positions, values, *levels, n_features, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        positions, *table = (saved.detach() for saved in ctx.saved_tensors)
        levels = _uploaded(ctx.layout, positions.device, positions.dtype)
        grad = plain(grad)
        on_cpu = current().arch == "cpu"
        if on_cpu and grad.numel():
            if ctx.scratch is None:
                ctx.scratch = fresh(positions, len(positions) * len(ctx.layout), ctx.n_features)
            kernels.to_level_major(grad, ctx.n_features, ctx.scratch)
            grad = ctx.scratch
        of_positions = of_table = None
        if ctx.needs_input_grad[1]:
            of_table = _table_gradient(ctx, positions, table, grad, levels, on_cpu)
        if ctx.needs_input_grad[0]:
            of_positions = torch.empty_like(positions)
            if not grad.numel():
                of_positions.zero_()
            else:
                values = table[0] if table else ctx.on_device.data
                slices = (current().n_threads, kernels.SLICE) if on_cpu else (positions.shape[0], 1)
                kernels.positions_adjoint(positions, values, grad, *levels, ctx.n_features, on_cpu, *slices, of_positions)
        return of_positions, of_table, None, None, None


def _table_gradient(ctx: Any, positions: Tensor, table: list[Tensor], grad: Tensor, levels: Any, on_cpu: bool) -> Tensor | None:
    """A fresh gradient for a tensor; None for a DeviceArray, whose own is added to."""
    own = None
    if table:
        # The kernel for CPUs clears the rows itself, each level just before it is needed.
        clears = on_cpu and grad.numel()
        own = fresh(table[0], *table[0].shape) if clears else torch.zeros_like(table[0])
    target = ctx.on_device.grad if own is None else own
    if grad.numel() and on_cpu:
        n_threads = current().n_threads
        n_parts = max(1, n_threads // len(ctx.layout))
        options = (ctx.n_features, n_threads, n_parts, own is None)
        kernels.table_adjoint(positions, grad, *levels, *options, target)
    elif grad.numel():
        kernels.table_adjoint_atomic(positions, grad, *levels, ctx.n_features, target)
    return own
