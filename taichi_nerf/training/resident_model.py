"""`--method ngp` where torch's tensors would be copied at every launch: the same model, its inner loop on the device.

Colors, opacities, depths and the spread of weights come to torch, where all losses are; their gradients go back. Parameters are
brought to torch where somebody asks: for a checkpoint, a mesh, normals.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed

from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rendering import Picture, RenderedBatch, picture_in_parts
from taichi_nerf.resident.adam import ResidentAdam
from taichi_nerf.resident.arrays import RayArrays
from taichi_nerf.resident.field import ResidentField, misfit
from taichi_nerf.resident.grid import ResidentGrid, draw_seed
from taichi_nerf.resident.pipeline import Chance, Pipeline, Seen
from taichi_nerf.runtime import current
from taichi_nerf.scenes import SceneData
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training.config import Config, NgpConfig
from taichi_nerf.training.model import Compared, Shown
from taichi_nerf.training.ngp_model import NgpModel, compared, groups_of

RAYS_AT_ONCE = 2**12  # of a picture
NO_CHANCE = Chance(0, shift=False, look=0.0)


class ResidentNgpModel(NgpModel):
    def __init__(self, config: NgpConfig, scene: SceneData, device: torch.device):
        super().__init__(config, scene, device)
        self.on_device = ResidentField(self.field)
        self.grid = ResidentGrid(self.sampler, self.on_device)
        self.pipeline = Pipeline(self.on_device, self.grid, config.culling, self.rig, config.batch.n_samples)
        self._is_ahead = False  # the device, of torch's parameters

    def optimiser(self) -> ResidentAdam:
        groups, options = groups_of(self.config, self.field)
        return ResidentAdam(groups, self.on_device, **options)

    def gradients_are_finite(self) -> bool:
        return self.on_device.has_finite_gradients()

    def prepare(self, scene: SceneData, views: list[int]) -> None:
        super().prepare(scene, views)
        self.grid.push()

    def before_step(self, n_steps: int, progress: float, generator: torch.Generator) -> None:
        config = self.config.grid
        self._is_ahead, self.progress = True, progress
        if n_steps % config.every == 0:
            self.grid.update(1.0 if n_steps < config.full_until else config.share, generator)

    def rays(self, pixels: Tensor, views: Tensor) -> Any:
        """Made on the device, if nothing in torch needs them."""
        if self.needs_depth or self.tells_samples:
            return super().rays(pixels, views)
        return self.pipeline.rays(pixels, views)

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        seen = self._see(shown.rays, len(shown.views), self._chance(generator), self.config.loss.spread > 0)
        spread = None if seen.spread is None else seen.spread.mean()
        return compared(self.config.loss, self.progress, shown, _batch(seen, shown.background), spread)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        return _batch(self._see(rays, len(rays.origins), self._chance(generator)), background)

    def density_weights(self) -> list[Tensor]:
        """Those on the device: torch's are of the last time that somebody asked for them, and nothing heeds their gradients."""
        return [self.on_device.density.as_they_are()]

    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool = False) -> Picture:
        if with_normals:
            self.pull()
            return super().picture(rays, size, with_normals)
        return picture_in_parts(lambda some: self._see(some, len(some.origins), NO_CHANCE)[:3], rays, size, RAYS_AT_ONCE)

    def density(self, positions: Tensor) -> Tensor:
        self.pull()
        return super().density(positions)

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        self.pull()
        return super().color(positions, directions)

    def pull(self) -> None:
        """Bring torch's parameters up to date."""
        if self._is_ahead:
            self.on_device.pull()
            self.grid.pull()
            self._is_ahead = False

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        self.pull()
        return super().state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        found = super().load_state_dict(*arguments, **options)
        self.on_device.push()
        self.grid.push()
        self._is_ahead = False
        return found

    def _see(self, rays: Any, n: int, chance: Chance, with_spread: bool = False) -> Seen:
        taken = rays if isinstance(rays, RayArrays) else self.pipeline.take(rays)
        with_samples = self.tells_samples and torch.is_grad_enabled()
        return self.pipeline.render(taken, n, chance, with_spread=with_spread, with_samples=with_samples)

    def _chance(self, generator: torch.Generator) -> Chance:
        return Chance(draw_seed(generator), shift=True, look=self.config.culling.chance)


def _batch(seen: Seen, background: Tensor) -> RenderedBatch:
    """Over a background, which so stays with torch."""
    color = seen.color + (1 - seen.opacity)[:, None] * background
    nothing = seen.color.new_zeros(0)
    samples = seen.samples or Samples(nothing, nothing, nothing.int(), nothing.int().view(0, 2))
    weights = nothing if seen.weights is None else seen.weights
    return RenderedBatch(RenderedRays(color, seen.opacity, seen.depth, weights), samples, seen.n_marched)


def is_resident(config: NgpConfig) -> bool:
    """Whether a model of this configuration lives on the device."""
    if config.backend.resident is False:
        return False
    reason = _hindrance(config)
    if config.backend.resident is True and reason is not None:
        raise SettingsError(f"backend.resident=true: {reason}")
    wanted = config.backend.resident is True or (current().copies and not current().is_software)
    return reason is None and wanted


def taken_up(config: Config) -> Config:
    """The settings of a run that exists, for where it is opened: where it was trained does not bind a processor."""
    if isinstance(config, NgpConfig) and config.backend.resident is True and current().arch == "cpu":
        return replace(config, backend=replace(config.backend, resident="auto"))
    return config


def _hindrance(config: NgpConfig) -> str | None:
    if current().arch == "cpu":
        return "on processors torch's memory is the device's"
    if config.sampler.kind != "occupancy":
        return "the device knows the occupancy grid, no other sampler"
    if config.poses.refine or config.poses.intrinsics:
        return "cameras are corrected through torch"
    if config.appearance.enabled:
        return "embeddings of images are torch's"
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return "several processes average gradients in torch"
    return misfit(config.field)
