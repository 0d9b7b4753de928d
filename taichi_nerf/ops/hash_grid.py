"""Multiresolution hash encoding. See `kernels/hash_grid.py` for the formulas and `reference/hash_grid.py` for the layout."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import hash_grid as kernels
from taichi_nerf.kernels import hash_grid_packed as packed_kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import LARGEST, check, fresh, plain
from taichi_nerf.ops.once import once_differentiable

# The layout of the table is part of the specification, so it stands there, in plain Python, and once.
from taichi_nerf.reference.hash_grid import Level, initialise_table, level_layout
from taichi_nerf.runtime import DeviceArray, current

__all__ = ["can_pack", "hash_grid", "initialise_table", "level_layout", "pack"]


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
    packed: Tensor | None = None,  # [n_entries, n_features / 2] int32
) -> Tensor:
    """The features of every level, interpolated trilinearly: [n, n_levels * n_features], coarse levels first.

    `packed`, the table as `pack` rounds it, is read in place of the table; then features are bfloat16, and gradients flow to
    the table as if it had not been rounded.

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
    wanted = (f"n {n_levels * sizes['n_features']}", *([] if packed is None else [torch.bfloat16]))
    check("hash_grid", positions=(positions, "n 3"), features=(features, *wanted))
    on_device = table if isinstance(table, DeviceArray) else None
    if packed is not None:
        if on_device is not None or not can_pack(table):
            raise ValueError("hash_grid: packed is for the cpu backend and tables of float32 with an even number of features")
        check("hash_grid", packed=(packed, f"{n_entries} {table.shape[1] // 2}", torch.int32))
    return _HashGrid.apply(positions, table if on_device is None else on_device.anchor, on_device, layout, features, packed)


def can_pack(table: Tensor) -> bool:
    """Whether `pack` serves here: on processors, where half the memory to visit is worth a second table."""
    return current().arch == "cpu" and table.dtype == torch.float32 and table.shape[1] % 2 == 0


def pack(table: Tensor, out: Tensor | None = None) -> Tensor:  # [n_entries, n_features] → [n_entries, n_features / 2] int32
    """The table in bfloat16, two features to a word, into `out` where that is given."""
    shape = (table.shape[0], table.shape[1] // 2)
    out = torch.empty(shape, dtype=torch.int32, device=table.device) if out is None else out
    check("pack", table=(table, "n_entries n_features"), out=(out, "{} {}".format(*shape), torch.int32))
    launch(packed_kernels.pack, plain(table).view(-1), out.view(-1))
    return out


@lru_cache(maxsize=64)
def _uploaded(layout: tuple[Level, ...], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A layout as kernels take it: integers [n_levels, 4] and scales [n_levels]."""
    rows = [[level.offset, level.size, level.resolution, level.is_hashed] for level in layout]
    scales = [level.scale for level in layout]
    return torch.tensor(rows, dtype=torch.int32, device=device), torch.tensor(scales, dtype=dtype, device=device)


class _HashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions, table, on_device, layout, features, packed):  # type: ignore[no-untyped-def]
        positions = plain(positions)
        values = plain(table) if on_device is None else on_device.data
        ctx.n_features = n_features = (table if on_device is None else on_device).shape[1]
        ctx.on_device, ctx.layout = on_device, layout
        n = positions.shape[0]
        ctx.scratch = None
        ctx.save_for_backward(positions, *([values] if on_device is None else []))
        if features is not None:
            return features.view_as(features)
        levels = _uploaded(layout, positions.device, positions.dtype)
        if packed is not None:
            return _encode_packed(positions, plain(packed), levels)
        out = fresh(positions, n, len(layout) * n_features)
        if out.numel() and current().arch == "cpu" and on_device is None:
            # Kept for the backward pass, which needs as much: 16 MB anew would be 4,000 page faults, about 10 ms.
            ctx.scratch = fresh(positions, n * len(layout), n_features)
            sizes = (n_features, len(layout), current().n_threads)
            launch(kernels.encode, positions.view(-1), values.view(-1), *levels, *sizes, ctx.scratch.view(-1), out.view(-1))
        elif out.numel():
            launch(kernels.encode_by_points, positions, values, *levels, n_features, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        positions, *table = (saved.detach() for saved in ctx.saved_tensors)
        levels = _uploaded(ctx.layout, positions.device, positions.dtype)
        grad = plain(grad)
        n_features, on_cpu = ctx.n_features, current().arch == "cpu"
        by_owners = bool(on_cpu and table and grad.numel())
        if by_owners:
            if ctx.scratch is None:
                ctx.scratch = fresh(positions, len(positions) * len(ctx.layout), ctx.n_features)
            if grad.dtype == torch.bfloat16:
                launch(packed_kernels.to_level_major, grad.view(torch.int32), n_features // 2, ctx.scratch)
            else:
                launch(kernels.to_level_major, grad, n_features, ctx.scratch)
            grad = ctx.scratch
        of_positions = of_table = None
        if ctx.needs_input_grad[1]:
            of_table = _table_gradient(ctx, positions, table, grad, levels, by_owners)
        if ctx.needs_input_grad[0]:
            of_positions = torch.empty_like(positions)
            if not grad.numel():
                of_positions.zero_()
            else:
                values = table[0] if table else ctx.on_device.data
                slices = (current().n_threads, kernels.cells.SLICE) if on_cpu else (positions.shape[0], 1)
                options = (n_features, by_owners, *slices)
                launch(kernels.positions_adjoint, positions, values, grad, *levels, *options, of_positions)
        return of_positions, of_table, None, None, None, None


def _encode_packed(positions: Tensor, packed: Tensor, levels: tuple[Tensor, Tensor]) -> Tensor:
    n, n_levels, n_words = len(positions), len(levels[1]), packed.shape[1]
    out = fresh(packed, n, n_levels * n_words)
    if n:
        sizes = (n_words, n_levels, current().n_threads)
        flat = (torch.empty_like(out).view(-1), out.view(-1))
        launch(packed_kernels.encode, positions.view(-1), packed.view(-1), *levels, *sizes, *flat)
    return out.view(torch.bfloat16)


def _table_gradient(
    ctx: Any, positions: Tensor, table: list[Tensor], grad: Tensor, levels: tuple[Tensor, Tensor], by_owners: bool
) -> Tensor | None:
    """A fresh gradient for a tensor; None for a DeviceArray, whose own is added to."""
    if by_owners:  # which clear their rows themselves, each level just before it is needed
        out, n_threads = fresh(table[0], *table[0].shape), current().n_threads
        options = (ctx.n_features, n_threads, max(1, n_threads // len(ctx.layout)))
        launch(kernels.table_adjoint, positions.view(-1), grad.view(-1), *levels, *options, out.view(-1))
        return out
    own = torch.zeros_like(table[0]) if table else None
    if grad.numel():
        target = ctx.on_device.grad if own is None else own
        launch(kernels.table_adjoint_atomic, positions, grad, *levels, ctx.n_features, target)
    return own
