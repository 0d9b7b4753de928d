"""Settings of training on few views: the geometric terms, and the prior over patches. Weights as published, for 1024 rays."""

from dataclasses import dataclass
from typing import Literal

from taichi_nerf.fields.ranges import AT_LEAST_ONE, AT_LEAST_ZERO, SHARE, check_ranges
from taichi_nerf.settings import added

Compat = Literal["paper", "repo"]
PUBLISHED_RAYS = 1024  # of a step: published weights are of sums over so many


@dataclass(frozen=True)
class GeometrySettings:
    """Of DiffusioNeRF: 1e-3, 1e-5, 1.5e-5 (LLFF) or 1e-4 (DTU), 1e-7. All are off where not asked for (`--geometry`)."""

    opacity: float = 0.0  # light that ends nowhere
    frustum: float = 0.0  # weight where at most one camera looks
    frustum_later: float = 1e-2  # share of it that is left after `frustum_until`
    frustum_until: float = 0.01  # of the training
    distortion: float = 0.0  # relative spread along rays
    distortion_from: float = 0.3  # of the training, when it begins to grow
    distortion_full: float = 0.8  # of the training, when it is all there
    density_decay: float = 0.0  # squares of the density network's weights
    opacity_from: float = added(0.3, before=0.0)  # as the distortion; published: all of it from the start (0, 0)
    opacity_full: float = added(0.8, before=0.0)
    on_patches: bool = False  # frustum and distortion of the prior's patches, too

    def __post_init__(self) -> None:
        weights = dict.fromkeys(("opacity", "frustum", "frustum_later", "distortion", "density_decay"), AT_LEAST_ZERO)
        times = ("frustum_until", "distortion_from", "distortion_full", "opacity_from", "opacity_full")
        check_ranges(self, **weights, **dict.fromkeys(times, SHARE))

    @property
    def is_on(self) -> bool:
        return any((self.opacity, self.frustum, self.distortion, self.density_decay))

    @property
    def without_effect(self) -> dict[str, str]:
        schedules = {
            "opacity": ("opacity_from", "opacity_full"),
            "frustum": ("frustum_later", "frustum_until"),
            "distortion": ("distortion_from", "distortion_full"),
        }
        return {key: f"without geometry.{term}" for term, keys in schedules.items() if not getattr(self, term) for key in keys}


@dataclass(frozen=True)
class PatchPriorSettings:
    """Of the prior over rendered patches."""

    file: str = ""  # of a prior, or builtin; none: no prior
    weight: float = 0.2
    every: int = 1  # steps from patch to patch; each counts as much more
    depth: float = 2e-6
    color: float = 3e-6
    image_share: float = 0.25  # of patches whose colors come from a training image
    tau: float = 0.1  # of the first steps
    tau_until: float = 0.25  # of the training, over which it goes to `tau_last`
    tau_last: float = 0.0
    noise: bool = False  # noise patches to their time, as DreamFusion does, and by the opposite of that noise
    compat: Compat = "paper"

    def __post_init__(self) -> None:
        shares = dict.fromkeys(("image_share", "tau", "tau_until", "tau_last"), SHARE)
        check_ranges(self, weight=AT_LEAST_ZERO, every=AT_LEAST_ONE, depth=AT_LEAST_ZERO, color=AT_LEAST_ZERO, **shares)
