"""From rays to colors: march, glance, look, composite.

A field is asked twice. The glance tells the density of every sample, without gradients; then only the samples that light
reaches and that have weight are looked at in full, color and gradients included: of eight on a ray, two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf.fields.field import Field
from taichi_nerf.ops import compositing, ray_marching
from taichi_nerf.rays import Rays, RenderedRays, Samples

# Rays, jitter [n_rays], where they begin [n_rays], how many samples each has at most; all but the first may be None.
Sampler = Callable[[Rays, Tensor | None, Tensor | None, int | None], Samples]
# Of a picture: 2^18 samples are about 100 MB. Few samples a stage look at little behind a surface, many cost fewer calls.
RAYS_AT_ONCE, SAMPLES_OF_STAGE = 2**14, 16


@dataclass(frozen=True)
class Culling:
    """Which samples are not worth a full look."""

    early_stop: float = 1e-3  # share of the light that still reaches them
    least_weight: float = 1e-3  # in the picture
    chance: float = 0.1  # that training looks at one of less weight all the same


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
    samples_of_stage: int | None = None,  # of a ray, at first; None: all at once
) -> RenderedBatch:
    """Render rays over a background. Gradients flow to the field and to the rays."""
    seen = find_visible(field, sampler, rays, culling, jitter, draws, samples_of_stage)
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
    return RenderedBatch(rendered, samples, seen.n_marched)


@torch.no_grad()
def find_visible(
    field: Field,
    sampler: Sampler,
    rays: Rays,
    culling: Culling,
    jitter: Tensor | None,
    draws: torch.Generator | None,
    samples_of_stage: int | None,
) -> Visible:
    """March and glance, at all samples or in stages, at a few of each ray: those that met something opaque go no further.

    A later stage takes its first sample's light for full, so it leaves out a little less than it might. Stages halve the time
    of a picture; a step of training, which has fewer rays and more calls, they make no shorter.
    """
    n_rays, device = len(rays.origins), rays.origins.device
    some = Rays(*(x.detach() for x in rays))
    going, light, begin = torch.arange(n_rays, dtype=torch.int32, device=device), torch.ones(n_rays, device=device), None
    most, n_marched, stages = samples_of_stage, 0, []
    while True:
        marched = sampler(some, jitter, begin, most)
        n = len(marched.t_starts)
        positions = ray_marching.sample_positions(some.origins, some.directions, *marched)
        density, features = field.glance(positions)
        chances = torch.rand(n, generator=draws).to(device) if draws is not None and culling.chance else None
        kept, spans = compositing.visible_samples(
            density, marched.t_starts, marched.t_ends, marched.spans, chances,
            early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
        )  # fmt: skip
        t_starts, t_ends, own = (x.index_select(0, kept) for x in marched[:3])
        ray_indices = going.index_select(0, own)
        features = None if features is None else features.index_select(0, kept)
        stages.append((Samples(t_starts, t_ends, ray_indices, spans), positions.index_select(0, kept), features))
        n_marched += n
        if most is None:
            return _in_order(stages, n_rays, n_marched)
        full = marched.spans[:, 1] == most
        thickness = torch.zeros_like(light).index_add_(0, marched.ray_indices, density * (marched.t_ends - marched.t_starts))
        light = light * torch.exp(-thickness)
        goes_on = (full & (light >= culling.early_stop)).nonzero()[:, 0]
        if not len(goes_on):
            return _in_order(stages, n_rays, n_marched)
        ends = marched.spans.index_select(0, goes_on).long().sum(-1) - 1
        begin, light, going = marched.t_ends[ends], light[goes_on], going[goes_on]
        some, jitter = Rays(*(x[goes_on] for x in some)), None if jitter is None else jitter[goes_on]
        most *= 2


def _in_order(stages: list[tuple[Samples, Tensor, Tensor | None]], n_rays: int, n_marched: int) -> Visible:
    """The samples of all stages, ray after ray."""
    if len(stages) == 1:
        return Visible(*stages[0], n_marched)
    t_starts, t_ends, ray_indices = (torch.cat([samples[i] for samples, _, _ in stages]) for i in range(3))
    ray_indices, order = torch.sort(ray_indices, stable=True)
    counts = torch.bincount(ray_indices, minlength=n_rays)
    spans = torch.stack([counts.cumsum(0) - counts, counts], -1).int()
    positions = torch.cat([positions for _, positions, _ in stages])[order]
    features = [features for _, _, features in stages if features is not None]
    samples = Samples(t_starts[order], t_ends[order], ray_indices, spans)
    return Visible(samples, positions, torch.cat(features)[order] if features else None, n_marched)


def normals_of(field: Field, positions: Tensor) -> Tensor:  # [n, 3] → [n, 3] unit length, where density falls
    with torch.enable_grad():
        at = positions.detach().requires_grad_()
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
        batch = render_rays(
            field, sampler, some, over, culling, image_ids=ids, with_normals=with_normals, samples_of_stage=SAMPLES_OF_STAGE
        )
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
