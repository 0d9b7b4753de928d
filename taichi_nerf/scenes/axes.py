"""Which way the axes of scene units point. A turn keeps the box a cube, whose sides then lie along them.

auto         upright for captures with a surrounding that do not face one way and whose file states no box; else file
file         as in the file
upright      z is up, as the cameras tell it; the file's horizontal axes turn as little as that permits
recentred    of the mean camera: x right, y up, z against the view (LLFF's recentring)
spherified   z from what the cameras look at to where they stand on the mean; they are at distance one (LLFF's spherifying)
"""

from typing import NamedTuple

import numpy as np

from taichi_nerf.cameras import Cameras, focus_point, least_turn, upward
from taichi_nerf.choices import AXES
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.similarity import Array
from taichi_nerf.scenes.source import Source

LEVEL = 0.26  # sine of 15 degrees: how far from level a camera's horizontal axis may be to count as held level
LEAST_LEVEL = 0.6  # share of the cameras that have to be held level, and the right way up, for them to tell what is up
SEED = np.array([0.1, 0.2, 0.3])  # published: decides where the horizontal axes of a spherified scene point


class Axes(NamedTuple):
    rotation: Array  # [3, 3] from the file's axes to the scene's
    why: str
    center: Array | None = None  # [3] in the file's coordinates, where the choice of axes decides that too
    half: float | None = None  # of the box, in the file's lengths


def choose_axes(source: Source, wanted: str, unbounded: bool) -> Axes:
    if wanted not in AXES:
        raise SceneError(source.folder, f"expected one of {', '.join(AXES)}, got {wanted!r}", "axes")
    automatic = wanted == "auto"
    if automatic:
        capture = unbounded and source.box is None and not source.forward_facing
        wanted = "upright" if capture else "file"
    if wanted == "upright":
        share = share_held_level(source.cameras, upward(source.cameras))
        if share >= LEAST_LEVEL:
            return Axes(turn_up(upward(source.cameras)), "z is up: the cameras are held level")
        if not automatic:
            raise SceneError(source.folder, f"only {share:.0%} of the cameras are held level: what is up?", "axes")
        return Axes(np.eye(3), "axes as in the file: the cameras do not tell what is up")
    if wanted == "recentred":
        return Axes(mean_axes(source), "axes of the mean camera, y up and z against the view")
    if wanted == "spherified":
        return _spherified(source)
    return Axes(np.eye(3), "axes as in the file")


def share_held_level(cameras: Cameras, up: Array) -> float:
    across, down = cameras.camera_to_worlds[:, :, 0] @ up, cameras.camera_to_worlds[:, :, 1] @ up
    return float(((np.abs(across) < LEVEL) & (down < 0)).mean())


def turn_up(up: Array) -> Array:
    """[3, 3] the smallest rotation that takes a unit vector to +z."""
    return np.diag([1.0, -1, -1]) if up[2] < -1 + 1e-12 else least_turn(up, np.array([0.0, 0, 1]))


def mean_axes(source: Source) -> Array:
    """[3, 3] the rows right, up, backward of the mean camera: its view is the mean of all views, its up nearest to their mean."""
    back = _unit(-source.cameras.forwards.mean(0), source, "recentred: the cameras face all ways and have no mean view")
    up = -source.cameras.camera_to_worlds[:, :, 1].mean(0)
    right = _unit(np.cross(up, back), source, "recentred: the cameras have no mean up")
    return np.stack([right, np.cross(back, right), back])


def _spherified(source: Source) -> Axes:
    center = focus_point(source.cameras.centers, source.cameras.forwards)
    offsets = source.cameras.centers - center
    outward = _unit(offsets.mean(0), source, "spherified: the cameras stand on all sides of what they look at")
    try:
        seed = SEED @ mean_axes(source)  # published: recentred first
    except SceneError:
        seed = SEED  # a whole ring has no mean camera
    across = np.cross(seed, outward)
    east = _unit(across, source, "spherified: the horizontal axes are undefined")
    rotation = np.stack([east, np.cross(outward, east), outward])
    radius = float(np.sqrt((offsets**2).sum(-1).mean()))
    return Axes(rotation, "z towards the mean camera; cameras at distance one (root of mean square)", center, radius)


def _unit(vector: Array, source: Source, otherwise: str) -> Array:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise SceneError(source.folder, otherwise, "axes")
    return np.asarray(vector / length)
