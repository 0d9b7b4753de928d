"""From rays to colors: march, glance, look, composite.

A field is asked twice. The glance tells the density of every sample, without gradients; then only the samples that light
reaches and that have weight are looked at in full, color and gradients included: of eight on a ray, two.

How many samples there are is known to the device. Either the host waits for a GPU to tell, five times a rendering, or it guesses
how much room they need (`rooms`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, SupportsInt

import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.fields.field import Field
from taichi_nerf.fields.ranges import SHARE, check_ranges
from taichi_nerf.later import Later
from taichi_nerf.ops import compositing, ray_marching
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rooms import Room, Rooms

# Rays, jitter [n_rays] or None, where they begin [n_rays] or None, whether they end where it is thought to be dark; with `rooms`
# also how many samples there are at most.
Sampler = Callable[..., Samples]
RAYS_AT_ONCE = 2**14  # of a picture: 2^18 samples are about 100 MB


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
    """What one march found worth a full look."""

    samples: Samples  # their rays are numbers among all, their spans of the rays of this march
    positions: Tensor  # [n_samples, 3]
    features: Tensor | None  # [n_samples, n_features]


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
        color = torch.cat([color, normals_of(field, positions)], -1)
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
    """March and glance: first as far as the sampler thinks that light reaches, then on along the rays that still have some.

    That guess leaves out what lies inside of things, four of five samples of a solid object. Where it was wrong, the second
    march mends it, though it takes its first sample's light for full and so leaves out a little less than it might.

    With `rooms`, what is left of the room is of rays without spans: it renders nothing, and gets no gradient.
    """
    n_rays, device = len(rays.origins), rays.origins.device
    room = rooms.room(n_rays) if rooms is not None and n_rays else None
    some, going = Rays(*(x.detach() for x in rays)), torch.arange(n_rays, dtype=torch.int32, device=device)
    begin, n_marched, stages, took = None, 0, [], []
    for until_dark in (True, False):
        most = () if room is None else (room.marched if until_dark else room.later,)
        marched = sampler(some, jitter, begin, until_dark, *most)
        n = len(marched.t_starts)
        positions = ray_marching.sample_positions(some.origins, some.directions, *marched)
        density, features = field.glance(positions)
        chances = None
        if draws is not None and culling.chance:
            chances = random_numbers.uniform(n, generator=draws, device=device)
        kept, spans = compositing.visible_samples(
            density, marched.t_starts, marched.t_ends, marched.spans, chances,
            early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
            room=None if room is None else room.kept if until_dark else room.later_kept,
        )  # fmt: skip
        t_starts, t_ends, own = (x.index_select(0, kept) for x in marched[:3])
        features = None if features is None else features.index_select(0, kept)
        samples = Samples(t_starts, t_ends, going.index_select(0, own), spans)
        stages.append(Stage(samples, positions.index_select(0, kept), features))
        n_marched += n
        took += [_end(marched.spans), _end(spans)] if rooms is not None and n_rays else []
        if until_dark:
            thickness = torch.zeros(n_rays, device=device)
            thickness.index_add_(0, marched.ray_indices, density * (marched.t_ends - marched.t_starts))
            lit = (marched.spans[:, 1] > 0) & (torch.exp(-thickness) >= culling.early_stop)
            going = lit.nonzero()[:, 0].int() if room is None else compositing.packed_indices(lit, room.going).int()
            took += [lit.sum()] if took else []
            if not len(going):
                break
            ends = (marched.spans.index_select(0, going).long().sum(-1) - 1).clamp_min(0)
            begin, some = marched.t_ends[ends], Rays(*(x.index_select(0, going) for x in some))
            if room is not None:  # rays that only fill it begin nowhere
                begin = torch.where(torch.arange(len(going), device=device) < took[-1], begin, math.inf)
            jitter = None if jitter is None else jitter.index_select(0, going)
    if rooms is None or not n_rays:
        return Visible(*_in_order(stages, going), n_marched)
    took += [torch.zeros_like(took[0])] * (len(Room._fields) - len(took))
    numbers = torch.stack(took)
    is_whole = rooms.tell(n_rays, room, numbers)
    seen = _in_order(stages, going, None if room is None else numbers)
    return Visible(*seen, Later(numbers[0] + numbers[3]), is_whole)


def _end(spans: Tensor) -> Tensor:
    """How many samples these spans, one behind the other, have."""
    return spans[-1].sum()


def _in_order(stages: list[Stage], going: Tensor, took: Tensor | None = None) -> Stage:
    """The samples of both stages, ray after ray; the second is of the rays `going`. `took`: of how many, where room is left."""
    if len(stages) == 1:
        return stages[0]
    t_starts, t_ends, ray_indices = (torch.cat([samples[i] for samples, _, _ in stages]) for i in range(3))
    counts, later = (samples.spans[:, 1] for samples, _, _ in stages)
    if took is not None:  # what only fills the room goes to the end
        first, second = (len(samples.t_starts) for samples, _, _ in stages)
        place = torch.arange(first + second, device=took.device)
        fills = torch.where(place < first, place >= took[1], place - first >= took[4])
        ray_indices = ray_indices.masked_fill(fills, len(counts))
    ray_indices, order = torch.sort(ray_indices, stable=True)
    counts = counts.index_add(0, going, later)  # what `bincount` would wait for a GPU to tell
    spans = torch.stack([counts.cumsum(0) - counts, counts], -1).int()
    positions = torch.cat([positions for _, positions, _ in stages]).index_select(0, order)
    features = [features for _, _, features in stages if features is not None]
    samples = Samples(
        t_starts.index_select(0, order), t_ends.index_select(0, order), ray_indices.clamp_max(len(counts) - 1), spans
    )  # fmt: skip
    return Stage(samples, positions, torch.cat(features).index_select(0, order) if features else None)


def normals_of(field: Field, positions: Tensor) -> Tensor:  # [n, 3] → [n, 3] unit length, where density falls
    with torch.inference_mode(False), torch.enable_grad():
        at = positions.detach().clone().requires_grad_()  # what inference mode made cannot have a gradient, its copy can
        density, _ = field(at, torch.zeros_like(at))
        (slope,) = torch.autograd.grad(density.sum(), at)
    return nn.functional.normalize(-slope, dim=-1)


@torch.no_grad()
def render_picture(
    field: Field,
    sampler: Sampler,
    rays: Rays,  # of all pixels, row by row
    size: tuple[int, int],  # width, height
    background: float = 0.0,
    culling: Culling = Culling(),
    *,
    image_id: int | None = None,
    with_normals: bool = False,
) -> Picture:
    """Render all pixels of a picture, as many at once as memory allows."""
    parts = []
    for start in range(0, len(rays.origins), RAYS_AT_ONCE):
        some = Rays(*(x[start : start + RAYS_AT_ONCE] for x in rays))
        n = len(some.origins)
        over = some.origins.new_full((n, 3), background)
        ids = None if image_id is None else torch.full((n,), image_id, dtype=torch.int32, device=over.device)
        batch = render_rays(field, sampler, some, over, culling, image_ids=ids, with_normals=with_normals)
        parts.append(batch.rendered[:3])
    color, opacity, depth = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    width, height = size
    seen = torch.where(opacity > 0.01, depth / opacity.clamp_min(1e-6), 0.0)
    return Picture(
        color[:, :3].clamp(0, 1).view(height, width, 3),
        opacity.view(height, width),
        seen.view(height, width),
        color[:, 3:].view(height, width, 3) if with_normals else None,
    )
