"""From rays to colors: march, glance, look, composite.

A field is asked twice. The glance tells the density of every sample, without gradients; then only the samples that light
reaches and that have weight are looked at in full, color and gradients included: of eight on a ray, two.

How many samples there are only the device knows. Either the host waits for a GPU to tell, five times a rendering, or it guesses
how much memory they need (`rooms`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, SupportsInt

import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.fields.field import Field
from taichi_nerf.fields.ranges import SHARE, check_ranges
from taichi_nerf.later import Later
from taichi_nerf.ops import compositing, ray_marching
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rooms import Rooms

# Takes rays, jitter [n_rays] or None, where they begin [n_rays] or None, and whether they end where it is thought to be dark;
# with `rooms` also how many samples there are at most.
Sampler = Callable[..., Samples]
RAYS_AT_ONCE, SAMPLES_AT_ONCE = 2**14, 2**18  # of a picture: so many samples are about 100 MB
MARCHED_AT_ONCE = 2**19  # of a picture, to glance at: more than its rays usually have, but those of a field that is all fog do


@dataclass(frozen=True)
class Culling:
    """Which samples are not worth a full look."""

    early_stop: float = 1e-3  # share of the light that still reaches them
    least_weight: float = 1e-3  # in the picture
    chance: float = 0.1  # that training looks at one of less weight all the same

    def __post_init__(self) -> None:
        check_ranges(self, early_stop=SHARE, least_weight=SHARE, chance=SHARE)


class RenderedBatch(NamedTuple):
    rendered: RenderedRays
    samples: Samples  # those that were looked at in full
    n_marched: SupportsInt  # all that were glanced at
    is_whole: Tensor | None = None  # [] bool: whether all samples had room; None: yes


class Picture(NamedTuple):
    """What a camera sees. Depth is along the ray, of what is seen there (0 where nothing is)."""

    color: Tensor  # [height, width, 3]
    opacity: Tensor  # [height, width]
    depth: Tensor  # [height, width]
    normals: Tensor | None  # [height, width, 3] scaled by opacity


class Visible(NamedTuple):
    """The samples that deserve a full look, ray after ray."""

    samples: Samples
    positions: Tensor  # [n_samples, 3]
    features: Tensor | None  # [n_samples, n_features] of the glance
    n_marched: SupportsInt  # all that were glanced at
    is_whole: Tensor | None = None  # [] bool: whether all had room; None: yes


class Stage(NamedTuple):
    """One march, and what of it is worth a full look."""

    marched: Samples
    density: Tensor  # [n_marched]
    kept: Samples
    positions: Tensor  # [n_kept, 3]
    features: Tensor | None  # [n_kept, n_features]


def render_rays(
    field: Field,
    sampler: Sampler,
    rays: Rays,
    background: Tensor | None,  # [n_rays, 3]; None is black
    culling: Culling = Culling(),
    *,
    jitter: Tensor | None = None,  # [n_rays]
    draws: torch.Generator | None = None,  # of culling's chance; None: no chance
    image_ids: Tensor | None = None,  # [n_rays] int32
    with_normals: bool = False,  # adds three channels to the color
    rooms: Rooms | None = None,  # None: as much as it takes
) -> RenderedBatch:
    """Render rays over a background. Gradients flow to the field and to the rays."""
    seen = find_visible(field, sampler, rays, culling, jitter, draws, rooms)
    samples, positions = seen.samples, seen.positions
    if rays.origins.requires_grad or rays.directions.requires_grad:
        positions = ray_marching.sample_positions(rays.origins, rays.directions, *samples)
    density, color = field(
        positions,
        rays.directions.index_select(0, samples.ray_indices),
        None if image_ids is None else image_ids.index_select(0, samples.ray_indices),
        seen.features,
    )
    if with_normals:
        color = torch.cat([color, normals_of(lambda at: field(at, torch.zeros_like(at))[0], positions)], -1)
        background = None if background is None else nn.functional.pad(background, (0, 3))
    rendered = compositing.composite_rays(density, color, samples.t_starts, samples.t_ends, samples.spans, background)
    return RenderedBatch(rendered, samples, seen.n_marched, seen.is_whole)


@torch.no_grad()
def find_visible(
    field: Field,
    sampler: Sampler,
    rays: Rays,
    culling: Culling,
    jitter: Tensor | None,
    draws: torch.Generator | None,
    rooms: Rooms | None = None,
) -> Visible:
    """March and glance: first as far as the sampler thinks that light reaches, then on along rays that still have light.

    That guess leaves out what lies inside of things, four of five samples of a solid object. Where it was wrong, the second
    march goes on. It begins as if no light had been lost before, and so leaves out a little less than it might.

    With `rooms`, arrays are as long as the room: what is left of it lies behind the samples of all rays, renders nothing, and
    gets no gradient.
    """
    march = partial(_march, field, sampler, culling, draws)
    some, n_rays = Rays(*(x.detach() for x in rays)), len(rays.origins)
    rooms = rooms if n_rays else None
    room = None if rooms is None else rooms.room(n_rays)
    stages = [march(some, jitter, None, True, None if room is None else (room.marched, room.kept))]
    lit = _still_lit(stages[0], culling.early_stop)
    going = lit.nonzero()[:, 0] if room is None else compositing.packed_indices(lit, room.going)
    if len(going):
        spans = stages[0].marched.spans.index_select(0, going).long()
        begin = stages[0].marched.t_ends.index_select(0, (spans.sum(-1) - 1).clamp_min(0))
        if room is not None:  # rays that only fill it begin nowhere
            begin = torch.where(torch.arange(len(going), device=begin.device) < lit.sum(), begin, math.inf)
        some = Rays(*(x.index_select(0, going) for x in some))
        jitter = None if jitter is None else jitter.index_select(0, going)
        later = march(some, jitter, begin, False, None if room is None else (room.later, room.later_kept))
        own = going.int().index_select(0, later.kept.ray_indices)
        stages.append(later._replace(kept=later.kept._replace(ray_indices=own)))
    if rooms is None:
        return Visible(*_in_order(stages, going), sum(len(stage.marched.t_starts) for stage in stages))
    counts = [_total(spans) for stage in stages for spans in (stage.marched.spans, stage.kept.spans)]
    counts += [torch.zeros_like(counts[0])] * (4 - len(counts))
    took = torch.stack([*counts[:2], lit.sum(), *counts[2:]])
    wanted, is_whole = rooms.tell(n_rays, room, took)
    ordered = _in_order(stages, going, None if room is None else took)
    return Visible(*ordered, Later(wanted[0] + wanted[3]), is_whole)


def _march(
    field: Field, sampler: Sampler, culling: Culling, draws: torch.Generator | None,
    rays: Rays, jitter: Tensor | None, begin: Tensor | None, until_dark: bool, room: tuple[int, int] | None,
) -> Stage:  # fmt: skip
    """`room`: for how many samples that are glanced at, and of these for how many that are kept; None: for all."""
    marched = sampler(rays, jitter, begin, until_dark, *() if room is None else room[:1])
    positions = ray_marching.sample_positions(rays.origins, rays.directions, *marched)
    density, features = field.glance(positions)
    chances = None
    if draws is not None and culling.chance:
        chances = random_numbers.uniform(len(density), generator=draws, device=density.device)
    kept, spans = compositing.visible_samples(
        density, marched.t_starts, marched.t_ends, marched.spans, chances,
        early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
        room=None if room is None else room[1],
    )  # fmt: skip
    t_starts, t_ends, ray_indices = (x.index_select(0, kept) for x in marched[:3])
    features = None if features is None else features.index_select(0, kept)
    samples = Samples(t_starts, t_ends, ray_indices, spans)
    return Stage(marched, density, samples, positions.index_select(0, kept), features)


def _still_lit(stage: Stage, early_stop: float) -> Tensor:
    """[n_rays] bool: rays that have samples, at the last of which there is light."""
    marched = stage.marched
    thickness = torch.zeros(len(marched.spans), device=marched.spans.device)
    thickness.index_add_(0, marched.ray_indices, stage.density * (marched.t_ends - marched.t_starts))
    return (marched.spans[:, 1] > 0) & (torch.exp(-thickness) >= early_stop)


def _total(spans: Tensor) -> Tensor:
    """How many samples these spans, one behind the other, have."""
    return spans[-1].sum()


def _in_order(stages: list[Stage], going: Tensor, took: Tensor | None = None) -> tuple[Samples, Tensor, Tensor | None]:
    """What both stages kept, ray after ray, with positions and features; the second is of the rays `going`.

    `took` [5], in the order of `rooms.Room`: how many there are of each, where some only fill the room.
    """
    if len(stages) == 1:
        return stages[0].kept, stages[0].positions, stages[0].features
    first, second = (stage.kept for stage in stages)
    t_starts, t_ends, ray_indices = (torch.cat(parts) for parts in zip(first[:3], second[:3], strict=True))
    n_rays = len(first.spans)
    if took is not None:
        _, kept, _, _, later_kept = took
        place, n_first = torch.arange(len(t_starts), device=took.device), len(first.t_starts)
        fills = torch.where(place < n_first, place >= kept, place - n_first >= later_kept)
        ray_indices = ray_indices.masked_fill(fills, n_rays)  # which goes to the end
    ray_indices, order = torch.sort(ray_indices, stable=True)
    counts = first.spans[:, 1].index_add(0, going, second.spans[:, 1])  # what `bincount` would wait for a GPU to tell
    spans = torch.stack([counts.cumsum(0) - counts, counts], -1).int()
    t_starts, t_ends = t_starts.index_select(0, order), t_ends.index_select(0, order)
    samples = Samples(t_starts, t_ends, ray_indices.clamp_max(n_rays - 1), spans)
    positions = torch.cat([stage.positions for stage in stages]).index_select(0, order)
    features = [stage.features for stage in stages if stage.features is not None]
    return samples, positions, torch.cat(features).index_select(0, order) if features else None


def normals_of(density: Callable[[Tensor], Tensor], positions: Tensor) -> Tensor:  # [n, 3] → [n, 3] unit length
    """Where density falls."""
    with torch.inference_mode(False), torch.enable_grad():
        at = positions.detach().clone().requires_grad_()  # what inference mode made cannot have a gradient, its copy can
        (slope,) = torch.autograd.grad(density(at).sum(), at)
    return nn.functional.normalize(-slope, dim=-1)


def with_normals_at(
    color: Tensor, opacity: Tensor, depth: Tensor, rays: Rays, density: Callable[[Tensor], Tensor]
) -> Tensor:  # [n, 3], [n], Σ w t [n] → [n, 6]
    """Colors, and behind them the normals, scaled by opacity, at the places that rays see."""
    at = rays.origins + (depth / opacity.clamp_min(1e-6))[:, None] * rays.directions
    return torch.cat([color, normals_of(density, at) * opacity[:, None]], -1)


def render_picture(
    field: Field,
    sampler: Sampler,
    rays: Rays,  # of all pixels, row by row
    size: tuple[int, int],  # width, height
    background: float = 0.0,
    culling: Culling = Culling(),
    *,
    with_normals: bool = False,
) -> Picture:
    """Render all pixels of a picture, as many at once as memory allows."""

    def see(some: Rays) -> tuple[Tensor, Tensor, Tensor]:
        pieces = [see_marched(*piece) for piece in _pieces(some, sampler(some, None, None, True), MARCHED_AT_ONCE)]
        color, opacity, depth = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return color, opacity, depth

    def see_marched(some: Rays, marched: Samples) -> tuple[Tensor, Tensor, Tensor]:
        def march(rays: Rays, jitter: Tensor | None, begin: Tensor | None, until_dark: bool) -> Samples:
            return marched if begin is None else sampler(rays, jitter, begin, until_dark)

        over = torch.full_like(some.origins, background)
        return render_rays(field, march, some, over, culling, with_normals=with_normals).rendered[:3]

    return picture_in_parts(see, rays, size, RAYS_AT_ONCE)


def _pieces(rays: Rays, marched: Samples, most: int) -> Iterator[tuple[Rays, Samples]]:
    """Rays with their samples; cut into pieces of about as many samples, which are no more than `most` and a ray's."""
    n_rays, n_samples = len(marched.spans), len(marched.t_starts)
    n_pieces = -(-n_samples // most)
    if n_pieces <= 1:
        yield rays, marched
        return
    ends = marched.spans.sum(-1).cummax(0).values.cpu()  # a ray without samples may say that they begin anywhere
    shares = n_samples * torch.arange(1, n_pieces) // n_pieces
    cuts = sorted({0, n_rays, *torch.searchsorted(ends, shares).tolist()})
    for at, end in pairwise(cuts):
        first, last = int(ends[at - 1]) if at else 0, int(ends[end - 1])
        t_starts, t_ends, ray_indices = (x[first:last] for x in marched[:3])
        begins, counts = marched.spans[at:end].unbind(-1)
        spans = torch.stack([(begins - first).clamp(0, last - first), counts], -1)
        yield Rays(*(x[at:end] for x in rays)), Samples(t_starts, t_ends, ray_indices - at, spans)


@torch.no_grad()
def picture_in_parts(
    see: Callable[[Rays], tuple[Tensor, Tensor, Tensor]], rays: Rays, size: tuple[int, int], n_rays: int
) -> Picture:
    """All pixels of a picture, the rays of `n_rays` of them at a time.

    `see` tells of n rays their colors [n, 3], or [n, 6] with normals scaled by opacity, their opacities [n] and Σ w t [n].
    """
    parts = [see(Rays(*(part[at : at + n_rays] for part in rays))) for at in range(0, len(rays.origins), n_rays)]
    color, opacity, depth = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    width, height = size
    seen = torch.where(opacity > 0.01, depth / opacity.clamp_min(1e-6), 0.0)
    return Picture(
        color[:, :3].clamp(0, 1).view(height, width, 3),
        opacity.view(height, width),
        seen.view(height, width),
        color[:, 3:].view(height, width, 3) if color.shape[1] > 3 else None,
    )
