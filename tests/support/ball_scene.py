"""A scene in memory whose pictures are known in closed form: an opaque ball, colored by its normals, on nothing."""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes.images import Images
from taichi_nerf.scenes.scene_data import Bounds, Depths, SceneData, Similarity
from taichi_nerf.trajectories import look_at

RADIUS = 0.5


def views_of_ball(n_views=8, size=32, depth_kind="z", pose_error=0.0):
    """`pose_error`: the cameras that are stated stand and look that far from those that took the pictures (radians, units)."""
    random = np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(n_views) / n_views
    heights = 0.4 * (-1.0) ** np.arange(n_views)
    positions = 2.5 * np.stack([np.cos(angles), np.sin(angles), heights], -1)
    focal = 1.4 * size
    taken = make_cameras(
        look_at(positions, np.zeros((n_views, 3)), np.array([0.0, 0, 1])), [focal, focal, size / 2, size / 2], (size, size)
    )
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x.ravel(), y.ravel()], -1)
    pictures, masks, depths = [], [], []
    for view in range(n_views):
        hit, normals, t, forward = _look(*taken.rays(view, pixels), taken.forwards[view])
        color = np.where(hit[:, None], 0.5 + 0.4 * normals * np.sign(np.sin(9 * normals[:, ::-1])), 0)
        rgba = np.concatenate([color, hit[:, None]], -1)
        pictures.append((255 * rgba + 0.5).astype(np.uint8).reshape(size, size, 4))
        masks.append((255 * hit).astype(np.uint8).reshape(size, size, 1))
        depth = {"ray": t, "z": t * forward, "inverse": 1 / (t * forward)}[depth_kind]
        depths.append(np.where(hit, depth, 0).astype(np.float32).reshape(size, size, 1))
    stated = taken.camera_to_worlds.copy()
    stated[:, :, 3] += pose_error * random.normal(size=(n_views, 3)) / 3**0.5
    return SceneData(
        kind="ball", folder=Path("ball"), names=[f"view {i}" for i in range(n_views)],
        cameras=make_cameras(stated, taken.intrinsics, taken.sizes), images=_in_memory(pictures),
        splits={"train": np.arange(n_views)}, split_rule="all", masks=_in_memory(masks),
        bounds=Bounds(np.array([[-0.75] * 3, [0.75] * 3]), 1.0, 4.5, unbounded=False, forward_facing=False),
        scene_from_source=Similarity.identity(),
        depths=Depths(_in_memory(depths), 1.0, depth_kind, 0.0, np.zeros(n_views, bool)),
    ), taken  # fmt: skip


def _in_memory(pictures):
    return Images([None] * len(pictures), arrays=pictures)


def _look(origins, directions, forward):
    """Whether rays hit, normals there, distances along the rays, and cosines to the viewing axis."""
    nearest = -(origins * directions).sum(-1)
    inside = RADIUS**2 - (origins**2).sum(-1) + nearest**2
    t = nearest - np.sqrt(np.maximum(inside, 0))
    return inside > 0, (origins + t[:, None] * directions) / RADIUS, t, directions @ forward
