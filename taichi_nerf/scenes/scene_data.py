"""A scene, ready to train on: cameras in scene units, pictures read when needed, splits, bounds, and what was decided."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from taichi_nerf.cameras import Cameras
from taichi_nerf.scenes.images import Array, Images
from taichi_nerf.scenes.source import DepthKind, Points


@dataclass(frozen=True)
class Similarity:
    """x → scale · rotation x + translation."""

    scale: float
    rotation: Array  # [3, 3]
    translation: Array  # [3]

    @staticmethod
    def identity() -> "Similarity":
        return Similarity(1.0, np.eye(3), np.zeros(3))

    def __call__(self, points: Array) -> Array:
        return self.scale * points @ self.rotation.T + self.translation

    def inverse(self) -> "Similarity":
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -rotation @ self.translation / self.scale)


@dataclass(frozen=True)
class Bounds:
    """Where the scene is. `box` is what an occupancy grid starts from; an unbounded scene goes on behind it."""

    box: Array  # [2, 3]
    near: float
    far: float
    unbounded: bool
    forward_facing: bool


@dataclass(frozen=True)
class Depths:
    """Depth maps in scene units: `images[i] * unit`, where it is not `invalid`. Views without one are in `missing`."""

    images: Images
    unit: float
    kind: DepthKind
    invalid: float
    missing: Array  # [n_views] bool


@dataclass(frozen=True)
class SceneData:
    """n views of one scene."""

    kind: str
    folder: Path
    names: list[str]
    cameras: Cameras
    images: Images
    splits: dict[str, Array]  # "train", "test", … → view numbers
    split_rule: str  # whose splits these are
    bounds: Bounds
    scene_from_source: Similarity  # from the file's coordinates to these
    masks: Images | None = None
    depths: Depths | None = None
    points: Points | None = None
    times: Array | None = None
    weights: Array | None = None
    linear: bool = False
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
