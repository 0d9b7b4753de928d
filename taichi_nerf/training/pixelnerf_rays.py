"""Rays through a pixel-aligned field: where to look, what is there, and the colors that come of it.

Coarse: one point in each of n equal parts from near to far. Fine: the coarse points, points where their weights are, and points
normally distributed about the coarse depth (Yu et al. 2021, appendix B.1). A point stands for what lies between it and the next,
the last for what lies before far; depth = Σ w z.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.fields.pixel_aligned_field import Encoded, PixelAlignedField
from taichi_nerf.ops import compositing, importance_sampling
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Picture, picture_in_parts
from taichi_nerf.samplers.hierarchical_sampler import from_points
from taichi_nerf.training.pixelnerf_config import SamplingSettings

PADDED_TO = 1024  # rows: each new shape of a matrix costs time
RAYS_AT_ONCE = 2**12  # of a picture


class Level(NamedTuple):
    """What one look makes of rays."""

    color: Tensor  # [n, 3] over the background
    opacity: Tensor  # [n]
    depth: Tensor  # [n] Σ w z
    weights: Tensor  # [n, n_samples]
    n_samples: int  # that the network was asked about


def render_rays(
    field: PixelAlignedField,
    encoded: Encoded,
    rays: Rays,
    near_far: tuple[float, float],
    settings: SamplingSettings,
    background: float,
    generator: torch.Generator | None = None,  # None: in the middle of the parts
) -> list[Level]:
    """Coarse and, where there are any fine samples, fine."""
    n, device = len(rays.origins), rays.origins.device
    near, far = near_far
    edges = torch.linspace(near, far, settings.n_coarse + 1, device=device)
    share = 0.5 if generator is None else random_numbers.uniform(n, settings.n_coarse, generator=generator, device=device)
    t = edges[:-1] + share * (edges[1:] - edges[:-1])
    t = t.expand(n, -1).contiguous()
    coarse = look(field, encoded, rays, t, far, settings, background, False)
    if not settings.n_fine:
        return [coarse]
    drawn = [t]
    if settings.n_importance:
        uniforms = (
            None if generator is None else random_numbers.uniform(n, settings.n_importance, generator=generator, device=device)
        )
        weights = coarse.weights.detach()
        bins = edges.expand(n, -1).contiguous()
        drawn.append(importance_sampling.importance_sample(bins, weights, settings.n_importance, uniforms=uniforms))
    if settings.n_depth:
        drawn.append(_around(coarse.depth, near_far, settings, generator))
    both = torch.cat(drawn, -1).sort(-1).values
    return [coarse, look(field, encoded, rays, both, far, settings, background, True)]


def look(
    field: PixelAlignedField,
    encoded: Encoded,
    rays: Rays,
    t: Tensor,  # [n, n_samples] ascending
    far: float,
    settings: SamplingSettings,
    background: float,
    fine: bool,
) -> Level:
    n, n_samples = t.shape
    positions = (rays.origins[:, None] + t[..., None] * rays.directions[:, None]).reshape(-1, 3)
    asked = torch.arange(n * n_samples, device=t.device)
    if settings.hull and encoded.sources.filled is not None:
        asked = field.may_be_filled(encoded.sources, positions.detach()).nonzero()[:, 0]
    density, color = _ask(field, encoded, positions, rays.directions, asked, n_samples, fine)
    samples = from_points(t, t.new_full((n,), far))
    over = torch.full((n, 4), background, device=t.device)
    over[:, 3] = 0
    rendered = compositing.composite_rays(
        density, torch.cat([color, t.reshape(-1, 1)], -1), samples.t_starts, samples.t_ends, samples.spans, over
    )
    depth, weights = rendered.color[:, 3], rendered.weights.view(n, n_samples)
    return Level(rendered.color[:, :3], rendered.opacity, depth, weights, len(asked))


def _ask(
    field: PixelAlignedField, encoded: Encoded, positions: Tensor, directions: Tensor, asked: Tensor, n_samples: int, fine: bool
) -> tuple[Tensor, Tensor]:
    """Density and color of all positions; nothing is where nothing was asked."""
    n, m = len(positions), len(asked)
    ask = field if torch.is_grad_enabled() else field.look
    if m == n:
        return ask(encoded, positions, directions.repeat_interleave(n_samples, 0), fine)
    density, color = positions.new_zeros(n), positions.new_zeros(n, 3)
    if not m:
        return density, color
    padded = nn.functional.pad(asked, (0, -m % PADDED_TO))  # what is asked about the first position again is not looked at
    found = ask(encoded, positions[padded], directions[padded // n_samples], fine)
    return density.index_copy(0, asked, found[0][:m]), color.index_copy(0, asked, found[1][:m])


def _around(
    depth: Tensor, near_far: tuple[float, float], settings: SamplingSettings, generator: torch.Generator | None
) -> Tensor:
    """[n, n_depth] about the depths [n]; without a generator at the quantiles of the distribution."""
    n = settings.n_depth
    if generator is None:
        quantiles = (torch.arange(n, device=depth.device) + 0.5) / n
        noise = torch.special.ndtri(quantiles).expand(len(depth), n)
    else:
        noise = random_numbers.normal(len(depth), n, generator=generator, device=depth.device)
    middle = depth if settings.depth_gradient else depth.detach()
    return (middle[:, None] + settings.depth_std * noise).clamp(*near_far)


def render_picture(
    field: PixelAlignedField,
    encoded: Encoded,
    rays: Rays,  # of all pixels, row by row
    size: tuple[int, int],  # width, height
    near_far: tuple[float, float],
    settings: SamplingSettings,
    background: float,
    generator: torch.Generator | None = None,
) -> Picture:
    """All pixels, over the background."""

    def see(some: Rays) -> tuple[Tensor, Tensor, Tensor]:
        return render_rays(field, encoded, some, near_far, settings, background, generator)[-1][:3]

    return picture_in_parts(see, rays, size, RAYS_AT_ONCE)
