"""From rays to colors: march, glance, look, composite.

A field is asked twice. The glance tells the density of every sample, without gradients; then only the samples that light
reaches and that have weight are looked at in full, color and gradients included: of eight on a ray, two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf.fields.field import Field
from taichi_nerf.ops import compositing, ray_marching
from taichi_nerf.rays import Rays, RenderedRays, Samples

Sampler = Callable[[Rays, Tensor | None], Samples]
RAYS_AT_ONCE = 2**15
SAMPLES_AT_ONCE = 2**18  # in a picture: about 100 MB


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
) -> RenderedBatch:
    """Render rays over a background. Gradients flow to the field and to the rays."""
    return look(field, rays, sampler(rays, jitter), background, culling, draws=draws, image_ids=image_ids)


def look(
    field: Field,
    rays: Rays,
    marched: Samples,
    background: Tensor | None,
    culling: Culling,
    *,
    draws: torch.Generator | None = None,
    image_ids: Tensor | None = None,
    with_normals: bool = False,
) -> RenderedBatch:
    """Render rays with the samples that are given. `with_normals` adds three channels to the color."""
    n_marched = len(marched.t_starts)
    with torch.no_grad():
        positions = ray_marching.sample_positions(rays.origins.detach(), rays.directions.detach(), *marched)
        density, features = field.glance(positions)
    chances = torch.rand(n_marched, generator=draws).to(density.device) if draws is not None and culling.chance else None
    kept, spans = compositing.visible_samples(
        density, marched.t_starts, marched.t_ends, marched.spans, chances,
        early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
    )  # fmt: skip
    t_starts, t_ends, ray_indices = (x.index_select(0, kept) for x in marched[:3])
    samples = Samples(t_starts, t_ends, ray_indices, spans)
    if rays.origins.requires_grad or rays.directions.requires_grad:
        positions = ray_marching.sample_positions(rays.origins, rays.directions, *samples)
    else:
        positions = positions.index_select(0, kept)
    density, color = field(
        positions,
        rays.directions.index_select(0, ray_indices),
        None if image_ids is None else image_ids.index_select(0, ray_indices),
        None if features is None else features.index_select(0, kept),
    )
    if with_normals:
        color = torch.cat([color, normals_of(field, positions)], -1)
        background = None if background is None else nn.functional.pad(background, (0, 3))
    rendered = compositing.composite_rays(density, color, t_starts, t_ends, spans, background)
    return RenderedBatch(rendered, samples, n_marched)


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
    for some, samples in portions(rays, sampler):
        n = len(some.origins)
        over = some.origins.new_full((n, 3), background)
        ids = None if image_id is None else torch.full((n,), image_id, dtype=torch.int32, device=over.device)
        batch = look(field, some, samples, over, culling, image_ids=ids, with_normals=with_normals)
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


def portions(rays: Rays, sampler: Sampler) -> Iterator[tuple[Rays, Samples]]:
    """Rays with their samples, cut where there would be too many samples at once."""
    for start in range(0, len(rays.origins), RAYS_AT_ONCE):
        some = Rays(*(x[start : start + RAYS_AT_ONCE] for x in rays))
        samples = sampler(some, None)
        n_samples = len(samples.t_starts)
        n_parts = -(-n_samples // SAMPLES_AT_ONCE)
        if n_parts <= 1:
            yield some, samples
            continue
        ends = samples.spans.long().sum(-1)
        cuts = torch.searchsorted(ends, torch.arange(1, n_parts, device=ends.device) * SAMPLES_AT_ONCE, right=True).tolist()
        for first, end in zip([0, *cuts], [*cuts, len(ends)], strict=True):
            if first < end:
                yield Rays(*(x[first:end] for x in some)), _between(samples, first, end)


def _between(samples: Samples, first: int, end: int) -> Samples:
    """The samples of the rays `first` to `end` - 1, as if there were no others."""
    spans = samples.spans[first:end]
    start, stop = int(spans[0, 0]), int(spans[-1].sum())
    shifted = torch.stack([spans[:, 0] - start, spans[:, 1]], -1)
    return Samples(samples.t_starts[start:stop], samples.t_ends[start:stop], samples.ray_indices[start:stop] - first, shifted)
