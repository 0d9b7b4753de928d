"""The methods, in one place: the settings, the presets and the model of each.

config, notes = methods.choose(scene, scene_settings, run_settings, device)
model = methods.make_model(config, scene, device)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from taichi_nerf.scenes import SceneData
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.settings import apply_settings, refuse_idle
from taichi_nerf.training import mipnerf360_config, mipnerf_config, nerf_config, presets
from taichi_nerf.training.config import Config, NgpConfig, RunSettings, SceneSettings
from taichi_nerf.training.mipnerf360_model import MipNerf360Model
from taichi_nerf.training.mipnerf_model import MipNerfModel
from taichi_nerf.training.model import Model
from taichi_nerf.training.nerf_model import NerfModel
from taichi_nerf.training.ngp_model import NgpModel
from taichi_nerf.training.ngp_proposal_model import NgpProposalModel
from taichi_nerf.training.resident_model import ResidentNgpModel, is_resident


class Method(NamedTuple):
    config: type[Config]
    presets: tuple[str, ...]
    choose: Callable[[SceneData, SceneSettings, RunSettings, torch.device], tuple[Config, list[str]]]
    model: Callable[[Any, SceneData, torch.device], Model]


def _ngp_model(config: NgpConfig, scene: SceneData, device: torch.device) -> Model:
    if config.sampler.kind == "proposal":
        return NgpProposalModel(config, scene, device)
    return (ResidentNgpModel if is_resident(config) else NgpModel)(config, scene, device)


METHODS = {
    "ngp": Method(NgpConfig, tuple(presets.STEPS), presets.choose, _ngp_model),
    "nerf": Method(nerf_config.NerfConfig, nerf_config.PRESETS, nerf_config.choose, NerfModel),
    "mipnerf": Method(mipnerf_config.MipNerfConfig, mipnerf_config.PRESETS, mipnerf_config.choose, MipNerfModel),
    "mipnerf360": Method(
        mipnerf360_config.MipNerf360Config, mipnerf360_config.PRESETS, mipnerf360_config.choose, MipNerf360Model
    ),
}


def choose(scene: SceneData, settings: SceneSettings, run: RunSettings, device: torch.device | str) -> tuple[Config, list[str]]:
    """The configuration of a run's method and preset for this scene, and what was decided."""
    return checked(run).choose(scene, settings, run, torch.device(device))


def checked(run: RunSettings) -> Method:
    """The run's method, if it has the run's preset."""
    method = METHODS.get(run.method)
    if method is None:
        raise SettingsError(f"--method {run.method}: there is no such method. There are {', '.join(METHODS)}")
    if run.preset not in method.presets:
        valid = "; ".join(f"{name}: {', '.join(other.presets)}" for name, other in METHODS.items())
        raise SettingsError(f"--preset {run.preset}: method {run.method} has no such preset. There are {valid}")
    return method


def changed(config: Config, settings: Sequence[str], scene: SceneData | None = None) -> Config:
    """With each `section.key=value` applied; one that would have no effect, on this scene if one is given, is an error."""
    found = apply_settings(config, settings)
    if isinstance(config, NgpConfig) and _turns_to_proposals(config, found):
        found = apply_settings(presets.under_proposals(config), settings)  # what suits them comes first, as a preset does
    refuse_idle(found, settings, {} if scene is None else _idle_in(scene, found))
    return found


def _idle_in(scene: SceneData, config: Config) -> dict[str, str]:
    """What has nothing to work on in a scene, if it is asked for."""
    lacks = {
        "batch.masks": config.batch.masks == "alpha" and scene.masks is None and "without masks",
        "loss.depth": isinstance(config, NgpConfig) and config.loss.depth and scene.depths is None and "without depth maps",
        "proposal.even_until": not scene.bounds.unbounded and "with nothing behind its box",
    }
    return {key: f"in a scene {what}" for key, what in lacks.items() if what}


def _turns_to_proposals(config: NgpConfig, found: Config) -> bool:
    return isinstance(found, NgpConfig) and config.sampler.kind == "occupancy" and found.sampler.kind == "proposal"


def config_class(settings: Any, source: str = "config.json") -> type[Config]:
    """Of settings as a run's config.json has them; `source` names the file."""
    try:
        method = settings["run"]["method"]
    except (KeyError, TypeError):
        raise SettingsError(f"{source}: missing: run.method") from None
    if not isinstance(method, str) or method not in METHODS:
        raise SettingsError(f"{source}: run.method: expected one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method].config


def make_model(config: Config, scene: SceneData, device: torch.device) -> Model:
    return METHODS[config.run.method].model(config, scene, device)
