"""Settings of `--method mipnerf`, and its presets.

| preset | is |
|---|---|
| blender | that of the published code, for single and for multiscale scenes (Barron et al. 2021) |
| small | a smaller network, fewer samples, only within the scene's box: useful after ten minutes on two cores |
"""

from dataclasses import dataclass, replace

import torch

from taichi_nerf.fields.mip_nerf_field import MipNetworkSettings
from taichi_nerf.fields.mlp import best_precision
from taichi_nerf.fields.ranges import AT_LEAST_ZERO, INTERVALS, check_ranges
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import Config, RunSettings, SceneSettings
from taichi_nerf.training.nerf_config import DEFAULT, LogLinearSettings, RayBatchSettings


@dataclass(frozen=True)
class MipNerfSettings:
    n_samples: int = 128  # intervals of each of the two levels
    coarse_weight: float = 0.1  # of the first level's error
    padding: float = 0.01  # that every interval weighs besides, when the second level is drawn
    blur: bool = True  # intervals next to heavy ones count as such then
    cylinder: bool = False  # samples are pieces of cylinders rather than of cones
    within_box: bool = False  # from where rays enter the scene's box to where they leave it, instead of near to far
    noise: float = 0.0  # on raw densities, in training

    def __post_init__(self) -> None:
        check_ranges(self, n_samples=INTERVALS, coarse_weight=AT_LEAST_ZERO, padding=AT_LEAST_ZERO, noise=AT_LEAST_ZERO)


@dataclass(frozen=True)
class MipNerfConfig(Config):
    """Of `--method mipnerf`."""

    batch: RayBatchSettings = RayBatchSettings()
    mipnerf: MipNerfSettings = MipNerfSettings()
    field: MipNetworkSettings = MipNetworkSettings()
    optimiser: LogLinearSettings = LogLinearSettings()


PRESETS = (DEFAULT, "blender", "small")
STEPS = {"blender": 1_000_000, "small": 6_000}


def choose(scene: SceneData, settings: SceneSettings, run: RunSettings, device: torch.device) -> tuple[MipNerfConfig, list[str]]:
    """The configuration, and what was decided."""
    name = run.preset if run.preset != DEFAULT else "small" if device.type == "cpu" else "blender"
    run = run.or_steps(STEPS[name])
    bounded = not scene.bounds.unbounded
    batch = RayBatchSettings(n_rays=4096, background=run.background, masks="alpha" if bounded else "ignore")
    config = MipNerfConfig(settings, replace(run, preset=name), batch)
    if name == "blender":
        rate = LogLinearSettings(5e-4, 5e-6, delay=2500 / 1_000_000, delay_factor=0.01)
        config = replace(config, optimiser=rate)
    else:
        config = replace(
            config,
            batch=replace(batch, n_rays=1024, background="random"),
            mipnerf=MipNerfSettings(n_samples=32, within_box=bounded),
            field=MipNetworkSettings(n_frequencies=10, n_layers=5, n_hidden=128, skip_after=2, n_view_hidden=64),
            optimiser=LogLinearSettings(2e-3, 2e-4),
        )
    config = replace(config, field=replace(config.field, precision=best_precision(device)))
    where = "the scene's box" if config.mipnerf.within_box else "near to far"
    notes = [
        f"preset {name}",
        f"network: {config.field.n_layers} layers of {config.field.n_hidden}, {config.field.precision}; "
        f"{config.batch.n_rays} rays a step",
        f"intervals on a ray: twice {config.mipnerf.n_samples}, {where}",
    ]
    if scene.weights is not None:
        notes.append("pixels weigh as the scene says")
    return config, notes
