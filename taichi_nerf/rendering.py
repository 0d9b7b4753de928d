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
    return look(field, rays, sampler(rays, jitter, None, None), background, culling, draws=draws, image_ids=image_ids)


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
    for start in range(0, len(rays.origins), RAYS_AT_ONCE):
        some = Rays(*(x[start : start + RAYS_AT_ONCE] for x in rays))
        parts.append(_in_stages(field, sampler, some, culling, image_id, with_normals))
    color, opacity, depth = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    color[:, :3] += (1 - opacity)[:, None] * background
    width, height = size
    seen = torch.where(opacity > 0.01, depth / opacity.clamp_min(1e-6), 0.0)
    return Picture(
        color[:, :3].clamp(0, 1).view(height, width, 3),
        opacity.view(height, width),
        seen.view(height, width),
        color[:, 3:].view(height, width, 3) if with_normals else None,
    )


def _in_stages(
    field: Field, sampler: Sampler, rays: Rays, culling: Culling, image_id: int | None, with_normals: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Color over black, opacity and depth of rays, a few samples at a time: those that met something opaque go no further."""
    n, device = len(rays.origins), rays.origins.device
    color = torch.zeros(n, 6 if with_normals else 3, device=device)
    opacity, depth = torch.zeros(n, device=device), torch.zeros(n, device=device)
    going, begin = torch.arange(n, device=device), None
    while len(going):
        some = Rays(*(x[going] for x in rays))
        samples = sampler(some, None, begin, SAMPLES_OF_STAGE)
        ids = None if image_id is None else torch.full((len(going),), image_id, dtype=torch.int32, device=device)
        stage = look(field, some, samples, None, culling, image_ids=ids, with_normals=with_normals).rendered
        light = 1 - opacity[going]
        color[going] += light[:, None] * stage.color
        opacity[going] += light * stage.opacity
        depth[going] += light * stage.depth
        goes_on = (samples.spans[:, 1] == SAMPLES_OF_STAGE) & (opacity[going] <= 1 - culling.early_stop)
        begin = samples.t_ends[samples.spans.long().sum(-1)[goes_on] - 1]
        going = going[goes_on]
    return color, opacity, depth
