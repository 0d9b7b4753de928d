"""The lens of a frame in a transforms.json: focal length, principal point, size and distortion.

A field of a frame goes before the same field of the file. Focal lengths in pixels `fl_x`, `fl_y`, else fields of view `x_fov`,
`y_fov` in degrees, else `camera_angle_x`, `camera_angle_y` in radians; one axis alone serves both. `cx`, `cy` default to the
middle. `w`, `h` say for which size these pixels are; pictures of another size scale them.

The letters k1 to k6 mean different things to different lenses:

    PINHOLE, OPENCV, …             k1 k2 k3 (1 + k1 r² + k2 r⁴ + k3 r⁶), p1 p2 tangential as OpenCV has them
      with k5, k6 or FULL_OPENCV   k4 k5 k6 are the denominator of OpenCV's rational model
      with k4 alone                the next power, k4 r⁸, as nerfstudio reads it (from Metashape); fitted by the rational model
    OPENCV_FISHEYE, `is_fisheye`   k1 to k4 of θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸); p1 p2 have no meaning
    EQUIRECTANGULAR                a whole sphere: 2π across, π down; the focal lengths in the file are not needed

instant-ngp keeps k3, p1 in one place and k4, p2 in another, so its k3 and k4 exist for fisheyes only; it writes them as 0 else.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, OPENCV, PINHOLE
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import number
from taichi_nerf.scenes.lens import Lens
from taichi_nerf.scenes.source import Array

PERSPECTIVE_NAMES = ("PERSPECTIVE", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
FISHEYE_NAMES = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
UNKNOWN_TO_US = ("ftheta_p0", "latlong")  # lenses of instant-ngp that Cameras does not have
LARGEST_SIDE = 10**6  # pixels
LARGEST_COEFFICIENT = 1e6


class Fields:
    """The fields of a frame and, where it has none, of its file."""

    def __init__(self, shared: dict[str, Any], frame: dict[str, Any], file: Path, place: str):
        self.shared, self.frame, self.file, self.place = shared, frame, file, place

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Any:
        own = self.frame.get(name)
        return self.shared.get(name) if own is None else own

    def where(self, name: str) -> str:
        return f"{self.place}.{name}" if self.frame.get(name) is not None else name

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.get(name)
        return default if value is None else number(value, self.file, self.where(name), low, high)


def read_lens(fields: Fields, size: tuple[int, int]) -> tuple[Lens, list[str], list[str]]:
    """The lens for a picture of `size` (width, height), and notes and warnings about it."""
    notes: list[str] = []
    warnings: list[str] = []
    model = _model(fields)
    if model == EQUIRECTANGULAR:
        width, height = size
        if abs(width - 2 * height) > 2:
            warnings.append("equirectangular pictures are read as whole spheres, though they are not twice as wide as high")
        intrinsics = np.array([width / (2 * math.pi), height / math.pi, width / 2, height / 2])
        return Lens(size, intrinsics, model, np.zeros(8)), notes, warnings
    intrinsics = _intrinsics(fields, size, notes)
    if not (0 < intrinsics[2] < size[0] and 0 < intrinsics[3] < size[1]):
        warnings.append(
            f"the principal point ({intrinsics[2]:.5g}, {intrinsics[3]:.5g}) lies outside of pictures of {size[0]} x {size[1]}: "
            "say by w and h for which size the intrinsics are"
        )
    distortion = _distortion(fields, model, intrinsics, size, notes, warnings)
    if model == OPENCV and not distortion.any():
        model = PINHOLE
    return Lens(size, intrinsics, model, distortion), notes, warnings


def _model(fields: Fields) -> int:
    for name in UNKNOWN_TO_US:
        if name in fields:
            raise SceneError(fields.file, "this lens model is not supported; undistort the pictures", fields.where(name))
    name = fields.get("camera_model")
    if name is not None and not isinstance(name, str):
        raise SceneError(fields.file, f"expected a name, got {str(name)[:40]!r}", fields.where("camera_model"))
    name = (name or "OPENCV").upper()
    if name == "EQUIRECTANGULAR" or fields.get("equirectangular") not in (None, False):
        return EQUIRECTANGULAR
    if name in FISHEYE_NAMES or fields.get("is_fisheye") not in (None, False, 0):
        return FISHEYE
    if name in PERSPECTIVE_NAMES:
        return OPENCV
    known = ", ".join((*PERSPECTIVE_NAMES, *FISHEYE_NAMES, "EQUIRECTANGULAR"))
    raise SceneError(fields.file, f"{name[:40]!r} is not supported; known are {known}", fields.where("camera_model"))


def _intrinsics(fields: Fields, size: tuple[int, int], notes: list[str]) -> Array:
    """fx, fy, cx, cy for the picture as it is."""
    stated = [fields.number(name, side, 1, LARGEST_SIDE) for name, side in zip("wh", size, strict=True)]
    ratio = ratio_to_stated(size, stated, fields.file, fields.where("w"))
    if (ratio != 1).any():
        notes.append(f"intrinsics for {stated[0]:g} x {stated[1]:g} scaled to pictures of {size[0]} x {size[1]}")
    focal = _focal(fields, size, ratio)
    center = [fields.number(name, stated[i] / 2, -LARGEST_SIDE, LARGEST_SIDE) * ratio[i] for i, name in enumerate(("cx", "cy"))]
    return np.array([*focal, *center])


def ratio_to_stated(size: tuple[int, int], stated: list[float], file: Path, field: str) -> Array:
    """How much larger the picture is than the file says. A side may be off by the rounding of a downscaled picture; more than
    that is a crop or a turn, which no scaling of intrinsics mends."""
    ratio = np.array(size) / stated
    if abs(ratio[0] / ratio[1] - 1) > max(0.005, 1.5 / min(size)):
        turned = " (is it turned by its EXIF orientation?)" if (ratio[0] > 1) != (ratio[1] > 1) else ""
        raise SceneError(file, f"states {stated[0]:g} x {stated[1]:g} for a picture of {size[0]} x {size[1]}{turned}", field)
    return ratio


def _focal(fields: Fields, size: tuple[int, int], ratio: Array) -> tuple[float, float]:
    """In pixels of the picture. What the frame says in any of the three ways goes before what the file says."""
    for level in (fields.frame, fields.shared):
        here = Fields({}, level, fields.file, fields.place) if level is fields.frame else Fields(level, {}, fields.file, "")
        found = [_focal_of_axis(here, axis, side, factor) for axis, side, factor in zip("xy", size, ratio, strict=True)]
        if found[0] or found[1]:
            return found[0] or found[1], found[1] or found[0]
    raise SceneError(fields.file, "expected a focal length: fl_x in pixels or camera_angle_x in radians", fields.place)


def _focal_of_axis(fields: Fields, axis: str, side: int, ratio: float) -> float:
    if f"fl_{axis}" in fields:
        return ratio * fields.number(f"fl_{axis}", 0, 1e-6, 1e9)
    degrees, radians = f"{axis}_fov", f"camera_angle_{axis}"
    if degrees in fields:
        return side / 2 / math.tan(math.radians(fields.number(degrees, 0, 0.01, 179.9)) / 2)
    if radians in fields:
        return side / 2 / math.tan(fields.number(radians, 0, 1e-4, 3.14) / 2)
    return 0.0


def _distortion(
    fields: Fields, model: int, intrinsics: Array, size: tuple[int, int], notes: list[str], warnings: list[str]
) -> Array:
    names = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    found = np.array([fields.number(name, 0.0, -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT) for name in names])
    if model == FISHEYE:
        if found[4:].any():
            warnings.append("k5, k6, p1, p2 have no meaning for a fisheye lens and are not used")
        found[4:] = 0
        return found
    rational = "k5" in fields or "k6" in fields or str(fields.get("camera_model")).upper() == "FULL_OPENCV"
    if found[3] and not rational:
        found[:6], error = fit_rational(found[:4], image_radius(intrinsics, size))
        worst = error * float(intrinsics[:2].max())
        notes.append(f"k4 is read as the coefficient of r^8; OpenCV's rational model follows it to {worst:.2g} pixels")
        if worst > 0.1:
            warnings.append(f"the lens distortion with k4 is followed to {worst:.2g} pixels only")
    return found


def image_radius(intrinsics: Array, size: tuple[int, int]) -> float:
    """How far from the axis the corners are, in focal lengths."""
    sides = [max(intrinsics[2 + i], size[i] - intrinsics[2 + i]) / intrinsics[i] for i in (0, 1)]
    return float(np.hypot(*sides))


def fit_rational(k: Array, radius: float) -> tuple[Array, float]:
    """k1 … k6 of OpenCV's rational model N / D that follow f = 1 + k1 r² + k2 r⁴ + k3 r⁶ + k4 r⁸, and the largest error.

    N - f (D - 1) = f is linear in the six coefficients of N and D. The fit goes out to where the distorted radius reaches
    the picture's, or to the fold before it; u = (r / reach)² keeps it well conditioned.
    """
    r = np.linspace(0, 4 * radius, 4001)
    distorted = r * np.polyval([*k[::-1], 1], r * r)
    stop = np.flatnonzero((distorted >= radius) | (np.diff(distorted, append=np.inf) <= 0))
    reach = r[max(int(stop[0]), 1)] if len(stop) else r[-1]
    u = np.linspace(0, 1, 200)
    f = np.polyval([*(k * reach ** np.arange(2, 10, 2))[::-1], 1], u)
    powers = u[:, None] ** np.arange(1, 4)
    columns = np.concatenate([powers, -f[:, None] * powers], 1)
    with np.errstate(all="ignore"):
        found = np.linalg.lstsq(columns, f - 1, rcond=1e-13)[0]
        fitted = (1 + powers @ found[:3]) / (1 + powers @ found[3:])
        error = float((np.sqrt(u) * reach * np.abs(fitted - f)).max())
    return found / reach ** np.array([2, 4, 6, 2, 4, 6]), error if math.isfinite(error) else math.inf
