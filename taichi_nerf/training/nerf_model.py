"""`--method nerf`: two networks, of which the first tells where on a ray the second looks (Mildenhall et al. 2020).

C(r) = Σ_i T_i (1 - exp(-σ_i δ_i)) c_i,   T_i = exp(-Σ_j<i σ_j δ_j);   loss = |C_coarse - C|² + |C_fine - C|², means over rays.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf import losses, random_numbers
from taichi_nerf.fields.nerf_field import NerfField
from taichi_nerf.ops import compositing
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.samplers.hierarchical_sampler import coarse_points, fine_points, from_points
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.cast import Cast, cast, distances, to_field
from taichi_nerf.training.dense_model import DenseModel, draws, of_all_rays
from taichi_nerf.training.model import Compared, Shown
from taichi_nerf.training.nerf_config import NerfConfig


class Level(NamedTuple):
    """What one network makes of some rays."""

    rendered: RenderedRays  # color [n, 4]: the last is Σ w distance
    weights: Tensor  # [n, n_samples]
    samples: Samples


class NerfModel(DenseModel):
    config: NerfConfig

    def __init__(self, config: NerfConfig, scene: SceneData, device: torch.device):
        super().__init__(config, scene)
        if config.nerf.ndc and scene.ndc is None:
            raise ValueError(f"{scene.folder}: nerf.ndc=true needs views that face one way and know their nearest depth")
        if config.nerf.disparity and scene.bounds.near <= 0:
            raise ValueError(f"{scene.folder}: nerf.disparity=true needs near to be more than 0; give --near")
        generator = torch.Generator().manual_seed(config.run.seed)
        self.bounds = scene.bounds
        self.frustum = scene.ndc if config.nerf.ndc else None
        self.coarse = NerfField(config.encoding, config.field, generator)
        self.fine = NerfField(config.encoding, config.field, generator) if config.nerf.n_samples_fine else self.coarse
        self.to(device)

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        found = self._cast(shown.rays)
        coarse, fine, n_samples = self._levels(found, shown.background[found.which], generator)
        out = [shown.background.index_copy(0, found.which, level.rendered.color[:, :3]) for level in (coarse, fine) if level]
        loss = sum((losses.photometric("mse", color, shown.truth, shown.weight) for color in out), torch.zeros(()))
        seen = None if self.frustum is not None else self._seen(found, fine or coarse, shown.background)
        return Compared(loss, (out[-1].detach() - shown.truth).square().mean(-1), n_samples, seen)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        found = self._cast(rays)
        coarse, fine, _ = self._levels(found, background[found.which], generator)
        return self._seen(found, fine or coarse, background)

    def _seen(self, found: Cast, level: Level, background: Tensor) -> RenderedBatch:
        depth = level.rendered.color[:, 3]
        return of_all_rays(found, level.rendered, depth, level.samples, background, self.bounds.far)

    @property
    def samples_of_ray(self) -> int:
        return 2 * self.config.nerf.n_samples + self.config.nerf.n_samples_fine

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        return self.fine(to_field(positions, self.frustum)[0], directions)[1]

    def _density(self, positions: Tensor) -> Tensor:
        at, inside = to_field(positions, self.frustum)
        seen_from = self.fine.encode_views(torch.zeros_like(at))
        return torch.where(inside, self.fine.look(at, seen_from)[0], 0.0)

    def _cast(self, rays: Rays) -> Cast:
        return cast(rays, self.bounds, self.box if self.config.nerf.within_box else None, self.frustum)

    def _levels(self, found: Cast, background: Tensor, generator: torch.Generator | None) -> tuple[Level, Level | None, int]:
        """Coarse, fine, and how many samples the two looked at; without a generator: evenly, and without noise."""
        config, n = self.config.nerf, len(found.which)
        t = coarse_points(
            found.t_near, found.t_far, config.n_samples,
            uniforms=draws(n, config.n_samples, generator, background), disparity=config.disparity,
        )  # fmt: skip
        coarse = self._level(self.coarse, found, t, background, generator)
        if not config.n_samples_fine:
            return coarse, None, t.numel()
        uniforms = draws(n, config.n_samples_fine, generator, background)
        both = fine_points(t, coarse.weights, config.n_samples_fine, uniforms=uniforms)
        return coarse, self._level(self.fine, found, both, background, generator), t.numel() + both.numel()

    def _level(
        self, field: NerfField, found: Cast, t: Tensor, background: Tensor, generator: torch.Generator | None
    ) -> Level:  # [n, n_samples]
        n, n_samples = t.shape
        positions = found.origins[:, None] + t[..., None] * found.directions[:, None]
        seen_from = field.encode_views(found.rays.directions).to(field.network.dtype).repeat_interleave(n_samples, 0)
        std = self.config.nerf.noise
        noise = None
        if generator is not None and std:
            noise = std * random_numbers.normal(n * n_samples, generator=generator, device=t.device)
        density, color = field.look(positions.reshape(-1, 3), seen_from, noise)
        # As far in the field's space as light goes there: directions may be of any length.
        samples = from_points(t, None if self.config.nerf.endless else found.t_far)
        length = found.directions.norm(dim=-1).repeat_interleave(n_samples)
        along = distances(t, found, self.frustum, self.bounds.far).reshape(-1, 1)
        rendered = compositing.composite_rays(
            density,
            torch.cat([color, along], -1),
            samples.t_starts * length,
            samples.t_ends * length,
            samples.spans,
            nn.functional.pad(background, (0, 1)),
        )
        return Level(rendered, rendered.weights.detach().view(n, n_samples), samples)

    def _seen_over_black(self, found: Cast) -> tuple[RenderedRays, Tensor]:
        coarse, fine, _ = self._levels(found, torch.zeros_like(found.origins), None)
        out = (fine or coarse).rendered
        return out, out.color[:, 3]
