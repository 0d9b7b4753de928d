"""How a pixelNeRF is trained: `published` as its authors did, `small` for pictures of 64 pixels on a CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from taichi_nerf.fields.image_encoder import EncoderSettings
from taichi_nerf.fields.pixel_aligned_field import PixelAlignedSettings
from taichi_nerf.fields.ranges import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    INTERVALS,
    POSITIVE,
    RATE,
    RAYS,
    SEEDS,
    SHARE,
    SHARE_BELOW_ONE,
    check_ranges,
)
from taichi_nerf.settings import apply_settings, idle_in_sections, refuse_idle


@dataclass(frozen=True)
class SamplingSettings:
    """Where on a ray the networks look."""

    n_coarse: int = 64
    n_importance: int = 16  # drawn where the coarse weights are
    n_depth: int = 16  # drawn around the coarse depth; neither: one look only
    depth_std: float = 0.01
    depth_gradient: bool = False  # of the fine colors to the coarse depth, as the published code lets it flow
    hull: bool = False  # nothing is where some source picture shows nothing: for objects on nothing

    def __post_init__(self) -> None:
        check_ranges(
            self, n_coarse=(2, INTERVALS[1]), n_importance=(0, INTERVALS[1]), n_depth=(0, INTERVALS[1]), depth_std=AT_LEAST_ZERO
        )

    @property
    def n_fine(self) -> int:
        return self.n_importance + self.n_depth

    @property
    def without_effect(self) -> dict[str, str]:
        return {} if self.n_depth else dict.fromkeys(("depth_std", "depth_gradient"), "without sampling.n_depth")


@dataclass(frozen=True)
class ObjectSettings:
    """Which objects."""

    path: str
    prefix: str = ""  # of lists in NMR's form: softras, gen, new
    background: Literal["white", "black"] = "white"
    near: float | None = None  # None: the set's own
    far: float | None = None
    most_views: int | None = None  # of an object, the first so many

    def __post_init__(self) -> None:
        check_ranges(self, near=POSITIVE, far=POSITIVE, most_views=AT_LEAST_ONE)
        if self.near is not None and self.far is not None and self.near >= self.far:
            raise ValueError(f"far: expected more than near, {self.near:g}, got {self.far:g}")


@dataclass(frozen=True)
class ObjectBatchSettings:
    n_objects: int = 4
    n_rays: int = 128  # of an object
    views: tuple[int, ...] = (1,)  # how many source views; by chance where there are several
    box_share: float = 0.25  # of the training, whose rays go through the objects' bounding boxes alone
    color_shuffle: bool = False  # red, green and blue of an object in random order: six objects of one
    color_jitter: float = 0.0  # brightness, contrast and saturation of an object's pictures, times 1 ± this

    def __post_init__(self) -> None:
        check_ranges(self, n_objects=RAYS, n_rays=RAYS, box_share=SHARE, color_jitter=SHARE_BELOW_ONE)
        if min(self.views, default=0) < 1:
            raise ValueError(f"views: expected one or more numbers of at least 1, got {self.views}")


@dataclass(frozen=True)
class CosineSettings:
    learning_rate: float = 1e-4
    final_share: float = 1.0  # of it that is left at the end, down half a cosine; 1: constant, as published
    warm_up: float = 0.0  # share of the training

    def __post_init__(self) -> None:
        check_ranges(self, learning_rate=RATE, final_share=SHARE, warm_up=SHARE_BELOW_ONE)


@dataclass(frozen=True)
class PixelNerfRun:
    preset: str = "published"
    seed: int = 0
    steps: int | None = None
    time_budget: float | None = None  # seconds of training
    save_every: float = 60.0  # seconds between checkpoints
    validate_every: float = 300.0  # seconds between pictures of objects that are not trained on

    def __post_init__(self) -> None:
        check_ranges(
            self, seed=SEEDS, steps=AT_LEAST_ONE, time_budget=POSITIVE, save_every=AT_LEAST_ZERO, validate_every=AT_LEAST_ZERO
        )


@dataclass(frozen=True)
class PixelNerfConfig:
    objects: ObjectSettings
    run: PixelNerfRun = PixelNerfRun()
    encoder: EncoderSettings = EncoderSettings()
    field: PixelAlignedSettings = PixelAlignedSettings()
    sampling: SamplingSettings = SamplingSettings()
    batch: ObjectBatchSettings = ObjectBatchSettings()
    optimiser: CosineSettings = CosineSettings()

    @property
    def without_effect(self) -> dict[str, str]:
        """Settings that others make idle, each with what makes it so."""
        return idle_in_sections(self)


def changed(config: PixelNerfConfig, settings: Sequence[str], idle: Mapping[str, str] = MappingProxyType({})) -> PixelNerfConfig:
    """With each `section.key=value` applied; one that would have no effect, by the others or as `idle` says, is an error."""
    found = apply_settings(config, settings)
    refuse_idle(found, settings, {**idle, **found.without_effect})
    return found


def published(objects: ObjectSettings, run: PixelNerfRun) -> PixelNerfConfig:
    """28 million parameters, four objects of 128 rays, Adam with 1e-4; the coarse network learns by the fine colors, too."""
    return PixelNerfConfig(objects, run, sampling=SamplingSettings(depth_gradient=True))


def small(objects: ObjectSettings, run: PixelNerfRun) -> PixelNerfConfig:
    """What learns fast on a processor: a narrow encoder and network, one look along rays, nothing outside the visual hull."""
    return PixelNerfConfig(
        objects,
        run,
        EncoderSettings("resnet18", 32, n_stages=3),
        PixelAlignedSettings(
            n_hidden=64, places="world_and_view", density="exp", log_density=3.0, has_fine=False, precision="bfloat16"
        ),
        SamplingSettings(n_coarse=32, n_importance=0, n_depth=0, hull=True),
        ObjectBatchSettings(n_objects=8, n_rays=128, views=(1, 2), box_share=0.8, color_shuffle=True),
        CosineSettings(learning_rate=2e-3, final_share=0.01, warm_up=0.01),
    )


PRESETS = {"published": published, "small": small}
