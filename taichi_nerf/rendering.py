"""From rays to colors: march, glance, look, composite.

A field is asked twice. The glance tells the density of every sample, without gradients; then only the samples that light
reaches and that have weight are looked at in full, color and gradients included: of eight on a ray, two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.fields.field import Field
from taichi_nerf.fields.ranges import SHARE, check_ranges
from taichi_nerf.ops import compositing, ray_marching
from taichi_nerf.rays import Rays, RenderedRays, Samples

# Rays, jitter [n_rays] or None, where they begin [n_rays] or None, whether they end where it is thought to be dark.
Sampler = Callable[[Rays, Tensor | None, Tensor | None, bool], Samples]
RAYS_AT_ONCE, SAMPLES_AT_ONCE = 2**14, 2**18  # of a picture: so many samples are about 100 MB


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
    n_marched: int  # all that were glanced at


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
    n_marched: int  # all that were glanced at


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
) -> RenderedBatch:
    """Render rays over a background. Gradients flow to the field and to the rays."""
    seen = find_visible(field, sampler, rays, culling, jitter, draws)
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
    return RenderedBatch(rendered, samples, seen.n_marched)


@torch.no_grad()
def find_visible(
    field: Field,
    sampler: Sampler,
    rays: Rays,
    culling: Culling,
    jitter: Tensor | None,
    draws: torch.Generator | None,
) -> Visible:
    """March and glance: first as far as the sampler thinks that light reaches, then on along the rays that still have some.

    That guess leaves out what lies inside of things, four of five samples of a solid object. Where it was wrong, the second
    march mends it, though it takes its first sample's light for full and so leaves out a little less than it might.
    """
    n_rays, device = len(rays.origins), rays.origins.device
    some, going = Rays(*(x.detach() for x in rays)), torch.arange(n_rays, dtype=torch.int32, device=device)
    begin, n_marched, stages = None, 0, []
    for until_dark in (True, False):
        marched = sampler(some, jitter, begin, until_dark)
        n = len(marched.t_starts)
        positions = ray_marching.sample_positions(some.origins, some.directions, *marched)
        density, features = field.glance(positions)
        chances = None
        if draws is not None and culling.chance:
            chances = random_numbers.uniform(n, generator=draws, device=device)
        kept, spans = compositing.visible_samples(
            density, marched.t_starts, marched.t_ends, marched.spans, chances,
            early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
        )  # fmt: skip
        t_starts, t_ends, own = (x.index_select(0, kept) for x in marched[:3])
        features = None if features is None else features.index_select(0, kept)
        samples = Samples(t_starts, t_ends, going.index_select(0, own), spans)
        stages.append((samples, positions.index_select(0, kept), features))
        n_marched += n
        if until_dark:
            thickness = torch.zeros(n_rays, device=device)
            thickness.index_add_(0, marched.ray_indices, density * (marched.t_ends - marched.t_starts))
            lit = (marched.spans[:, 1] > 0) & (torch.exp(-thickness) >= culling.early_stop)
            going = lit.nonzero()[:, 0].int()
            if not len(going):
                break
            ends = marched.spans.index_select(0, going).long().sum(-1) - 1
            begin, some = marched.t_ends[ends], Rays(*(x.index_select(0, going) for x in some))
            jitter = None if jitter is None else jitter.index_select(0, going)
    return _in_order(stages, going, n_marched)


def _in_order(stages: list[tuple[Samples, Tensor, Tensor | None]], going: Tensor, n_marched: int) -> Visible:
    """The samples of both stages, ray after ray; the second is of the rays `going`."""
    if len(stages) == 1:
        return Visible(*stages[0], n_marched)
    t_starts, t_ends, ray_indices = (torch.cat([samples[i] for samples, _, _ in stages]) for i in range(3))
    ray_indices, order = torch.sort(ray_indices, stable=True)
    counts, later = (samples.spans[:, 1] for samples, _, _ in stages)
    counts = counts.index_add(0, going, later)  # what `bincount` would wait for a GPU to tell
    spans = torch.stack([counts.cumsum(0) - counts, counts], -1).int()
    positions = torch.cat([positions for _, positions, _ in stages]).index_select(0, order)
    features = [features for _, _, features in stages if features is not None]
    samples = Samples(t_starts.index_select(0, order), t_ends.index_select(0, order), ray_indices, spans)
    return Visible(samples, positions, torch.cat(features).index_select(0, order) if features else None, n_marched)


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
    image_id: int | None = None,
    with_normals: bool = False,
) -> Picture:
    """Render all pixels of a picture, as many at once as memory allows."""

    def see(some: Rays) -> tuple[Tensor, Tensor, Tensor]:
        n = len(some.origins)
        over = some.origins.new_full((n, 3), background)
        ids = None if image_id is None else torch.full((n,), image_id, dtype=torch.int32, device=over.device)
        return render_rays(field, sampler, some, over, culling, image_ids=ids, with_normals=with_normals).rendered[:3]

    return picture_in_parts(see, rays, size, RAYS_AT_ONCE)


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
