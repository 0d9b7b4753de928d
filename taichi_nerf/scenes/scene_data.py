"""A scene, ready to train on: cameras in scene units, pictures read when needed, splits, bounds, and what was decided."""

from dataclasses import dataclass, field
from pathlib import Path

from taichi_nerf.cameras import Cameras
from taichi_nerf.scenes.images import Array, Images
from taichi_nerf.scenes.similarity import Similarity
from taichi_nerf.scenes.source import DepthKind, Points

__all__ = ["Bounds", "Depths", "Frustum", "SceneData", "Similarity"]


@dataclass(frozen=True)
class Bounds:
    """Where the scene is. `box` is what an occupancy grid starts from; an unbounded scene goes on behind it."""

    box: Array  # [2, 3]
    near: float
    far: float
    unbounded: bool
    forward_facing: bool


@dataclass(frozen=True)
class Frustum:
    """What lies ahead of cameras that face one way: what `taichi_nerf.ndc` maps to the cube [-1, 1]^3, in scene units."""

    camera_to_world: Array  # [3, 4] the mean camera, OpenCV
    slopes: Array  # [2] focal length over half the width, over half the height
    near: float  # distance of the near plane from the mean camera; the far plane is at infinity


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
    ndc: Frustum | None = None  # for views that face one way and whose nearest depth is known

    @property
    def is_object(self) -> bool:
        """A thing on nothing, seen from outside. A room has bounds as well, but cameras stand in it."""
        low, high = self.bounds.box
        inside = ((self.cameras.centers > low) & (self.cameras.centers < high)).all(-1)
        return not self.bounds.unbounded and float(inside.mean()) < 0.5
