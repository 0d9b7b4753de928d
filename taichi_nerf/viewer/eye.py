"""From where a browser looks, and what it wishes to see. Frozen values: one thread replaces them, another reads them.

viser's cameras are OpenCV's (x right, y down, z forward): a quaternion w, x, y, z, a position, a vertical field of view.
"""

from dataclasses import dataclass

import numpy as np

from taichi_nerf.cameras import Array, Cameras, make_cameras
from taichi_nerf.curves import quaternions, rotations

WHAT = ("color", "depth", "normals", "opacity", "sample count", "occupancy")
LEAST_HEIGHT = 16  # pixels
LEAST_FOV, MOST_FOV = 1e-3, 3.1  # radians
LARGEST = 1e6  # of a position, in scene units
DIGITS = 6  # that count: a browser at rest may send the same place again, a rounding error away


@dataclass(frozen=True)
class Eye:
    """A camera without pixels."""

    position: tuple[float, ...]
    wxyz: tuple[float, ...]
    fov_y: float  # radians
    aspect: float  # width over height

    @staticmethod
    def of(position: Array, wxyz: Array, fov_y: float, aspect: float) -> "Eye | None":
        """None if these numbers, which came over the network, are no camera."""
        numbers = np.array([*position, *wxyz, fov_y, aspect], np.float64)
        length = float(np.linalg.norm(numbers[3:7])) if len(numbers) == 9 else 0.0
        if not np.isfinite(numbers).all() or not 1e-6 < length < LARGEST or np.abs(numbers[:3]).max() > LARGEST:
            return None
        turn = numbers[3:7] / length
        return Eye(
            tuple(np.round(numbers[:3], DIGITS).tolist()),
            tuple(np.round(turn, DIGITS).tolist()),
            round(min(max(float(fov_y), LEAST_FOV), MOST_FOV), DIGITS),
            round(min(max(float(aspect), 0.05), 20.0), DIGITS),
        )

    @property
    def pose(self) -> Array:
        """[3, 4] camera to world."""
        turn = np.array([self.wxyz]) / np.linalg.norm(self.wxyz)
        return np.concatenate([rotations(turn)[0], np.array(self.position)[:, None]], -1)

    def camera(self, height: int) -> Cameras:
        """A pinhole of so many rows of square pixels."""
        width = max(1, round(height * self.aspect))
        focal = height / 2 / np.tan(self.fov_y / 2)
        return make_cameras(self.pose[None], [focal, focal, width / 2, height / 2], (width, height))


@dataclass(frozen=True)
class Wish:
    """What a browser is to show."""

    eye: Eye
    what: str = "color"
    height: int = 512  # pixels of the finished picture
    frames_per_second: float = 10.0  # while the camera moves
    crop: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # low and high corner of what is shown


def eye_of_view(cameras: Cameras, view: int) -> Eye:
    """The eye of one of a scene's cameras, as a pinhole of the same vertical field of view."""
    width, height = (float(side) for side in cameras.sizes[view])
    fov_y = min(2 * np.arctan(height / 2 / cameras.intrinsics[view, 1]), 2.0)
    pose = cameras.camera_to_worlds[view]
    turned, _, back = np.linalg.svd(pose[:, :3])
    wxyz = quaternions((turned @ back)[None])[0]
    found = Eye.of(pose[:, 3], wxyz, float(fov_y), width / height)
    assert found is not None, "a scene's cameras are finite"
    return found
