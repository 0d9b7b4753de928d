"""Marching rays through an occupancy grid. See `kernels/ray_marching.py` for the lattice, the grid and the skipping.

`march_rays` is where samples come from and has no gradient: which cells are occupied is no smooth function of anything.
`sample_positions` forms the midpoints of any sampler's intervals, and gradients reach rays and intervals through it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import empty_space, ray_marching
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import LARGEST, check, check_indices, check_spans, plain, upload
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.rays import Samples
from taichi_nerf.runtime import DeviceArray, current

MOST_PER_RAY = 2**24  # far from where 32-bit sums of counts wrap
ROOM, MOST_ROOM = 64, 2**16  # samples of a ray, on average and at most, that a march in one pass has room for
FEW_SAMPLES = 2**14  # that every slice has room for: the long rays of a few are no mean of many
SLICES_OF_A_THREAD = 4  # so that a thread whose rays see little takes more of them
LONGEST_STEP = 1e10  # keeps the lattice's numbers finite in 32 bits


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
    spread: Tensor | None = None,  # [n_words, 4] int32, what `spread_bits` makes of this occupancy; None: made anew
) -> Samples:
    """The intervals of a ray's lattice whose midpoints lie in [t_near, t_far) and in an occupied cell. No gradients.

    Boundary k is at t = step_size (k + jitter), so a jitter drawn per ray makes the midpoints uniform over any stretch.
    With a `cone_angle`, steps grow from step_size to cone_angle * t, up to max_step. Intervals are whole: the first and
    the last may reach half a step over t_near and t_far. A ray ends where the outermost cascade does, so t_far may
    be infinite. `contraction="sphere"` reads one grid in mip-NeRF 360's contracted space, in half-sizes of the box, and
    there a ray tries 65,536 steps at most. A ray keeps its first `max_samples_per_ray` samples; one that holds a NaN has none.

    With `least_density` a ray ends where its light does: with the sample that takes the sum of least density times length past
    `most_thickness`, of which e^-most_thickness of the light is left at most.

    Without `max_samples` the host waits once, to learn how many samples there are. With it, the buffers have that length
    at once: rays past the end are cut short or left empty, and what is left over holds empty intervals of ray 0 that
    no span covers.
    """
    _check_options(step_size, cone_angle, max_step, resolution, n_cascades, contraction, max_samples_per_ray, max_samples)
    if math.isnan(most_thickness):
        raise ValueError("march_rays: most_thickness is not a number")
    n_words = n_cascades * resolution**3 // 32
    sizes = check(
        "march_rays",
        lasting=("occupancy",),
        origins=(origins, "n_rays 3"),
        directions=(directions, "n_rays 3"),
        t_near=(t_near, "n_rays"),
        t_far=(t_far, "n_rays"),
        jitter=(jitter, "n_rays"),
        aabb=(aabb, "2 3"),
        occupancy=(occupancy, str(n_words), torch.int32),
        least_density=(least_density, str(n_words * 32)),
        spread=(spread, f"{n_words} 4", torch.int32),
    )
    n_rays = sizes["n_rays"]
    spans = torch.empty(n_rays, 2, dtype=torch.int32, device=origins.device)  # every path fills it
    if n_rays == 0:
        nowhere = _empty_samples(max_samples or 0, origins, spans)
        return nowhere._replace(
            t_starts=nowhere.t_starts.zero_(), t_ends=nowhere.t_ends.zero_(), ray_indices=nowhere.ray_indices.zero_()
        )
    bits = plain(occupancy)
    spread = spread_bits(occupancy, resolution) if spread is None else plain(spread)
    jitter = torch.zeros_like(t_near) if jitter is None else jitter
    rays = [plain(x) for x in (origins, directions, t_near, t_far, jitter)]
    lattice = upload(lattice_of(step_size, cone_angle, max_step), origins.dtype, origins.device)
    dimming = least_density is not None and most_thickness < math.inf
    light = (plain(least_density) if least_density is not None else lattice, most_thickness)
    grid = (bits, spread, plain(aabb), lattice, *light, max_samples_per_ray, n_cascades, resolution)
    kind = (cone_angle > 0, contraction == "sphere", dimming)
    if current().arch == "cpu" and max_samples is None and max_samples_per_ray <= MOST_ROOM and n_rays * ROOM < LARGEST // 2:
        found = _march_slices([*rays, *grid, *kind], spans, max_samples_per_ray)
        if found is not None:
            return found
    beginnings = spans.new_empty(n_rays)
    out = _empty_samples(1, origins, spans)
    launch(ray_marching.march_rays, *rays, *grid, *kind, False, beginnings, spans, out.t_starts, out.t_ends, out.ray_indices)
    out = _empty_samples(_lay_out(spans, max_samples), origins, spans)
    if len(out.t_starts):
        launch(ray_marching.march_rays, *rays, *grid, *kind, True, beginnings, spans, out.t_starts, out.t_ends, out.ray_indices)
    return out


def spread_bits(occupancy: Tensor, resolution: int) -> Tensor:  # [n_words] → [n_words, 4] int32
    """How far from each cell it is empty, which marches skip by: worth keeping from march to march of one occupancy."""
    n_cascades = max(1, occupancy.shape[0] // (resolution**3 // 32))
    shape = str(n_cascades * resolution**3 // 32)
    check("spread_bits", lasting=("occupancy",), occupancy=(occupancy, shape, torch.int32))
    device = current().torch_device if isinstance(occupancy, DeviceArray) else occupancy.device
    scratch, spread = (
        torch.empty(occupancy.shape[0], *n, dtype=torch.int32, device=device) for n in ((), (len(empty_space.REACHES),))
    )
    launch(empty_space.spread_bits, plain(occupancy), resolution, scratch, spread)
    return spread


def _march_slices(arguments: list[Any], spans: Tensor, most: int) -> Samples | None:
    """In one pass, into room for ROOM samples a ray on average; None where that was too little. Fills in `spans`."""
    n_rays = len(spans)
    n_slices = min(SLICES_OF_A_THREAD * current().n_threads, n_rays)
    per_slice = -(-n_rays // n_slices)
    room = max(per_slice * ROOM, min(per_slice * most, FEW_SAMPLES)) + most
    totals, parts = spans.new_empty(n_slices), _empty_samples(n_slices * room, arguments[0], spans)
    counts = spans.new_empty(n_rays)
    launch(ray_marching.march_slices, *arguments, n_slices, room, counts, totals, *parts[:3])
    n_found = totals.tolist()
    if max(n_found) > room:
        return None
    n_samples = _counted(sum(n_found))
    out = _empty_samples(n_samples, arguments[0], spans)
    launch(ray_marching.join_slices, n_slices, room, counts, totals, *parts[:3], spans, *out[:3])
    return out


def sample_positions(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    ray_indices: Tensor,  # [n_samples] int32
    spans: Tensor,  # [n_rays, 2] int32: first, count
) -> Tensor:
    """The midpoint of every interval, origin + direction (t_start + t_end) / 2, as [n_samples, 3].

    Gradients flow to all floats. Those of origins and directions are sums over the ray's span, so `ray_indices` and
    `spans` have to agree; a sample that no span covers sends none to its ray.
    """
    check(
        "sample_positions",
        origins=(origins, "n_rays 3"),
        directions=(directions, "n_rays 3"),
        t_starts=(t_starts, "n_samples"),
        t_ends=(t_ends, "n_samples"),
        ray_indices=(ray_indices, "n_samples", torch.int32),
        spans=(spans, "n_rays 2", torch.int32),
    )
    check_spans("sample_positions", spans, len(t_starts))
    check_indices("sample_positions", "ray_indices", ray_indices, len(origins) - 1)
    return _SamplePositions.apply(origins, directions, t_starts, t_ends, ray_indices, spans)


class _SamplePositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, origins, directions, t_starts, t_ends, ray_indices, spans):  # type: ignore[no-untyped-def]
        inputs = [plain(x) for x in (origins, directions, t_starts, t_ends, ray_indices)]
        positions = origins.new_empty(len(t_starts), 3)
        if len(positions):
            launch(ray_marching.sample_positions, *inputs, positions)
        ctx.save_for_backward(*inputs[1:], plain(spans))
        return positions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_positions):  # type: ignore[no-untyped-def]
        directions, t_starts, t_ends, ray_indices, spans = (saved.detach() for saved in ctx.saved_tensors)
        grad_positions = plain(grad_positions)
        of_origins = of_directions = of_t = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            of_origins, of_directions = torch.zeros_like(directions), torch.zeros_like(directions)
            if len(spans) and len(t_starts):
                out = (of_origins, of_directions)
                launch(ray_marching.sample_positions_adjoint_rays, t_starts, t_ends, spans, grad_positions, *out)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            of_t = torch.zeros_like(t_starts)
            if len(t_starts):
                launch(ray_marching.sample_positions_adjoint_t, directions, ray_indices, grad_positions, of_t)
        return of_origins, of_directions, of_t, of_t, None, None


def _lay_out(spans: Tensor, max_samples: int | None) -> int:
    """Turn the counts in `spans` into packed (first, count) in place, and return the length of the sample buffers."""
    ends = spans[:, 1].cumsum(0)
    if max_samples is None:
        n_samples = _counted(int(ends[-1]))
        spans[:, 0] = ends - spans[:, 1]
        return n_samples
    first = (ends - spans[:, 1]).clamp_max(max_samples)
    spans[:, 1] = ends.clamp_max(max_samples) - first
    spans[:, 0] = first
    return max_samples


def _counted(n_samples: int) -> int:
    if n_samples > LARGEST:
        raise ValueError(f"march_rays: {n_samples} samples, more than 32-bit indices reach: march fewer rays at once")
    return n_samples


def _empty_samples(n: int, like: Tensor, spans: Tensor) -> Samples:
    """Buffers for n samples: the one place where they are made."""
    return Samples(like.new_empty(n), like.new_empty(n), spans.new_empty(n), spans)


def lattice_of(step_size: float, cone_angle: float, max_step: float) -> list[float]:
    """The numbers that describe T, in the order of the constants in `kernels/ray_marching.py`."""
    if cone_angle == 0:
        return [step_size, 1 / step_size, 0, 0, 0, 0, 0, 0]
    growth = math.log1p(cone_angle)
    bent_index = 1 / growth
    straight_index = bent_index + math.log(max_step / step_size) / growth
    return [step_size, 1 / step_size, growth, step_size / growth, bent_index, max_step / growth, straight_index, max_step]


def _check_options(
    step_size: float,
    cone_angle: float,
    max_step: float,
    resolution: int,
    n_cascades: int,
    contraction: str,
    max_samples_per_ray: int,
    max_samples: int | None,
) -> None:
    # Written so that a NaN is refused, too.
    if not 0 < step_size <= max_step <= LONGEST_STEP:
        raise ValueError(f"march_rays: expected 0 < step_size <= max_step <= 1e10, got {step_size} and {max_step}")
    if not 0 <= cone_angle < 1:
        raise ValueError(f"march_rays: expected 0 <= cone_angle < 1, got {cone_angle}")
    if resolution < 32 or resolution % 32:
        raise ValueError(f"march_rays: resolution has to be a multiple of 32, got {resolution}")
    if not 1 <= n_cascades <= 16 or n_cascades * resolution**3 > LARGEST:
        raise ValueError(f"march_rays: expected 1 to 16 cascades and less than 2^31 cells, got {n_cascades} cascades")
    if contraction not in ("none", "sphere"):
        raise ValueError(f'march_rays: contraction has to be "none" or "sphere", got {contraction!r}')
    if contraction == "sphere" and n_cascades != 1:
        raise ValueError(f"march_rays: contracted space has one grid, got n_cascades={n_cascades}")
    if not 1 <= max_samples_per_ray <= MOST_PER_RAY or not 0 <= (max_samples or 0) <= LARGEST:
        raise ValueError(
            f"march_rays: expected 1 <= max_samples_per_ray <= 2^24 and 0 <= max_samples < 2^31, "
            f"got {max_samples_per_ray} and {max_samples}"
        )
