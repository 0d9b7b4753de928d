"""`--method mipnerf`: pieces of cones instead of points, and one network for both levels (Barron et al. 2021).

loss = Σ w |C_fine - C|² / Σ w + 0.1 Σ w |C_coarse - C|² / Σ w over the rays of a batch; w is what a pixel stands for.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf import random_numbers
from taichi_nerf.fields.mip_nerf_field import MipNerfField
from taichi_nerf.ops import compositing, importance_sampling, integrated_encoding
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.samplers.hierarchical_sampler import coarse_points, from_edges
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.cast import Cast, cast
from taichi_nerf.training.dense_model import DenseModel, draws, of_all_rays
from taichi_nerf.training.mipnerf_config import MipNerfConfig
from taichi_nerf.training.model import Compared, Shown
from taichi_nerf.training.presets import pixel_footprint


class Level(NamedTuple):
    """What the network makes of the intervals between some edges."""

    edges: Tensor  # [n, n_samples + 1]
    rendered: RenderedRays
    samples: Samples


class MipNerfModel(DenseModel):
    config: MipNerfConfig

    def __init__(self, config: MipNerfConfig, scene: SceneData, device: torch.device):
        super().__init__(config, scene)
        self.bounds, self.footprint = scene.bounds, pixel_footprint(scene)
        self.field = MipNerfField(config.field, torch.Generator().manual_seed(config.run.seed))
        self.to(device)

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        found = self._cast(shown.rays)
        levels = self._levels(found, shown.background[found.which], generator)
        weight = torch.ones_like(shown.truth[:, 0]) if shown.weight is None else shown.weight
        colors = [shown.background.index_copy(0, found.which, level.rendered.color) for level in levels]
        squared = [(color - shown.truth).square().mean(-1) for color in colors]
        coarse, fine = ((weight * errors).sum() / weight.sum().clamp_min(1e-12) for errors in squared)
        loss = fine + self.config.mipnerf.coarse_weight * coarse
        seen = self._seen(found, levels[1], shown.background)
        return Compared(loss, squared[1].detach(), 2 * len(found.which) * self.config.mipnerf.n_samples, seen)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        found = self._cast(rays)
        return self._seen(found, self._levels(found, background[found.which], generator)[1], background)

    def _seen(self, found: Cast, level: Level, background: Tensor) -> RenderedBatch:
        out = level.rendered
        return of_all_rays(found, out, out.depth, level.samples, background, self.bounds.far)

    def _density(self, positions: Tensor) -> Tensor:
        return self._near(positions, torch.zeros_like(positions))[0]

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        return self._near(positions, directions)[1].clamp(0, 1)

    def _near(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density and color of Gaussians of a pixel's width: finer than those of pictures nothing was learnt."""
        variances = torch.full_like(positions, self.footprint**2 / 4)
        return self.field.look(positions, variances, self.field.encode_views(directions))

    @property
    def samples_of_ray(self) -> int:
        return 2 * self.config.mipnerf.n_samples

    def _seen_over_black(self, found: Cast) -> tuple[RenderedRays, Tensor]:
        out = self._levels(found, torch.zeros_like(found.origins), None)[1].rendered
        return out, out.depth

    def _cast(self, rays: Rays) -> Cast:
        return cast(rays, self.bounds, self.box if self.config.mipnerf.within_box else None, None)

    def _levels(self, found: Cast, background: Tensor, generator: torch.Generator | None) -> tuple[Level, Level]:
        """Coarse and fine; without a generator: at even places, and without noise."""
        config, n = self.config.mipnerf, len(found.which)
        uniforms = draws(n, config.n_samples + 1, generator, background)
        coarse = self._level(
            found, coarse_points(found.t_near, found.t_far, config.n_samples + 1, uniforms=uniforms), background, generator
        )
        edges = importance_sampling.importance_sample(
            coarse.edges,
            coarse.rendered.weights.detach().view(n, config.n_samples),
            config.n_samples + 1,
            uniforms=draws(n, config.n_samples + 1, generator, background),
            stratified=generator is not None,
            padding=config.padding,
            blur=config.blur,
        )
        return coarse, self._level(found, edges, background, generator)

    def _level(self, found: Cast, edges: Tensor, background: Tensor, generator: torch.Generator | None) -> Level:
        samples = from_edges(edges)
        shape = "cylinder" if self.config.mipnerf.cylinder else "cone"
        means, variances = integrated_encoding.cast_frustums(
            found.origins, found.directions, found.rays.radii, *samples, shape=shape
        )
        views = self.field.encode_views(found.directions).to(self.field.network.dtype)
        seen_from = views.index_select(0, samples.ray_indices)
        std = self.config.mipnerf.noise
        noise = None
        if generator is not None and std:
            noise = std * random_numbers.normal(len(means), generator=generator, device=means.device)
        density, color = self.field.look(means, variances, seen_from, noise)
        rendered = compositing.composite_rays(density, color, *samples[:2], samples.spans, background)
        return Level(edges, rendered, samples)
