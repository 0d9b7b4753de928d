"""Points in space from depth maps: some pixels of some views, carried into the world. For sequences with depth, so that center,
scale and bounds come from what was measured, and a preview has something to show."""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import Cameras
from taichi_nerf.scenes.images import Array, read_image
from taichi_nerf.scenes.source import DepthFiles, Points

N_VIEWS = 16
N_PIXELS = 1000  # of a view


def points_of_depths(cameras: Cameras, image_files: list[Path], depth: DepthFiles) -> Points | None:
    """Up to 16,000 points, colored where pictures have 8 bits; None where nothing was measured."""
    having = [i for i, file in enumerate(depth.files) if file is not None]
    generator = np.random.default_rng(0)
    positions, colors = [], []
    for i in np.unique(np.linspace(0, len(having) - 1, N_VIEWS).astype(int)) if having else []:
        view = having[i]
        found, at = _points_of_view(cameras, view, depth, generator)
        positions.append(found)
        colors.append(_colors(image_files[view], at))
    if not sum(map(len, positions)):
        return None
    return Points.without_tracks(np.concatenate(positions), np.concatenate(colors))


def _points_of_view(cameras: Cameras, view: int, depth: DepthFiles, generator: np.random.Generator) -> tuple[Array, Array]:
    """Positions [m, 3], and where in the picture they are [m, 2], from 0 to 1."""
    file = depth.files[view]
    assert file is not None
    raw = read_image(file)[..., 0]
    chosen = generator.choice(raw.size, min(N_PIXELS, raw.size), replace=False)
    rows, columns = np.divmod(chosen, raw.shape[1])
    at = (np.stack([columns, rows], -1) + 0.5) / raw.shape[::-1]
    values = raw[rows, columns].astype(np.float64)
    known = (values != depth.invalid) & np.isfinite(values) & (values > 0)
    at, lengths = at[known], values[known] * depth.unit
    origins, directions = cameras.rays(view, at * cameras.sizes[view])
    if depth.kind == "z":
        lengths = lengths / (directions @ cameras.forwards[view])
    points = origins + directions * lengths[:, None]
    seen = np.isfinite(points).all(-1)
    return points[seen], at[seen]


def _colors(file: Path, at: Array) -> Array:
    image = read_image(file)
    if image.dtype != np.uint8:
        return np.full((len(at), 3), 128, np.uint8)
    columns, rows = (at * image.shape[1::-1]).astype(int).T
    return np.broadcast_to(image[rows, columns, : 3 if image.shape[2] >= 3 else 1], (len(at), 3))
