"""NeRF-synthetic scenes and all that are laid out like them: renderings by Blender, D-NeRF's moving ones included.

    transforms_train.json, transforms_val.json, transforms_test.json     each {"camera_angle_x": radians, "frames": [...]}
    train/r_0.png, …                                                     RGBA, the color not multiplied by alpha

`camera_angle_x` is the field of view across the picture's real width, so scenes at any size are read; pixels are square and the
principal point is in the middle. Poses are camera to world with x right, y up, z backward. `time` (D-NeRF) is from 0 to 1.
Renderings of depth and normals (`r_0_depth_0001.png`) are no views. The files state no bounds; the published protocol for
cameras at radius 4 is near 2 and far 6. Files that describe lenses are read by `transforms` instead.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import Cameras
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import read_json
from taichi_nerf.scenes.images import has_alpha
from taichi_nerf.scenes.source import Source
from taichi_nerf.scenes.transform_frames import Views, read_frames, require_views, transforms_files

LENS_FIELDS = {"fl_x", "fl_y", "x_fov", "y_fov", "cx", "cy", "k1", "k2", "p1", "p2", "camera_model", "is_fisheye"}
OTHER_FIELDS = {"aabb_scale", "aabb", "mask_path", "depth_file_path", "depth_path", "ply_file_path"}
PUBLISHED_NEAR_FAR = (2.0, 6.0)


def fits(folder: Path) -> str:
    """transforms_train.json or its siblings, with nothing but a field of view to describe the lens."""
    files = transforms_files(folder) if folder.is_dir() else {}
    if not files or any(_has_lens(file) for file in files.values()):
        return ""
    return " and ".join(file.name for file in files.values())


def _has_lens(file: Path) -> bool:
    try:
        data = read_json(file)
    except SceneError:
        return False  # `read` says what is wrong with it
    frames = data.get("frames")
    first = frames[0] if isinstance(frames, list) and frames else None
    keys = data.keys() | (first.keys() if isinstance(first, dict) else set())
    return bool((LENS_FIELDS | OTHER_FIELDS) & keys)


def read(folder: Path, allow_outside: bool) -> Source:
    views = Views(folder, allow_outside)
    files = transforms_files(folder)
    for split, file in files.items():
        read_frames(views, file, split)
    require_views(views, folder)
    cameras = views.cameras
    alpha = has_alpha([view.image for view in views.found])
    near_far = PUBLISHED_NEAR_FAR if alpha and follows_the_published_protocol(cameras) else None
    notes = [
        f"focal length {cameras.intrinsics[0, 0]:.6g} pixels from camera_angle_x and pictures {cameras.sizes[0, 0]} wide",
        "pictures have alpha: an object on nothing"
        if alpha
        else "pictures have no alpha: what is behind the object is a part of it",
        *(["near 2 and far 6 as published for cameras at radius 4"] if near_far else []),
        *(["frames have times: the scene moves"] if views.times is not None else []),
    ]
    return Source(
        kind="blender",
        folder=folder,
        names=[view.name for view in views.found],
        cameras=cameras,
        image_files=[view.image for view in views.found],
        splits={split: np.array(index, np.int64) for split, index in views.splits.items() if index},
        times=views.times,
        near_far=near_far,
        notes=notes + views.notes(),
        warnings=views.warnings(),
    )


def follows_the_published_protocol(cameras: Cameras) -> bool:
    """Cameras at radius about 4 around the origin that see no more than near 2 and far 6 hold."""
    radius = np.linalg.norm(cameras.centers, axis=-1)
    towards = -(cameras.centers * cameras.forwards).sum(-1)
    seen = radius * (cameras.sizes / 2 / cameras.intrinsics[:, :2]).max(-1)
    return bool((np.abs(radius - 4) < 0.5).all() and (towards > 0.9 * radius).all() and (seen < 2).all())
