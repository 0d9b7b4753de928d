"""Marching rays through an occupancy grid, by trying every index of the lattice, in plain torch.

Boundary k of a ray's lattice is t = T(k + jitter) with T(0) = 0 and dT/du = clamp(T log(1 + cone_angle), step_size,
max_step). A sample is an interval whose midpoint lies in [t_near, t_far) and in an occupied cell of the finest cascade
around it.
"""

import math
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from taichi_nerf.reference.example import Example, uniform

RAYS_AT_ONCE = 2048
MOST_INDICES = 2**24
MOST_CONTRACTED_STEPS = 2**16


def march_rays(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    t_near: Tensor,  # [n_rays]
    t_far: Tensor,  # [n_rays]
    occupancy: Tensor,  # [n_words] int32, a Tensor or DeviceArray: n_cascades * resolution^3 bits
    aabb: Tensor,  # [2, 3] the box of cascade 0
    *,
    step_size: float,
    cone_angle: float = 0.0,
    max_step: float = 1e10,
    jitter: Tensor | None = None,  # [n_rays] in [0, 1); None is 0
    resolution: int = 128,
    n_cascades: int = 1,
    contraction: str = "none",
    max_samples_per_ray: int = 1024,
    max_samples: int | None = None,
    least_density: Tensor | None = None,  # [n_cells] that light meets everywhere in a cell
    most_thickness: float = math.inf,
    spread: Tensor | None = None,  # only makes the kernel faster
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The intervals whose midpoints lie in occupied cells, as far as light gets: t_starts, t_ends, ray_indices, spans."""
    if len(origins) == 0:
        nothing = torch.zeros(0, dtype=torch.int32, device=origins.device)
        return t_near.new_empty(0), t_near.new_empty(0), nothing, nothing.view(0, 2)
    center, half = aabb.mean(0), (aabb[1] - aabb[0]) / 2
    origins, directions = (origins - center) / half, directions / half
    jitter = torch.zeros_like(t_near) if jitter is None else jitter
    rows, starts, ends = [], [], []
    for rays in torch.arange(len(origins), device=origins.device).split(RAYS_AT_ONCE):
        o, d, near, far, shift = origins[rays], directions[rays], t_near[rays], t_far[rays], jitter[rays]
        if contraction == "none":  # no point of the grid is farther away than this
            far = far.minimum((o.norm(dim=-1) + 2 ** (n_cascades - 1) * math.sqrt(3)) / d.norm(dim=-1) + step_size)
        t_start, t_end = _lattice(near, far, shift, step_size, cone_angle, max_step)
        middle = (t_start + t_end) / 2
        place, cascade = _place(o[:, None] + d[:, None] * middle[..., None], resolution, n_cascades, contraction)
        cell, inside = _cell_of(place, cascade, resolution, len(occupancy) * 32)
        kept = (middle >= near[:, None]) & (middle < far[:, None]) & inside & _is_set(occupancy, cell)
        if least_density is not None:
            thickness = torch.where(kept, least_density[cell] * (t_end - t_start), 0)
            kept &= thickness.cumsum(-1) - thickness <= most_thickness
        kept &= kept.cumsum(-1) <= max_samples_per_ray
        row, column = kept.nonzero(as_tuple=True)
        rows.append(rays[row])
        starts.append(t_start[row, column])
        ends.append(t_end[row, column])
    ray_indices, t_starts, t_ends = torch.cat(rows), torch.cat(starts), torch.cat(ends)
    if max_samples is not None:  # cut off, or filled up with empty intervals
        missing = max(max_samples - len(t_starts), 0)
        kept_rays = ray_indices[:max_samples]
        ray_indices = torch.cat([kept_rays, kept_rays.new_zeros(missing)])
        t_starts, t_ends = (torch.cat([t[:max_samples], t.new_zeros(missing)]) for t in (t_starts, t_ends))
    else:
        kept_rays = ray_indices
    count = torch.bincount(kept_rays, minlength=len(origins))
    spans = torch.stack([count.cumsum(0) - count, count], -1)
    return t_starts, t_ends, ray_indices.int(), spans.int()


def sample_positions(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    ray_indices: Tensor,  # [n_samples] int32
    spans: Tensor,  # [n_rays, 2] int32: first, count
) -> Tensor:
    """The midpoint of every interval. `spans` says again what `ray_indices` says, for the op's adjoint."""
    return origins[ray_indices] + directions[ray_indices] * ((t_starts + t_ends) / 2)[:, None]


def _lattice(
    near: Tensor, far: Tensor, jitter: Tensor, step_size: float, cone_angle: float, max_step: float
) -> tuple[Tensor, Tensor]:
    """All intervals, [n_rays, n_steps], that may have their midpoint in [near, far) (and others)."""
    growth = math.log1p(cone_angle)
    bent_t, straight_t = (step_size / growth, max_step / growth) if growth else (math.inf, math.inf)
    bent = 1 / growth if growth else math.inf
    straight = bent + math.log(max_step / step_size) / growth if growth else math.inf

    def t_of(index: Tensor) -> Tensor:
        if not growth:
            return step_size * index
        curved = bent_t * torch.exp(growth * (index - bent))
        return torch.where(
            index > straight,
            straight_t + max_step * (index - straight),
            torch.where(index > bent, curved, step_size * index),
        )

    def index_of(t: Tensor) -> Tensor:
        if not growth:
            return t / step_size
        curved = bent + torch.log(t.clamp_min(bent_t) / bent_t) / growth
        return torch.where(t > straight_t, straight + (t - straight_t) / max_step, torch.where(t > bent_t, curved, t / step_size))

    first = (index_of(near) - jitter).clamp(-MOST_INDICES, MOST_INDICES).floor().long() - 2
    last = (index_of(far) - jitter).clamp(-MOST_INDICES, MOST_INDICES).floor().long() + 2
    n_steps = int((last - first).max().clamp(0, MOST_CONTRACTED_STEPS)) + 1
    k = first[:, None] + torch.arange(n_steps, device=near.device)
    return t_of(k.to(near.dtype) + jitter[:, None]), t_of((k + 1).to(near.dtype) + jitter[:, None])


def _place(positions: Tensor, resolution: int, n_cascades: int, contraction: str) -> tuple[Tensor, Tensor]:
    """Coordinates in cells of the finest cascade around each position, and that cascade; n_cascades outside of all."""
    if contraction == "sphere":
        norm = positions.norm(dim=-1, keepdim=True)
        positions = torch.where(norm > 1, (2 - 1 / norm) / norm, 1.0) * positions / 2
    reach = positions.abs().amax(-1)
    cascade = sum(((reach >= 2**c).long() for c in range(n_cascades)), torch.zeros_like(reach, dtype=torch.long))
    return (positions / (2.0**cascade)[..., None] + 1) * (resolution // 2), cascade


def _cell_of(place: Tensor, cascade: Tensor, resolution: int, n_cells: int) -> tuple[Tensor, Tensor]:
    """The number of each place's cell (0 outside of the grid), and whether it is inside."""
    inside = cascade < n_cells // resolution**3
    x, y, z = place.nan_to_num(0).floor().clamp(0, resolution - 1).long().unbind(-1)
    return torch.where(inside, x + resolution * (y + resolution * (z + resolution * cascade)), 0), inside


def _is_set(occupancy: Tensor, cell: Tensor) -> Tensor:
    return ((occupancy[cell >> 5] >> (cell & 31)) & 1).bool()


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n / 16 rays towards the box from around it, and grids of blobs, so that about n samples come out."""
    like = torch.empty(0, dtype=dtype)
    n_rays = (n + 15) // 16
    resolution = 128 if n > 10_000 else 32
    around = normalize(uniform(generator, (n_rays, 3), -1, 1, like), dim=-1)
    arguments: dict[str, Any] = {
        "origins": 2.5 * around + uniform(generator, (n_rays, 3), -0.5, 0.5, like),
        "directions": normalize(uniform(generator, (n_rays, 3), -0.7, 0.7, like) - 2.5 * around, dim=-1),
        "t_near": uniform(generator, (n_rays,), 0, 0.3, like),
        "t_far": uniform(generator, (n_rays,), 1, 6, like),
        "occupancy": _blobs(generator, resolution, 1),
        "aabb": torch.tensor([[-1.0, -1.25, -0.9], [1.1, 1.0, 1.0]], dtype=dtype),
        "step_size": 0.0135,
        "jitter": uniform(generator, (n_rays,), 0, 1, like),
        "resolution": resolution,
    }
    small = {**arguments, "aabb": arguments["aabb"] / 4, "occupancy": _blobs(generator, resolution, 4), "n_cascades": 4}
    cone = {**small, "cone_angle": 1 / 64, "max_step": 0.05, "max_samples_per_ray": 12}
    contracted = {**arguments, "aabb": arguments["aabb"] / 2, "contraction": "sphere", "jitter": None}
    growing = {**contracted, "cone_angle": 1 / 32, "step_size": 0.03, "t_far": 1000 * arguments["t_far"]}
    opaque = 100.0 * (uniform(generator, (resolution**3,), 0, 1, like) < 0.1)  # after one sample of it no light is left
    calls = {
        "one box": arguments,
        "as far as light gets": {**arguments, "least_density": opaque.to(dtype), "most_thickness": 0.5},
        "four cascades, room for fewer": {**small, "max_samples": 3 * n // 4},
        "one box, room for more": {**arguments, "max_samples": 3 * n},
        "growing steps": cone,
        "contracted": contracted,
        "contracted, growing steps": growing,
    }
    t_starts = uniform(generator, (n,), 0, 4, like)
    rays = torch.arange(n, dtype=torch.int32) // 16
    count = torch.bincount(rays, minlength=n_rays)
    intervals = {
        "origins": arguments["origins"],
        "directions": arguments["directions"],
        "t_starts": t_starts,
        "t_ends": t_starts + uniform(generator, (n,), 0.01, 0.2, like),
        "ray_indices": rays,
        "spans": torch.stack([count.cumsum(0) - count, count], -1).int(),
    }
    gradients = ("origins", "directions", "t_starts", "t_ends")
    return [
        *(Example("march_rays", _without_close_calls(call), label=label) for label, call in calls.items()),
        Example("sample_positions", intervals, gradients),
    ]


def _blobs(generator: Generator, resolution: int, n_cascades: int) -> Tensor:
    """Bits of a grid of which a quarter of the blocks of 8^3 cells is filled to a half."""
    side = resolution // 8
    blocks = torch.rand(n_cascades * side, side, side, generator=generator) < 0.25
    for axis in range(3):
        blocks = blocks.repeat_interleave(8, axis)
    cells = blocks.flatten() & (torch.rand(blocks.numel(), generator=generator) < 0.5)
    return (cells.view(-1, 32).long() << torch.arange(32)).sum(-1).to(torch.int32)


def _without_close_calls(call: dict[str, Any]) -> dict[str, Any]:
    """The call, with rays emptied on which rounding, which differs between devices, could decide about a sample."""
    near, far = call["t_near"], call["t_far"]
    if len(near) == 0 or len(near) > RAYS_AT_ONCE:
        return call
    center, half = call["aabb"].mean(0), (call["aabb"][1] - call["aabb"][0]) / 2
    jitter = torch.zeros_like(near) if call["jitter"] is None else call["jitter"]
    options = (call["step_size"], call.get("cone_angle", 0.0), call.get("max_step", 1e10))
    t_start, t_end = _lattice(near, far, jitter, *options)
    middle = (t_start + t_end) / 2
    positions = (call["origins"] - center)[:, None] / half + (call["directions"] / half)[:, None] * middle[..., None]
    place, cascade = _place(positions, call["resolution"], call.get("n_cascades", 1), call.get("contraction", "none"))
    close = ((place - place.round()).abs() < 3e-4).any(-1) & (cascade < call.get("n_cascades", 1))
    close |= torch.minimum((middle - near[:, None]).abs(), (middle - far[:, None]).abs()) < 1e-5 * middle.abs()
    return {**call, "t_far": torch.where(close.any(-1), near, far)}
