"""Pictures that EXIF asks to be shown turned. COLMAP (but for one early release), LLFF, instant-ngp and nerfstudio work on the
pixels as stored and ignore that; `Images` heeds it, so that cameras have to be turned with their pictures."""

import math
from pathlib import Path

import numpy as np

from taichi_nerf.cameras import EQUIRECTANGULAR
from taichi_nerf.scenes.colmap_model import Array
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import stored_size
from taichi_nerf.scenes.lens import Lens

QUARTER_TURNS = {1: 0, 6: 1, 3: 2, 8: 3}  # clockwise, by EXIF orientation; the others are mirror images
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # of camera coordinates when the picture is turned clockwise


def as_its_camera_saw(file: Path, shape: float | None) -> tuple[tuple[int, int], int]:
    """(width, height) of a picture to its camera, and the quarter turns by which it is shown after that.

    `shape`, width over height as the camera has it, may tell that the camera is of the picture as it is shown.
    """
    (width, height), orientation = stored_size(file)
    if orientation not in QUARTER_TURNS:
        raise SceneError(file, f"has the mirrored EXIF orientation {orientation}; save it upright and find its camera anew")
    turns = QUARTER_TURNS[orientation]
    if turns % 2 and shape and abs(math.log(shape * width / height)) < abs(math.log(shape * height / width)):
        return (height, width), 0
    return (width, height), turns


def turned(pose: Array, lens: Lens, file: Path) -> tuple[Array, Lens]:
    """A camera, its pose [3, 4] to world, after a quarter turn of its picture."""
    if lens.model == EQUIRECTANGULAR:
        raise SceneError(file, "is a panorama with an EXIF orientation; save it upright")
    return np.concatenate([pose[:, :3] @ TURN.T, pose[:, 3:]], -1), lens.turned()


def alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two pictures have one shape, but for the rounding of a smaller one."""
    return abs(size[0] * other[1] / size[1] / other[0] - 1) <= max(0.01, 1.5 / min(*size, *other))


def another_shape(file: Path, what: str, size: tuple[int, int], of_picture: tuple[int, int]) -> SceneError:
    """Of a mask or a depth map that is not `alike` its picture."""
    told = [f"{width} x {height}" for width, height in (size, of_picture)]
    return SceneError(file, f"is a {what} of {told[0]} pixels for a picture of {told[1]}: another shape")
