"""Whether a scene's cameras, lenses, points and depth maps agree with each other, as named figures.

Two checks that need no features: where a sparse reconstruction says what each picture saw of each point, the mean distance
between that and where our cameras project the point; where there are depth maps, whether one view's depths, carried into another
view, are what that view measured. A wrong convention, a lost distortion or a wrong scale shows in either at once.

Depths are carried to a view that sees the surface from nearly the same side: from the other side of an object it would be hidden.
And whether every file can be decoded to its end, which opening a scene does not try.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichi_nerf.cameras import Cameras
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import Array, Images, read_image
from taichi_nerf.scenes.scene_data import Depths, SceneData
from taichi_nerf.scenes.source import DepthFiles, Points, Source

N_VIEWS = 12  # that depths are carried from
N_CANDIDATES = 64  # views they may be carried to
N_PIXELS = 2000  # of a view
LEAST_OVERLAP = 0.5  # of the pixels, that a view has to share to be carried to
LARGEST_ANGLE = 25.0  # degrees between the two views of a point: beyond, much of what one sees is hidden from the other
WIDEST_ANGLE = 60.0  # beyond, two views of an object show different surfaces, and nothing is compared
DAMAGED = "damaged files"
FEW = 3  # damaged files that are spelt out


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    detail: str


def check_scene(scene: SceneData | Source) -> list[Figure]:
    """The figures that can be had; none where the scene has neither tracks nor depth maps."""
    figures: list[Figure] = []
    if scene.points is not None and len(scene.points.seen):
        figures += check_points(scene.cameras, scene.points)
    depths = _depths(scene)
    if depths is not None:
        figures += check_depths(scene.cameras, depths)
    return figures


def check_files(scene: SceneData, report: Report = silent) -> list[Figure]:
    """How many pictures, masks and depth maps cannot be decoded to their end, and which."""
    several = (scene.images, scene.masks, scene.depths.images if scene.depths else None)
    files = list(dict.fromkeys(file for images in several if images and images.arrays is None for file in images.files if file))
    damaged = []
    for i, file in enumerate(files):
        report(i / len(files), f"decoding {file.name}")
        try:
            read_image(file)
        except SceneError as error:
            damaged.append(str(error))
    if not files:
        return []
    more = f"; and {len(damaged) - FEW} more" if len(damaged) > FEW else ""
    detail = "; ".join(damaged[:FEW]) + more if damaged else "every picture, mask and depth map can be decoded"
    return [Figure(DAMAGED, len(damaged), f"of {len(files)}", detail)]


def check_points(cameras: Cameras, points: Points) -> list[Figure]:
    """Mean over points of a point's mean distance in pixels: what COLMAP calls the mean reprojection error."""
    distances = reprojection_distances(cameras, points)
    good = np.isfinite(distances)
    n_seen = np.bincount(points.seen[good], minlength=len(points.positions))
    per_point = np.bincount(points.seen[good], distances[good], minlength=len(points.positions))[n_seen > 0] / n_seen[n_seen > 0]
    if not good.any():
        return [Figure("reprojection error", float("nan"), "px", f"none of {len(good)} observations is in front of its camera")]
    behind = f" in front of their camera, {(~good).sum()} are not;" if not good.all() else ""
    detail = (
        f"mean of {len(per_point)} points; of all {good.sum()} observations{behind} "
        f"mean {distances[good].mean():.3f} px, median {np.median(distances[good]):.3f} px"
    )
    figures = [Figure("reprojection error", float(per_point.mean()), "px", detail)]
    if points.errors is not None:
        stated = float(points.errors[n_seen > 0].mean())
        detail = "as it was when the file was written; adjusting or undistorting afterwards leaves it as it was"
        figures.append(Figure("reprojection error stated in the file", stated, "px", detail))
    return figures


def reprojection_distances(cameras: Cameras, points: Points) -> Array:
    """[n_observations] pixels between where a point was seen and where it projects to; NaN behind the camera."""
    distances = np.full(len(points.seen), np.nan)
    order = np.argsort(points.seen_by, kind="stable")
    starts = np.searchsorted(points.seen_by[order], np.arange(len(cameras) + 1))
    for i in range(len(cameras)):
        mine = order[starts[i] : starts[i + 1]]
        with np.errstate(all="ignore"):
            pixels, _ = cameras.project(i, points.positions[points.seen[mine]])
            distances[mine] = np.hypot(*(pixels - points.seen_at[mine]).T)
    return distances


def check_depths(cameras: Cameras, depths: Depths) -> list[Figure]:
    """Median relative difference between a view's depths, carried into another view, and those measured there."""
    having = np.flatnonzero(~depths.missing)
    if len(having) < 2:
        return []
    generator = np.random.default_rng(0)
    differences, n_pairs = [], 0
    for i in having[np.unique(np.linspace(0, len(having) - 1, N_VIEWS).astype(int))]:
        with suppress(SceneError):  # of a damaged file, which `check_files` reports
            points = _points_of_depth(cameras, depths, int(i), generator)
            j = _other_view(cameras, points, int(i), having) if len(points) else None
            if j is not None:
                differences.append(_differences(cameras, depths, j, points))
                n_pairs += 1
    found = np.concatenate(differences) if differences else np.zeros(0)
    if not len(found):
        return [Figure("depth disagreement", float("nan"), "%", "no two views with depth maps see the same surface")]
    detail = f"median of {len(found)} pixels of {n_pairs} pairs of views; {(found < 0.05).mean():.0%} agree to 5 %"
    return [Figure("depth disagreement", float(np.median(found)) * 100, "%", detail)]


def _points_of_depth(cameras: Cameras, depths: Depths, i: int, generator: np.random.Generator) -> Array:
    """World points [m, 3] of some of a view's measured pixels."""
    image, camera, pixels = _depth_image(cameras, depths, i, generator)
    rows, columns = np.floor(pixels).astype(int).T[::-1]
    values, known = _depth_values(image[rows, columns], depths)
    pixels, values = pixels[known], values[known]
    origins, directions = camera.rays(0, pixels)
    if depths.kind != "ray":
        values = values / (directions @ camera.forwards[0])
    points = origins + directions * values[:, None]
    return points[np.isfinite(points).all(-1)]


def _depth_image(cameras: Cameras, depths: Depths, i: int, generator: np.random.Generator) -> tuple[Array, Cameras, Array]:
    """A depth map, the camera in its pixels, and the centres of pixels chosen at random."""
    image = depths.images[i][..., 0]
    camera = cameras[[i]].resized(np.array([image.shape[::-1]]))
    chosen = generator.choice(image.size, min(N_PIXELS, image.size), replace=False)
    return image, camera, np.stack([chosen % image.shape[1], chosen // image.shape[1]], -1) + 0.5


def _depth_values(raw: Array, depths: Depths) -> tuple[Array, Array]:
    """Depths in the scene's lengths, and where they were measured."""
    values = raw.astype(np.float64) * depths.unit
    with np.errstate(divide="ignore", invalid="ignore"):
        if depths.kind == "inverse":
            values = 1 / values
        known = (raw != depths.invalid) & np.isfinite(values) & (values > 0)
    return values, known


def _other_view(cameras: Cameras, points: Array, i: int, having: Array) -> int | None:
    """The view from the most different direction that still sees what this one sees: close ones agree whatever the convention.

    It has to have half of the points in its picture, and to see most from a direction within `LARGEST_ANGLE` of this view's.
    Where no view does, the one from the nearest direction, unless that is beyond `WIDEST_ANGLE`.
    """
    others = having[having != i]
    others = others[np.unique(np.linspace(0, len(others) - 1, N_CANDIDATES).astype(int))]
    some = points[:: max(1, len(points) // 200)]
    overlap = np.array([_in_view(cameras, int(j), some)[1].mean() for j in others])
    if not overlap.any():
        return None
    sharing = overlap >= min(LEAST_OVERLAP, overlap.max())
    others = others[sharing]
    angles = np.array([_angle(cameras.centers[i], cameras.centers[j], some) for j in others])
    beside = angles <= LARGEST_ANGLE
    if beside.any():
        return int(others[np.argmax(np.where(beside, angles, -1))])
    return int(others[np.argmin(angles)]) if angles.min() <= WIDEST_ANGLE else None


def _angle(here: Array, there: Array, points: Array) -> float:
    """Median angle in degrees between the directions to two places, as seen from points."""
    a, b = here - points, there - points
    cosine = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return float(np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))))


def _in_view(cameras: Cameras, j: int, points: Array) -> tuple[Array, Array]:
    """Pixels [m, 2], and which of them are in the image and in front."""
    with np.errstate(all="ignore"):
        pixels, z = cameras.project(j, points)
        return pixels, (z > 0) & (pixels >= 0).all(-1) & (pixels < cameras.sizes[j]).all(-1)


def _differences(cameras: Cameras, depths: Depths, j: int, points: Array) -> Array:
    image = depths.images[j][..., 0]
    camera = cameras[[j]].resized(np.array([image.shape[::-1]]))
    pixels, visible = _in_view(camera, 0, points)
    points, pixels = points[visible], pixels[visible]
    rows, columns = np.floor(pixels).astype(int).T[::-1]
    measured, known = _depth_values(image[rows, columns], depths)
    offsets = points - camera.centers[0]
    carried = np.linalg.norm(offsets, axis=-1) if depths.kind == "ray" else offsets @ camera.forwards[0]
    return (np.abs(carried - measured) / np.where(known, measured, 1))[known]


def _depths(scene: SceneData | Source) -> Depths | None:
    if isinstance(scene, SceneData):
        return scene.depths
    return None if scene.depth is None else _opened(scene.depth)


def _opened(depth: DepthFiles) -> Depths | None:
    there: list[Path] = [file for file in depth.files if file is not None]
    if not there:
        return None
    missing = np.array([file is None for file in depth.files])
    return Depths(Images([file or there[0] for file in depth.files]), depth.unit, depth.kind, depth.invalid, missing)
