"""Settings of `--method nerf`, and its presets: the published ones, and one for a processor.

| preset | is |
|---|---|
| blender, llff, deepvoxels | those of the published code (Mildenhall et al. 2020) |
| jaxnerf | that of JaxNeRF (Deng et al. 2020): of objects one view a step, a longer training whose rate falls further |
| small | a network of a fifth of the size, fewer samples, only within the scene's box: useful after ten minutes on two cores |

Near and far are the scene's, which are 2 and 6 where the published protocol holds.
"""

from dataclasses import dataclass, replace

import torch

from taichi_nerf.choices import Background
from taichi_nerf.fields.mlp import best_precision
from taichi_nerf.fields.nerf_field import EncodingSettings, NetworkSettings
from taichi_nerf.fields.ranges import AT_LEAST_ZERO, INTERVALS, RATE_ABOVE_ZERO, RAYS, SHARE, SHARE_BELOW_ONE, check_ranges
from taichi_nerf.scenes import SceneData
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training.config import Config, PixelSettings, RunSettings, SceneSettings

DEFAULT = "default"  # small without a GPU; with one, llff or blender, as the scene is


@dataclass(frozen=True)
class RayBatchSettings(PixelSettings):
    n_rays: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, n_rays=RAYS)


@dataclass(frozen=True)
class LogLinearSettings:
    """Adam, its rate on a straight line between two logarithms."""

    first_rate: float = 5e-4
    final_rate: float = 5e-5
    delay: float = 0.0  # share of the training in which the rate is held back
    delay_factor: float = 1.0  # to this share of it, at first
    beta2: float = 0.999
    epsilon: float = 1e-7
    largest_gradient: float = 0.0  # norm of all parameters' together; longer ones are shortened to it; 0: none are

    def __post_init__(self) -> None:
        check_ranges(
            self, first_rate=RATE_ABOVE_ZERO, final_rate=RATE_ABOVE_ZERO, delay=SHARE, delay_factor=SHARE, beta2=SHARE_BELOW_ONE,
            epsilon=AT_LEAST_ZERO, largest_gradient=AT_LEAST_ZERO,
        )  # fmt: skip

    @property
    def without_effect(self) -> dict[str, str]:
        idle = {} if self.delay else {"delay_factor": "without optimiser.delay"}
        return idle if self.delay_factor < 1 else idle | {"delay": "without an optimiser.delay_factor below 1"}


@dataclass(frozen=True)
class NerfSettings:
    n_samples: int = 64
    n_samples_fine: int = 128  # 0: there is no second network
    disparity: bool = False  # even steps of 1 / t rather than of t
    ndc: bool = False  # in normalised device coordinates, where the views face one way
    within_box: bool = False  # from where rays enter the scene's box to where they leave it, instead of near to far
    endless: bool = True  # the last sample of a ray stands for all behind it
    noise: float = 0.0  # on raw densities, in training

    def __post_init__(self) -> None:
        check_ranges(self, n_samples=(3, INTERVALS[1]), n_samples_fine=(0, INTERVALS[1]), noise=AT_LEAST_ZERO)
        if self.ndc and (self.disparity or self.within_box):
            raise ValueError("ndc are even in 1 / t already and have no box: not with disparity or within_box")


@dataclass(frozen=True)
class NerfConfig(Config):
    """Of `--method nerf`."""

    batch: RayBatchSettings = RayBatchSettings()
    nerf: NerfSettings = NerfSettings()
    encoding: EncodingSettings = EncodingSettings()
    field: NetworkSettings = NetworkSettings()
    optimiser: LogLinearSettings = LogLinearSettings()


PRESETS = (DEFAULT, "blender", "llff", "deepvoxels", "jaxnerf", "small")
STEPS = {"blender": 500_000, "llff": 200_000, "deepvoxels": 200_000, "jaxnerf": 1_000_000, "small": 6_000}


def choose(scene: SceneData, settings: SceneSettings, run: RunSettings, device: torch.device) -> tuple[NerfConfig, list[str]]:
    """The configuration, and what was decided."""
    name = run.preset
    if name == DEFAULT:
        published = "llff" if scene.bounds.forward_facing else "blender"
        name = "small" if device.type == "cpu" else published
    run = run.or_steps(STEPS[name])
    config = replace(preset(name, scene, run.background), scene=settings, run=replace(run, preset=name))
    config = replace(config, field=replace(config.field, precision=best_precision(device)))
    nerf, field = config.nerf, config.field
    where = "normalised device coordinates" if nerf.ndc else "the scene's box" if nerf.within_box else "near to far"
    return config, [
        f"preset {name}",
        f"networks: {field.n_layers} layers of {field.n_hidden}, {field.precision}; {config.batch.n_rays} rays a step",
        f"samples on a ray: {nerf.n_samples} + {nerf.n_samples_fine}, {where}",
    ]


def preset(name: str, scene: SceneData, shown_on: Background) -> NerfConfig:
    """The settings of a preset for a scene; scene and run are to be filled in.

    `shown_on`: what pictures will be shown on, over which the published ones train, too: where they learnt to let light through,
    any other color would show.
    """
    config = NerfConfig(SceneSettings(""))
    bounded = not scene.bounds.unbounded
    batch = RayBatchSettings(background=shown_on, masks="alpha" if bounded else "ignore")
    rate = LogLinearSettings()
    if name == "blender":
        return replace(config, batch=replace(batch, one_view=True, crop_steps=500))
    if name == "llff":
        nerf = NerfSettings(ndc=scene.ndc is not None, noise=1.0)
        rate = replace(rate, final_rate=5e-4 * 0.1 ** (200 / 250))
        return replace(config, batch=replace(batch, n_rays=4096), nerf=nerf, optimiser=rate)
    if name == "deepvoxels":
        rate = replace(rate, final_rate=5e-4 * 0.1 ** (200 / 250))
        return replace(config, batch=replace(batch, n_rays=4096, one_view=True), optimiser=rate)
    if name == "jaxnerf":
        encoding = EncodingSettings(order="per_function")
        nerf = NerfSettings(ndc=scene.ndc is not None, noise=float(scene.ndc is not None))
        batch = replace(batch, one_view=scene.ndc is None)
        return replace(config, batch=batch, nerf=nerf, encoding=encoding, optimiser=replace(rate, final_rate=5e-6))
    if name != "small":
        raise SettingsError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
    ndc = scene.ndc is not None
    return replace(
        config,
        batch=replace(batch, background="random" if bounded else shown_on),  # endless fields are opaque: no other color fits
        nerf=NerfSettings(32, 32, ndc=ndc, disparity=not bounded and not ndc, within_box=bounded, endless=not bounded),
        encoding=EncodingSettings(n_frequencies=8),
        field=NetworkSettings(n_layers=5, n_hidden=128, skip_after=2, n_view_hidden=64, density="softplus"),
        optimiser=LogLinearSettings(first_rate=2e-3, final_rate=2e-4),
    )
