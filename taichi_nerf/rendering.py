"""From rays to colors: march, glance, look, composite.

A field is asked twice. The glance tells the density of every sample, without gradients; then only the samples that light
reaches and that have weight are looked at in full, color and gradients included: of ten on a ray, two or three.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.fields.field import Field
from taichi_nerf.ops import compositing, ray_marching
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler


@dataclass(frozen=True)
class Culling:
    """Which samples are not worth a full look."""

    early_stop: float = 1e-4  # share of the light that still reaches them
    least_weight: float = 1e-4  # in the picture
    chance: float = 0.0  # that one of less weight is looked at all the same


class RenderedBatch(NamedTuple):
    rendered: RenderedRays
    samples: Samples  # those that were looked at in full
    n_marched: int  # all that were glanced at


def render_rays(
    field: Field,
    sampler: OccupancyGridSampler,
    rays: Rays,
    background: Tensor | None,  # [n_rays, 3]; None is black
    culling: Culling = Culling(),  # noqa: B008
    *,
    jitter: Tensor | None = None,  # [n_rays]
    draws: torch.Generator | None = None,  # of chance
    image_ids: Tensor | None = None,  # [n_rays] int32
) -> RenderedBatch:
    """Render rays over a background. Gradients flow to the field and to the rays."""
    marched = sampler(rays, jitter)
    n_marched = len(marched.t_starts)
    with torch.no_grad():
        positions = ray_marching.sample_positions(rays.origins.detach(), rays.directions.detach(), *marched)
    density, features = field.glance(positions)
    chances = torch.rand(n_marched, generator=draws).to(density.device) if draws is not None and culling.chance else None
    kept, spans = compositing.visible_samples(
        density, marched.t_starts, marched.t_ends, marched.spans, chances,
        early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
    )  # fmt: skip
    samples = Samples(*(x.index_select(0, kept) for x in marched[:3]), spans)
    if rays.origins.requires_grad or rays.directions.requires_grad:
        positions = ray_marching.sample_positions(rays.origins, rays.directions, *samples)
    else:
        positions = positions.index_select(0, kept)
    density, color = field(
        positions,
        rays.directions.index_select(0, samples.ray_indices),
        None if image_ids is None else image_ids.index_select(0, samples.ray_indices),
        None if features is None else features.index_select(0, kept),
    )
    rendered = compositing.composite_rays(density, color, samples.t_starts, samples.t_ends, spans, background)
    return RenderedBatch(rendered, samples, n_marched)
