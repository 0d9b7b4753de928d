"""Camera matrices as multi-view sets write them: projections taken apart, intrinsics fitted to the pictures' real size, and
pictures found for numbered cameras. For the readers `dtu`, `mvsnet`, `rgbd` and `object_sets`."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import matrix, number
from taichi_nerf.scenes.source import Array

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)  # by which people make pictures smaller
OFF_CENTER = 0.12  # of half a side, that a principal point may be off the middle of the picture for a factor to be recognised
LARGEST_SKEW = 1e-3  # of the focal length; a tenth of a percent is half a pixel at the edge of an 800-pixel picture


class Fitted(NamedTuple):
    """Intrinsics [n, 4] in pixels of the pictures, what was decided, and what is odd."""

    intrinsics: Array
    notes: list[str]
    warnings: list[str]


def decompose(projection: Array, file: Path | str, field: str) -> tuple[Array, Array]:
    """K [3, 3], its last entry 1, and the camera-to-world pose [3, 4] of P = s K [R | t], of any scale s and either sign."""
    left, column = projection[:3, :3], projection[:3, 3]
    stretch = np.linalg.svd(left, compute_uv=False)
    if not stretch[2] > 1e-12 * stretch[0]:
        raise SceneError(file, "is no projection: its left 3 x 3 part is singular", field)
    left = left * np.sign(np.linalg.det(left / stretch[0]))  # a projection and its negative are the same
    # An RQ decomposition by way of QR: reversing the rows, and their order in the transpose, turns one into the other.
    orthogonal, upper = np.linalg.qr(left[::-1].T)
    calibration, rotation = upper.T[::-1, ::-1], orthogonal.T[::-1]
    signs = np.sign(np.diag(calibration))
    calibration, rotation = calibration * signs, rotation * signs[:, None]
    center = -np.linalg.solve(projection[:3, :3], column)
    pose = np.concatenate([rotation.T, center[:, None]], -1)
    return calibration / calibration[2, 2], matrix(pose, (3, 4), file, field)


def pinhole(calibration: Array, file: Path | str, field: str) -> Array:
    """fx, fy, cx, cy of a calibration matrix [3, 3], without skew worth the name."""
    if calibration[2, 2] != 1 or calibration[1, 0] != 0 or calibration[2, 0] != 0 or calibration[2, 1] != 0:
        raise SceneError(file, "expected a camera matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]", field)
    focal = [number(calibration[i, i], file, f"{field}: focal length", 1e-6) for i in (0, 1)]
    center = [number(calibration[i, 2], file, f"{field}: principal point") for i in (0, 1)]
    if abs(calibration[0, 1]) > LARGEST_SKEW * focal[0]:
        raise SceneError(
            file, f"has a skew of {calibration[0, 1]:g}; cameras here have none, undistort the pictures first", field
        )
    return np.array([*focal, *center])


def fit_to_pictures(intrinsics: Array, sizes: Array, file: Path | str) -> Fitted:
    """Intrinsics [n, 4] of unstated size, scaled by the factor that brings the principal points to the middle of pictures [n, 2].

    Sets are shipped with pictures smaller (DTU at a quarter) or larger (MVSNet's training cameras) than the intrinsics are for.
    """
    with np.errstate(all="ignore"):
        ratio = np.median(2 * intrinsics[:, 2:] / sizes, 0)  # 1 where the principal point is in the middle
    factors = np.array([*FACTORS, *(1 / factor for factor in FACTORS[1:])])
    away = np.abs(ratio[None] / factors[:, None] - 1).max(-1)
    best = int(away.argmin())
    if away[best] <= OFF_CENTER:
        if factors[best] == 1:
            return Fitted(intrinsics, [], [])
        stated = np.rint(np.median(sizes, 0) * factors[best]).astype(int)
        note = f"intrinsics are for about {stated[0]} x {stated[1]} by their principal point: scaled by {1 / factors[best]:.4g}"
        return Fitted(intrinsics / factors[best], [note], [])
    center = np.median(intrinsics[:, 2:], 0)
    where = f"the principal point ({center[0]:.5g}, {center[1]:.5g}) of pictures of {sizes[0, 0]} x {sizes[0, 1]}"
    if not ((ratio > 0) & (ratio < 2)).all():
        raise SceneError(file, f"{where} lies outside of them; scale the intrinsics as the pictures were")
    return Fitted(intrinsics, [], [f"{where} is far from the middle: are the pictures cropped, or of another size?"])


def number_in(name: str) -> int | None:
    """The last number in a file's name without extension; None if it has none, or one that counts nothing."""
    digits = re.findall("[0-9]+", name)
    return int(digits[-1]) if digits and len(digits[-1]) <= 12 else None


def match_by_number(pictures: list[Path], numbers: list[int]) -> dict[int, Path]:
    """The picture of each numbered camera: by the number in its name where those are the cameras' numbers, by order where the
    counts are the same (pictures that count from 1, or name something else), else as many as have a camera's number."""
    named = {found: picture for picture in pictures if (found := number_in(picture.stem)) is not None}
    if len(pictures) == len(numbers) and not (len(named) == len(pictures) and named.keys() == set(numbers)):
        return dict(zip(sorted(numbers), pictures, strict=True))
    return {camera: named[camera] for camera in sorted(numbers) if camera in named}
