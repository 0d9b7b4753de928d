"""What `--geometry` and `--prior` make of a configuration."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from taichi_nerf.priors.prior import BUILTIN, PUBLISHED_SIZE, load_prior
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import Config, NgpConfig
from taichi_nerf.training.few_view_config import GeometrySettings, PatchPriorSettings
from taichi_nerf.training.prior_term import metres_of

AnyConfig = TypeVar("AnyConfig", bound=Config)


def with_few_views(config: AnyConfig, scene: SceneData, geometry: bool | None, prior: str | None) -> tuple[AnyConfig, list[str]]:
    """Geometric terms (of their own accord where a prior is given), the prior, and what was decided."""
    notes: list[str] = []
    if geometry or (geometry is None and prior):
        settings = published_geometry(scene.is_object)
        if settings.frustum and scene.cameras[scene.splits["train"]].covering_pinholes() is None:
            settings = replace(settings, frustum=0.0)
            notes.append("no frusta: the cameras look all around, or in parallel")
        config = replace(config, geometry=settings)
        if isinstance(config, NgpConfig):  # the other form of the same distortion
            config = replace(config, loss=replace(config.loss, spread=0.0))
        notes.append(
            f"geometric terms: opacity {settings.opacity:g}, frusta {settings.frustum:g}, distortion {settings.distortion:g}"
        )
    if prior:
        file = prior if prior == BUILTIN else str(Path(prior).resolve())
        found = load_prior(file)
        # Frusta and distortion of patches, too: what no training camera sees is where the prior would have its way.
        geometric = replace(config.geometry, on_patches=config.geometry.is_on)
        config = replace(config, geometry=geometric, prior=patches_of(file, found.settings.size))
        metres, why = metres_of(scene, config.scene.metric_scale)
        notes.append(
            f"prior {prior}: {found.settings.size} x {found.settings.size} {found.settings.variant}, a patch every "
            f"{config.prior.every} steps; a scene unit is {metres:.4g} m ({why})"
        )
    return config, notes


def published_geometry(is_object: bool) -> GeometrySettings:
    """DiffusioNeRF's weights: of LLFF's scenes, or of DTU's objects (no frusta there, and more distortion)."""
    return GeometrySettings(
        opacity=1e-3, frustum=0.0 if is_object else 1e-5, distortion=1e-4 if is_object else 1.5e-5, density_decay=1e-7
    )


def patches_of(file: str, size: int) -> PatchPriorSettings:
    """DiffusioNeRF's settings for priors of its size.

    Small priors are for small machines: there every second step has a patch, which counts twice. They do not know what to make of
    patches without the noise that they were trained with, and say most of what is right at noise levels that are so high that the
    score is small, wherefore it counts more. Their patches are about as wide as the pictures: what lies where in a room is told
    by the colors, best by those of photographs.
    """
    if size >= PUBLISHED_SIZE:
        return PatchPriorSettings(file)
    weighted = PatchPriorSettings(file, every=2, depth=4e-5, color=1.2e-5, image_share=0.4)
    return replace(weighted, tau=0.4, tau_last=0.2, tau_until=1.0, noise=True)
