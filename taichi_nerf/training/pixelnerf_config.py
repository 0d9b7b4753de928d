"""How a pixelNeRF is trained: `published` as its authors did, `small` for pictures of 64 pixels on a CPU."""

from dataclasses import dataclass
from typing import Literal

from taichi_nerf.fields.image_encoder import EncoderSettings
from taichi_nerf.fields.pixel_aligned_field import PixelAlignedSettings


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
        if self.n_coarse < 2 or min(self.n_importance, self.n_depth) < 0:
            raise ValueError("n_coarse has to be at least 2, n_importance and n_depth at least 0")

    @property
    def n_fine(self) -> int:
        return self.n_importance + self.n_depth


@dataclass(frozen=True)
class ObjectSettings:
    """Which objects."""

    path: str
    prefix: str = ""  # of lists in NMR's form: softras, gen, new
    background: Literal["white", "black"] = "white"
    near: float | None = None  # None: the set's own
    far: float | None = None
    most_views: int | None = None  # of an object, the first so many


@dataclass(frozen=True)
class ObjectBatchSettings:
    n_objects: int = 4
    n_rays: int = 128  # of an object
    views: tuple[int, ...] = (1,)  # how many source views; by chance where there are several
    box_share: float = 0.25  # of the training, whose rays go through the objects' bounding boxes alone
    color_shuffle: bool = False  # red, green and blue of an object in random order: six objects of one
    color_jitter: float = 0.0  # brightness, contrast and saturation of an object's pictures, times 1 ± this

    def __post_init__(self) -> None:
        if min(self.n_objects, self.n_rays, *self.views, len(self.views)) < 1:
            raise ValueError("n_objects, n_rays and views have to be at least 1")
        if not (0 <= self.box_share <= 1 and 0 <= self.color_jitter < 1):
            raise ValueError("box_share has to be from 0 to 1, and color_jitter from 0 to less than 1")


@dataclass(frozen=True)
class CosineSettings:
    learning_rate: float = 1e-4
    final_share: float = 1.0  # of it that is left at the end, down half a cosine; 1: constant, as published
    warm_up: float = 0.0  # share of the training


@dataclass(frozen=True)
class PixelNerfRun:
    preset: str = "published"
    seed: int = 0
    steps: int | None = None
    time_budget: float | None = None  # seconds of training
    save_every: float = 60.0  # seconds between checkpoints
    validate_every: float = 300.0  # seconds between pictures of objects that are not trained on


@dataclass(frozen=True)
class PixelNerfConfig:
    objects: ObjectSettings
    run: PixelNerfRun = PixelNerfRun()
    encoder: EncoderSettings = EncoderSettings()
    field: PixelAlignedSettings = PixelAlignedSettings()
    sampling: SamplingSettings = SamplingSettings()
    batch: ObjectBatchSettings = ObjectBatchSettings()
    optimiser: CosineSettings = CosineSettings()


def published(objects: ObjectSettings, run: PixelNerfRun) -> PixelNerfConfig:
    """28 million parameters, four objects of 128 rays, Adam with 1e-4."""
    return PixelNerfConfig(objects, run)


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
