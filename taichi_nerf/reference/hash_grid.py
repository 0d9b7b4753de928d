"""Multiresolution hash encoding in plain torch (Müller et al. 2022, section 3), with tiny-cuda-nn's layout of the table.

Level l has scale_l = base b^l - 1 and resolution r = ceil(scale_l) + 1 vertices along an axis; a position x lies at
x scale_l + 1/2, which shifts the levels' cells against each other. A level whose r³ vertices fit the table is stored dense,
others share 2^log2_table_size rows by hash. Rows of coarse levels come first, features of a row lie side by side, so a table
trained by tiny-cuda-nn is this `table` flattened.
"""

from functools import lru_cache
from math import ceil, exp, log, log2
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform

PRIMES = (1, 2654435761, 805459861)


class Level(NamedTuple):
    """One grid of the encoding: its rows in the table are [offset, offset + size)."""

    offset: int
    size: int
    resolution: int
    is_hashed: bool
    scale: float


@lru_cache
def level_layout(
    n_levels: int = 16,
    base_resolution: int = 16,
    max_resolution: int = 1024,
    per_level_scale: float | None = None,  # b; None lets the last level have max_resolution
    log2_table_size: int = 19,
) -> tuple[Level, ...]:
    """Where each level lies in the table; the table has `layout[-1].offset + layout[-1].size` rows.

    Every step is rounded to 32 bits, as tiny-cuda-nn does: where b^l base is whole, `ceil` hangs on the last digit.
    """
    if n_levels < 1 or base_resolution < 1 or not 3 <= log2_table_size <= 30:
        raise ValueError(
            "a hash grid needs n_levels >= 1, base_resolution >= 1 and log2_table_size in 3 … 30, "
            f"got {n_levels}, {base_resolution} and {log2_table_size}"
        )
    if per_level_scale is None:
        if max_resolution < base_resolution:
            raise ValueError(f"max_resolution has to be at least base_resolution {base_resolution}, got {max_resolution}")
        per_level_scale = exp(log(max_resolution / base_resolution) / max(n_levels - 1, 1))
    if per_level_scale < 1 or base_resolution * per_level_scale ** (n_levels - 1) > 2**20 + 1:
        raise ValueError(f"levels have to grow, to {2**20} at most; per_level_scale is {per_level_scale}")
    levels: list[Level] = []
    log2_growth = _single(log2(_single(per_level_scale)))
    for index in range(n_levels):
        scale = _single(_single(_single(2.0 ** _single(index * log2_growth)) * base_resolution) - 1)
        resolution = ceil(scale) + 1
        size = min((resolution**3 + 7) // 8 * 8, 2**log2_table_size)
        offset = levels[-1].offset + levels[-1].size if levels else 0
        levels.append(Level(offset, size, resolution, resolution**3 > size, scale))
    return tuple(levels)


def _single(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float32))


def initialise_table(n_features: int = 2, generator: Generator | None = None, **layout: Any) -> Tensor:
    """A new table for `level_layout(**layout)`, uniform in ±1e-4 as in the paper: the encoding starts out close to zero."""
    last = level_layout(**layout)[-1]
    return (torch.rand(last.offset + last.size, n_features, generator=generator) * 2 - 1) * 1e-4


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

    `features`, what an earlier call gave for these positions and this table, stands for the result; gradients are the same.
    `packed`, pairs of bfloat16 in a word, stands for the table; features are bfloat16 then, gradients those of the table.

    Coordinates outside [0, 1] are taken to the border, NaN to 0; neither has a gradient.
    """
    layout = level_layout(n_levels, base_resolution, max_resolution, per_level_scale, log2_table_size)
    out = _interpolated(positions, table, layout)
    if packed is not None:
        rounded = packed.view(torch.bfloat16).to(table.dtype)
        features = _interpolated(positions, rounded, layout).bfloat16() if features is None else features
        out = out.bfloat16()
    return out if features is None else features.detach() + (out - out.detach())


def _interpolated(positions: Tensor, table: Tensor, layout: tuple[Level, ...]) -> Tensor:
    inside = torch.where(positions >= 0, positions.clamp(max=1), 0.0)
    corners = torch.tensor([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(8)], device=positions.device)
    encoded = []
    for level in layout:
        scaled = inside * level.scale + 0.5
        cell = scaled.detach().floor()
        fraction = (scaled - cell)[:, None]  # [n, 1, 3]
        factors = torch.where(corners == 1, fraction, 1 - fraction)  # [n, 8, 3]
        weights = factors[..., 0] * factors[..., 1] * factors[..., 2]
        rows = _rows(cell.long()[:, None] + corners, level)
        encoded.append((weights[..., None] * table[rows]).sum(1))
    return torch.cat(encoded, -1)


def _rows(vertices: Tensor, level: Level) -> Tensor:
    """The table rows of grid vertices [..., 3]. 64-bit integers: the remainder is that of 32-bit wrap-around."""
    x, y, z = vertices.unbind(-1)
    if level.is_hashed:
        return level.offset + ((x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) % level.size
    return level.offset + (x + level.resolution * (y + level.resolution * z)) % level.size


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """The usual training configuration, shrunk for small n: there the table is 2^10 rows with dense and hashed levels.

    The features are of order one, which judges the gradients of positions better than a table fresh from initialisation.
    """
    small = {"n_levels": 4, "base_resolution": 4, "max_resolution": 32, "log2_table_size": 10}
    standard = {"n_levels": 16, "base_resolution": 16, "max_resolution": 1024, "log2_table_size": 19}
    cases: list[tuple[int, dict[str, Any], str]] = [
        (2, small if n <= 4096 else standard, "dense and hashed levels"),
        (4, {**small, "n_levels": 3}, "four features"),
        (1, {**small, "per_level_scale": 1.5, "log2_table_size": 7}, "one feature, scale given"),
        (8, {"n_levels": 2, "base_resolution": 3, "max_resolution": 7, "log2_table_size": 12}, "eight features, all dense"),
    ]
    made = []
    for n_features, layout, label in cases[: 4 if n <= 4096 else 1]:
        like = torch.empty(0, dtype=dtype)
        last = level_layout(**layout)[-1]
        arguments: dict[str, Any] = {
            "positions": uniform(generator, (n, 3), 0.01, 0.99, like),
            "table": uniform(generator, (last.offset + last.size, n_features), -1, 1, like),
            **layout,
        }
        made.append(Example("hash_grid", arguments, ("positions", "table"), label))
    if n <= 4096 and dtype == torch.float32:  # finite differences, made in 64 bits, would find no dependence on positions
        known = {**made[0].arguments, "features": hash_grid(**made[0].arguments)}
        made.append(Example("hash_grid", known, ("positions", "table"), "features known from an earlier call"))
    return made
