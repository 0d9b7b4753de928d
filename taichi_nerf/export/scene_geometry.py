"""What a picture of a scene is drawn from: which views, thumbnails, the edges of cameras and boxes, depths. NumPy only."""

import numpy as np

from taichi_nerf.cameras import EQUIRECTANGULAR, ORTHOGRAPHIC, Array, Cameras, upward
from taichi_nerf.scenes.scene_data import SceneData
from taichi_nerf.scenes.shrink import shrink

MOST_VIEWS = 16  # on a contact sheet


def spread_views(scene: SceneData, n: int = MOST_VIEWS) -> list[int]:
    """Views evenly over the scene's order, with some of each split: a split's share of the sheet is at least one view."""
    total = len(scene.names)
    if total <= n:
        return list(range(total))
    chosen = {round(i) for i in np.linspace(0, total - 1, n)}
    for index in scene.splits.values():
        if len(index) and not chosen & set(map(int, index)):
            middle = int(index[len(index) // 2])
            chosen.discard(max(chosen, key=lambda view: -abs(view - middle)))
            chosen.add(middle)
    return sorted(chosen)


def level(cameras: Cameras) -> Array:
    """[3, 3] the rotation that brings the scene's up to the z axis and leaves the rest as near as it can be."""
    up = upward(cameras)
    axis = np.eye(3)[np.argmin(np.abs(up))]
    x = axis - (axis @ up) * up
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x), up])


def thumbnail(scene: SceneData, view: int, longest: int = 400) -> Array:
    """[h, w, 3] from 0 to 1 for a screen: alpha over white, linear colors tone-mapped and encoded."""
    width, height = (int(side) for side in scene.cameras.sizes[view])
    scale = min(1.0, longest / max(height, width))
    picture = scene.images.small(view, min(longest, max(height, width)))
    picture = shrink(picture, max(1, round(width * scale)), max(1, round(height * scale)))
    values = picture.astype(np.float32)
    if np.issubdtype(picture.dtype, np.integer):
        values /= np.iinfo(picture.dtype).max
    color, alpha = values[..., :3], values[..., 3:]
    if scene.linear:
        white = float(np.percentile(color[np.isfinite(color)], 98)) if np.isfinite(color).any() else 1.0
        color = np.clip(np.nan_to_num(color) / max(white, 1e-6), 0, 1) ** (1 / 2.2)
    if alpha.shape[-1]:
        color = color * alpha + 1 - alpha
    return np.repeat(np.clip(np.nan_to_num(color), 0, 1), 3 // color.shape[-1], -1)


def lowest_face(edges: Array, up: Array) -> Array:
    """[4, 2, 3] the edges of the box's face that is most nearly its floor."""
    axis = int(np.argmax(np.abs(up)))
    across = edges[np.abs(np.diff(edges[:, :, axis], axis=1)[:, 0]) < 1e-12]
    return across[np.argsort(across[:, 0, axis] * np.sign(up[axis]), kind="stable")[:4]]


def frustum_size(cameras: Cameras, scene: SceneData) -> float:
    """How deep a camera is drawn: by the spacing of the cameras, within bounds set by the scene."""
    centers = cameras.centers
    reach = max(float(np.ptp(np.concatenate([centers, scene.bounds.box]), axis=0).max()), 1e-9)
    if len(centers) < 2:
        return 0.12 * reach
    some = centers[np.unique(np.linspace(0, len(centers) - 1, 200).astype(int))]
    gaps = np.linalg.norm(some[:, None] - centers[None], axis=-1)
    gaps[gaps < 1e-9] = np.inf
    nearest = gaps.min(1)
    gap = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else reach
    return float(np.clip(0.9 * gap, 0.025 * reach, 0.09 * reach))


def frustum(cameras: Cameras, i: int, depth: float) -> Array:
    """[8, 2, 3] the edges of a camera's pyramid, whose corners are rays through the corners of its picture."""
    width, height = cameras.sizes[i]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    pose = cameras.camera_to_worlds[i]
    if cameras.models[i] == EQUIRECTANGULAR:
        local = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) * 0.5
    elif cameras.models[i] == ORTHOGRAPHIC:
        local = np.concatenate([np.sign(corners - 1e-9), np.ones((4, 1))], -1)
    else:
        directions = cameras.rays(i, corners)[1] @ pose[:, :3]
        plain = np.concatenate([(corners - cameras.intrinsics[i, 2:]) / cameras.intrinsics[i, :2], np.ones((4, 1))], -1)
        sound = np.isfinite(directions).all() and (directions[:, 2] > 0.2).all()
        local = directions / directions[:, 2:] if sound else plain / np.maximum(1, np.abs(plain).max() / 2)
    tips = depth * local @ pose[:, :3].T + pose[:, 3]
    spokes = np.stack([np.broadcast_to(pose[:, 3], tips.shape), tips], 1)
    return np.concatenate([spokes, np.stack([tips, np.roll(tips, -1, 0)], 1)])


def box_edges(box: Array) -> Array:
    """[12, 2, 3]"""
    corners = np.array([[box[i, 0], box[j, 1], box[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    pairs = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
    return np.stack([corners[list(pair)] for pair in pairs])


def seen_depths(scene: SceneData) -> Array:
    """Depths of the sparse points in the cameras that see them, or of some measured pixels; sorted, positive, maybe none."""
    cameras, points = scene.cameras, scene.points
    if points is not None and len(points.positions):
        if len(points.seen):
            step = -(-len(points.seen) // 200_000)
            offsets = points.positions[points.seen[::step]] - cameras.centers[points.seen_by[::step]]
            depths = (offsets * cameras.forwards[points.seen_by[::step]]).sum(-1)
        else:
            some = points.positions[:: -(-len(points.positions) // 2000)]
            depths = np.concatenate([_depths_in_view(cameras, i, some) for i in _some(len(cameras))])
    elif scene.depths is not None:
        having = np.flatnonzero(~scene.depths.missing)
        found = []
        for i in having[_some(len(having), 8)]:
            raw = scene.depths.images[int(i)][::8, ::8, 0]
            values = raw[raw != scene.depths.invalid].astype(np.float64) * scene.depths.unit
            found.append(1 / values[values > 0] if scene.depths.kind == "inverse" else values)
        depths = np.concatenate(found) if found else np.zeros(0)
    else:
        return np.zeros(0)
    return np.sort(depths[np.isfinite(depths) & (depths > 0)])


def _depths_in_view(cameras: Cameras, i: int, points: Array) -> Array:
    with np.errstate(all="ignore"):
        pixels, depths = cameras.project(i, points)
        return depths[(pixels >= 0).all(-1) & (pixels <= cameras.sizes[i]).all(-1) & (depths > 0)]


def _some(n: int, most: int = 32) -> Array:
    return np.unique(np.linspace(0, n - 1, most).astype(int)) if n else np.zeros(0, int)
