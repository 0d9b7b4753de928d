"""What a reader finds on disk, before splits, sizes and scale are chosen: the file's own coordinates, nothing decoded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taichi_nerf.cameras import Cameras
from taichi_nerf.scenes.similarity import Similarity

Array = NDArray[Any]
DepthKind = Literal["ray", "z", "inverse"]


class Points(NamedTuple):
    """A sparse reconstruction, with what each image saw of it where the file says so."""

    positions: Array  # [n_points, 3]
    colors: Array  # [n_points, 3] uint8
    seen_by: Array  # [n_observations] image number
    seen: Array  # [n_observations] point number
    seen_at: Array  # [n_observations, 2] pixels, the centre of the first at (0.5, 0.5)
    errors: Array | None = None  # [n_points] mean reprojection error in pixels that the file itself states

    @staticmethod
    def without_tracks(positions: Array, colors: Array | None = None) -> "Points":
        gray = np.full((len(positions), 3), 128, np.uint8)
        none = np.zeros(0, np.int64)
        return Points(positions, gray if colors is None else colors, none, none, np.zeros((0, 2)))


@dataclass(frozen=True)
class DepthFiles:
    """Depth maps, one a view (None where it has none): a value times `unit` is a depth of `kind` in the file's lengths."""

    files: list[Path | None]
    unit: float
    kind: DepthKind
    invalid: float = 0.0  # the value that means "not measured", beside zero and what is not finite, which always do


class Placed(NamedTuple):
    """Where the scene is, as this package decided it before and wrote it down."""

    mapping: Similarity  # from the file's coordinates to scene units
    near: float  # in scene units
    far: float


@dataclass(frozen=True)
class Source:
    """A scene as its files describe it."""

    kind: str  # "blender", "transforms", "llff", …
    folder: Path
    names: list[str]  # [n_views]
    cameras: Cameras
    image_files: list[Path]  # where the pictures are in `arrays`, the archive they come from
    splits: dict[str, Array] = field(default_factory=dict)  # the scene's own; empty if it has none
    mask_files: list[Path | None] | None = None
    mask_turns: list[int] = field(default_factory=list)  # clockwise quarter turns after reading; empty: none
    depth: DepthFiles | None = None
    points: Points | None = None
    times: Array | None = None  # [n_views] in [0, 1]
    weights: Array | None = None  # [n_views] loss weight of a pixel (mip-NeRF's lossmult)
    box: Array | None = None  # [2, 3] where the file itself bounds the scene
    near_far: tuple[float, float] | None = None  # where the file, or its published protocol, says
    placed: Placed | None = None  # goes before all other ways to find out where the scene is
    unbounded: bool = False  # a capture with a surrounding, not an object on nothing
    reach: float | None = None  # instant-ngp's aabb_scale
    ndc_near: float | None = None  # of forward-facing views: the published near plane, from the mean camera in the file's lengths
    forward_facing: bool = False
    linear: bool = False  # colors are linear, not sRGB
    arrays: list[Array] | None = None  # the pictures themselves, [h, w, c] each, where they are no files of their own
    notes: list[str] = field(default_factory=list)  # what was decided, for `scene info`
    warnings: list[str] = field(default_factory=list)


def counted(*lists: tuple[list[str], str]) -> list[str]:
    """A warning of each list that is not empty: how many of its names share the fate that is told, and the first."""
    return [f"{len(names)} {what} (the first is {names[0]})" for names, what in lists if names]
