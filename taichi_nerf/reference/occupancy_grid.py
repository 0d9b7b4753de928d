"""The occupancy grid's bookkeeping (Müller et al. 2022, appendix E), in plain torch.

Cells count x fastest, x + R (y + R (z + R cascade)); cascade c covers the box scaled by 2^c about its centre. A negative
density_ema marks a cell that no camera sees.
"""

from typing import Any

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform

LARGEST_NORM = 2 * (1 - 1 / 1024)  # of a contracted point: infinity is pulled in to 512 half-sizes


def cell_positions(
    cells: Tensor,  # [n_cells] int32
    jitter: Tensor,  # [n_cells, 3] in [0, 1), 0.5 is the centre
    aabb: Tensor,  # [2, 3] the box of cascade 0
    *,
    resolution: int = 128,
    contraction: str = "none",
) -> Tensor:
    """A point in each of the cells, [n_cells, 3]; `jitter` tells where in the cell."""
    place, scale = _place(cells, jitter, resolution)
    place = _expand(2 * place) if contraction == "sphere" else place * scale[:, None]
    return aabb.mean(0) + (aabb[1] - aabb[0]) / 2 * place


def update_density(
    density_ema: Tensor,  # [n_cells]
    cells: Tensor,  # [n_visited] int32
    density: Tensor,  # [n_visited]
    *,
    decay: float = 0.95,
) -> Tensor:
    """A new density_ema: max(decay * old, density) in the visited cells, the old value in all others."""
    new, cells = density_ema.clone(), cells.long()
    old = density_ema[cells].nan_to_num(nan=0.0, posinf=0.0)
    new[cells] = old * decay
    new.scatter_reduce_(0, cells, density.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), "amax")
    return torch.where(density_ema < 0, density_ema, new)


def update_density_(
    density_ema: Tensor,  # [n_cells] a contiguous Tensor or DeviceArray, changed in place
    cells: Tensor,  # [n_visited] int32
    density: Tensor,  # [n_visited]
    *,
    decay: float = 0.95,
) -> None:
    """`update_density` in place."""
    density_ema.copy_(update_density(density_ema, cells, density, decay=decay))


def pack_occupancy(
    density_ema: Tensor,  # [n_cells] a Tensor or DeviceArray
    *,
    threshold: float,
    out: Tensor | None = None,  # [n_cells / 32] int32, a contiguous Tensor or DeviceArray
) -> Tensor:
    """Bits of the cells with density_ema > min(threshold, mean over visible cells); all visible ones if that is none."""
    known = density_ema[(density_ema >= 0) & density_ema.isfinite()]
    limit = min(threshold, known.double().mean().item()) if len(known) else threshold
    if not (known > limit).any():
        limit = -1
    occupied = ~(density_ema < 0) & ~(density_ema <= limit)
    bits = (occupied.view(-1, 32).long() << torch.arange(32, device=density_ema.device)).sum(-1).to(torch.int32)
    return bits if out is None else out.copy_(bits)


def mark_invisible_cells(
    density_ema: Tensor,  # [n_cascades * resolution^3]
    camera_to_worlds: Tensor,  # [n_cameras, 3, 4] OpenCV
    intrinsics: Tensor,  # [n_cameras, 4] focal lengths x, y and principal point x, y in pixels
    image_sizes: Tensor,  # [n_cameras, 2] int32: width, height
    aabb: Tensor,  # [2, 3] the box of cascade 0
    *,
    near: float = 0.0,
    resolution: int = 128,
    contraction: str = "none",
) -> Tensor:
    """A new density_ema with -1 in the cells whose balls reach into no camera's pyramid; marked ones return to 0."""
    cells = torch.arange(len(density_ema), dtype=torch.int32, device=aabb.device)
    place, scale = _place(cells, torch.full((len(cells), 3), 0.5, dtype=aabb.dtype, device=aabb.device), resolution)
    half = (aabb[1] - aabb[0]) / 2
    if contraction == "sphere":
        reach = 2 * 3**0.5 / resolution  # half of a cell's diagonal; expanded, 1 / (2 - r)^2 times that
        outer = 2 * place.norm(dim=-1) + reach
        seen = (outer >= 2) & (outer - 2 * reach < 2) & (len(camera_to_worlds) > 0)
        radius = half.max() * reach * torch.where(outer > 1, 1 / (2 - outer) ** 2, 1.0)
        place = _expand(2 * place)
    else:
        seen = torch.zeros_like(scale, dtype=torch.bool)
        radius = half.norm() * scale / resolution
        place = place * scale[:, None]
    centers = aabb.mean(0) + half * place
    for pose, lens, size in zip(camera_to_worlds, intrinsics, image_sizes, strict=True):
        x, y, z = ((centers - pose[:, 3]) @ pose[:, :3]).unbind(-1)
        inside = z >= near - radius
        for at, focal, principal, rest in ((x, lens[0], lens[2], size[0] - lens[2]), (y, lens[1], lens[3], size[1] - lens[3])):
            inside &= focal * at + principal * z >= -radius * (focal**2 + principal**2).sqrt()
            inside &= rest * z - focal * at >= -radius * (focal**2 + rest**2).sqrt()
        seen |= inside
    return torch.where(seen, torch.where(density_ema < 0, 0.0, density_ema), -1.0)


def occupied_fraction(
    bits: Tensor,  # [n_words] int32, a Tensor or DeviceArray
) -> Tensor:
    """The share of cells that are occupied, a float32 scalar; 0 for no cells."""
    ones = ((bits[:, None] >> torch.arange(32, device=bits.device)) & 1).sum()
    return (ones.double() / max(32 * len(bits), 1)).float()


def _place(cells: Tensor, offset: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Points of the cells within their cascade, in [-1, 1]^3, and the cascades' scales."""
    row = cells.div(resolution, rounding_mode="floor")
    layer = row.div(resolution, rounding_mode="floor")
    at = torch.stack([cells % resolution, row % resolution, layer % resolution], -1)
    scale = 2.0 ** layer.div(resolution, rounding_mode="floor").to(offset.dtype)
    return (at + offset) * (2 / resolution) - 1, scale


def _expand(contracted: Tensor) -> Tensor:
    norm = contracted.norm(dim=-1, keepdim=True)
    return torch.where(norm > 1, contracted / (norm * (2 - norm.clamp_max(LARGEST_NORM))), contracted)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """About n cells; for the cameras, whose grid has at least 32^3 cells, at most that many."""
    like = torch.empty(0, dtype=dtype)
    n_cells = (n + 31) // 32 * 32
    density_ema = uniform(generator, (n_cells,), 0, 2, like) ** 4
    density_ema[uniform(generator, (n_cells,), 0, 1, like) < 0.2] = -1
    visited = {
        "density_ema": density_ema,
        "cells": torch.randint(0, max(n_cells, 1), (n,), generator=generator, dtype=torch.int32),
        "density": uniform(generator, (n,), 0, 8, like),
    }
    broken = visited["density"].clone()
    broken[::3], broken[1::5], broken[2::7] = torch.nan, torch.inf, -torch.inf
    resolution = 64 if n > 32**3 else 32
    somewhere: dict[str, Any] = {
        "cells": torch.randint(0, 3 * resolution**3, (n,), generator=generator, dtype=torch.int32),
        "jitter": uniform(generator, (n, 3), 0, 1, like),
        "aabb": torch.tensor([[-1.0, -1.25, -0.9], [1.1, 1.0, 1.0]], dtype=dtype),
        "resolution": resolution,
    }
    contracted = {**somewhere, "cells": somewhere["cells"] % resolution**3, "contraction": "sphere"}
    return [
        Example("update_density", visited, label="cells repeat"),
        Example("update_density", {**visited, "density": broken, "decay": 0.5}, label="broken densities"),
        Example("pack_occupancy", {"density_ema": density_ema, "threshold": 0.01}, label="above a threshold"),
        Example("pack_occupancy", {"density_ema": density_ema, "threshold": 1e3}, label="above the mean"),
        Example("pack_occupancy", {"density_ema": density_ema.clamp_max(0), "threshold": 0.01}, label="gone empty"),
        Example("cell_positions", somewhere, label="three cascades"),
        Example("cell_positions", contracted, label="contracted"),
        Example("mark_invisible_cells", _cameras(n, generator, resolution, dtype), label="two cascades"),
        Example("occupied_fraction", {"bits": torch.randint(-(2**31), 2**31, (n,), generator=generator).int()}),
    ]


def _cameras(n: int, generator: Generator, resolution: int, dtype: torch.dtype) -> dict[str, Any]:
    """Cameras along the axes whose numbers are short binary fractions, so that no rounding decides what they see."""
    n_cameras = min(n, 3)
    columns = torch.eye(3, dtype=dtype)[torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])][:n_cameras].mT
    positions = torch.randint(-32, 32, (n_cameras, 3, 1), generator=generator).to(dtype) / 32
    return {
        "density_ema": uniform(generator, (2 * resolution**3,), -1, 1, torch.empty(0, dtype=dtype)),
        "camera_to_worlds": torch.cat([columns, positions], -1),
        "intrinsics": torch.tensor([[96.0, 112, 33, 27], [70, 75, 30, 31], [80, 80, 20, 10]], dtype=dtype)[:n_cameras],
        "image_sizes": torch.tensor([[64, 48], [40, 60], [33, 47]], dtype=torch.int32)[:n_cameras],
        "aabb": torch.tensor([[-1.0, -1, -1], [1, 1, 1]], dtype=dtype),
        "near": 0.125,
        "resolution": resolution,
    }
