"""The terms of the loss that a configuration asks for."""

import torch

from taichi_nerf.priors.prior import load_prior
from taichi_nerf.scenes import SceneData
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training.config import Config
from taichi_nerf.training.geometry_term import GeometryTerm
from taichi_nerf.training.prior_term import PriorTerm, metres_of
from taichi_nerf.training.terms import Term


def terms_of(config: Config, scene: SceneData, views: list[int], device: torch.device) -> list[Term]:
    terms: list[Term] = []
    geometry = GeometryTerm(config.geometry, scene, views, device) if config.geometry.is_on else None
    if geometry is not None:
        terms.append(geometry)
    if config.prior.file:
        metres, _ = metres_of(scene, config.scene.metric_scale)
        alpha = config.batch.masks == "alpha"
        on_patches = geometry if config.geometry.on_patches else None
        prior = load_prior(config.prior.file)
        terms.append(PriorTerm(config.prior, prior, scene, views, metres, alpha, device, on_patches))
    if terms and getattr(getattr(config, "nerf", None), "ndc", False):
        raise SettingsError(
            "nerf.ndc=true: geometric terms and priors need distances, which these coordinates do not keep; "
            "--set nerf.ndc=false does without them"
        )
    return terms
