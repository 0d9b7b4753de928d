"""A colored point cloud from rendered pictures: every opaque pixel goes to where its ray ends. And its files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.cameras import Cameras
from taichi_nerf.export.colors import as_array, to_bytes
from taichi_nerf.export.files import ExportError, expect_suffix, write_whole
from taichi_nerf.scenes.ply import ply_bytes
from taichi_nerf.scenes.scene_data import Similarity

Array = NDArray[Any]
Picture = Tensor | Array
HALF = 2**20  # voxels to either side of the origin: three such numbers fit into one of 64 bits


class ColoredPoints(NamedTuple):
    positions: Array  # [n, 3] float64
    colors: Array  # [n, 3] uint8


def colored_points(
    cameras: Cameras,
    pictures: Iterable[tuple[Picture, Picture, Picture]],  # of each camera: color [h, w, 3], distance and opacity [h, w]
    spacing: float | None = None,
    least_opacity: float = 0.5,
    largest_step: float | None = None,
    to_source: Similarity | None = None,
) -> ColoredPoints:
    """Points where rays through pixel centres have gone `distance`: along the ray, and divided by opacity if it was composited.

    Kept are pixels with a positive, finite distance and at least `least_opacity`. At an edge of an object the distance lies
    between it and what is behind; `largest_step` leaves out pixels whose distance differs from that of a neighbour above, below,
    left or right by more than this fraction of it. Of the points in a cube of side `spacing` only their mean remains; pictures
    are thinned as they come, so that many of them need no more memory than the cloud. `to_source`,
    `scene.scene_from_source.inverse()`, brings the cloud to the file's coordinates; `spacing` is measured before that.
    """
    cloud = _Cloud(spacing)
    n_pictures = 0
    for view, (color, distance, opacity) in enumerate(pictures):
        if view >= len(cameras):
            raise ValueError(f"pictures: there are more than the {len(cameras)} cameras")
        arrays = as_array(color), as_array(distance), as_array(opacity)
        cloud.add(*_points_of_view(cameras, view, *arrays, least_opacity, largest_step))
        n_pictures += 1
    if n_pictures < len(cameras):
        raise ValueError(f"pictures: there are {n_pictures} for {len(cameras)} cameras")
    positions, colors = cloud.points()
    return ColoredPoints(positions if to_source is None else to_source(positions), colors)


def _points_of_view(
    cameras: Cameras, view: int, color: Array, distance: Array, opacity: Array, least_opacity: float, largest_step: float | None
) -> tuple[Array, Array]:
    """Positions [m, 3] and colors [m, 3] from 0 to 255 of one picture's kept pixels."""
    width, height = cameras.sizes[view]
    for name, found, wanted in (
        ("color", color, (height, width, 3)),
        ("distance", distance, (height, width)),
        ("opacity", opacity, (height, width)),
    ):
        if found.shape != wanted:
            raise ValueError(f"view {view}: {name}: expected shape {tuple(map(int, wanted))}, got {found.shape}")
    kept = np.isfinite(distance) & (distance > 0) & (opacity >= least_opacity)
    if largest_step is not None:
        kept &= _steady(distance.astype(np.float64), largest_step)
    rows, columns = np.nonzero(kept)
    origins, directions = cameras.rays(view, np.stack([columns, rows], -1) + 0.5)
    positions = origins + directions * distance[rows, columns].astype(np.float64)[:, None]
    seen = np.isfinite(positions).all(-1)  # a lens does not map every pixel to a ray
    return positions[seen], to_bytes(color)[rows[seen], columns[seen]].astype(np.float64)


def _steady(distance: Array, largest_step: float) -> Array:
    """[h, w] whether no neighbour is much nearer or farther. One without a distance says nothing."""
    steady = np.ones(distance.shape, bool)
    known = np.where(np.isfinite(distance) & (distance > 0), distance, np.nan)
    for axis in (0, 1):
        with np.errstate(invalid="ignore"):
            jump = np.abs(np.diff(known, axis=axis))
            first, second = known.take(range(jump.shape[axis]), axis), known.take(range(1, jump.shape[axis] + 1), axis)
            steady_pair = ~(jump > largest_step * np.fmin(first, second))
        after, before = np.ones((2, *distance.shape), bool)
        np.moveaxis(after, axis, 0)[:-1] = np.moveaxis(steady_pair, axis, 0)
        np.moveaxis(before, axis, 0)[1:] = np.moveaxis(steady_pair, axis, 0)
        steady &= after & before
    return steady


class _Cloud:
    """Points so far; with a spacing, sums and counts of those in each cube."""

    def __init__(self, spacing: float | None):
        if spacing is not None and not 0 < spacing < np.inf:
            raise ValueError(f"spacing: expected a positive length, got {spacing}")
        self._spacing = spacing
        self._parts: list[tuple[Array, Array]] = []
        self._cubes = np.zeros(0, np.int64)
        self._sums: Array = np.zeros((0, 6))
        self._counts: Array = np.zeros(0)

    def add(self, positions: Array, colors: Array) -> None:
        if self._spacing is None:
            self._parts.append((positions, colors.astype(np.uint8)))
            return
        at = np.floor(positions / self._spacing).astype(np.int64) + HALF
        if len(at) and (at.min() < 0 or at.max() >= 2 * HALF):
            raise ValueError(f"spacing: {self._spacing:g} is less than a millionth of the distance to the farthest point")
        cubes = np.concatenate([self._cubes, (at[:, 0] << 42) | (at[:, 1] << 21) | at[:, 2]])
        sums = np.concatenate([self._sums, np.concatenate([positions, colors], -1)])
        counts = np.concatenate([self._counts, np.ones(len(positions))])
        self._cubes, where = np.unique(cubes, return_inverse=True)
        n = len(self._cubes)
        self._sums = np.stack([np.bincount(where, column, n) for column in sums.T], -1)
        self._counts = np.bincount(where, counts, n)

    def points(self) -> tuple[Array, Array]:
        if self._spacing is None:
            parts = self._parts or [(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))]
            return np.concatenate([p for p, _ in parts]), np.concatenate([c for _, c in parts])
        means = self._sums / self._counts[:, None]
        return means[:, :3], np.rint(means[:, 3:]).astype(np.uint8)


def save_points(points: ColoredPoints, path: Path | str, gltf_from_source: Array | None = None) -> None:
    """A binary .ply or a .glb, whole or not at all. An .obj is refused: most programs show nothing of its bare vertices.

    `gltf_from_source` [3, 3] turns a .glb alone: in glTF y is up.
    """
    path = Path(path)
    if path.suffix.lower() == ".obj":
        raise ExportError(path, "an .obj holds surfaces, and most programs show nothing of bare points in it; write .ply or .glb")
    suffix = expect_suffix(path, (".ply", ".glb"))
    if not len(points.positions):
        raise ExportError(path, "there are no points to write: no pixel was opaque enough")
    if suffix == ".ply":
        extent = np.ptp(points.positions, axis=0).max()
        coarse = np.abs(points.positions).max() * np.finfo(np.float32).eps > 1e-6 * extent  # as in a country's coordinates
        write_whole(path, ply_bytes(points.positions.astype(np.float64 if coarse else np.float32), points.colors))
    else:
        turned = points.positions if gltf_from_source is None else points.positions @ gltf_from_source.T
        write_whole(path, trimesh.PointCloud(turned, points.colors).export(file_type="glb"))
