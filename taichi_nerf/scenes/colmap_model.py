"""COLMAP's sparse model as plain records. `colmap_binary.py` and `colmap_text.py` read and write them.

A model is three files, all .bin or all .txt: cameras, images and points3D. Quaternion and translation map the world to the
camera, x right, y down, z forward; the centre of the first pixel is (0.5, 0.5). Versions that also write rigs and frames
write these three in the same form.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# COLMAP's number of a model: (its name, how many parameters)
CAMERA_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
N_PARAMETERS = dict(CAMERA_MODELS.values())
NUMBERS = {name: number for number, (name, _) in CAMERA_MODELS.items()}


@dataclass(frozen=True)
class ColmapCamera:
    id: int
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    id: int
    quaternion: Array  # [4] w, x, y, z of the world-to-camera rotation
    translation: Array  # [3]
    camera: int
    name: str
    keypoints: Array  # [n, 2] pixels
    point_ids: Array  # [n] int64, negative for none


@dataclass(frozen=True)
class ColmapPoints:
    ids: Array  # [n] int64
    positions: Array  # [n, 3]
    colors: Array  # [n, 3] uint8
    errors: Array  # [n] mean distance in pixels between where its images saw it and where it projects to
    track_lengths: Array  # [n]
    track_images: Array  # [sum of lengths] image ids, point after point
    track_keypoints: Array  # [sum of lengths]


@dataclass(frozen=True)
class ColmapModel:
    cameras: list[ColmapCamera]
    images: list[ColmapImage]
    points: ColmapPoints


def make_points(ids: list[int], rows: list[Any], lengths: list[int], images: Any = (), keypoints: Any = ()) -> ColmapPoints:
    """`rows` are x, y, z, r, g, b, error; tracks are point after point."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    lengths_, images_, keypoints_ = (np.array(values, np.int64) for values in (lengths, images, keypoints))
    colors = table[:, 3:6].astype(np.uint8)
    return ColmapPoints(np.array(ids, np.int64), table[:, :3], colors, table[:, 6], lengths_, images_, keypoints_)
