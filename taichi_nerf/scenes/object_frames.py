"""pixelNeRF's scenes of several objects, for the reader `object_sets`: transforms.json, its frames shown by <name>_obj.png."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from taichi_nerf.cameras import make_cameras, opengl_to_opencv
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, number, pose, read_json
from taichi_nerf.scenes.images import image_size
from taichi_nerf.scenes.source import Source

FILE, ENDING = "transforms.json", "_obj.png"
PUBLISHED_NEAR_FAR = (4.0, 9.0)


def fits(folder: Path) -> bool:
    return (folder / FILE).is_file() and next(folder.glob(f"*{ENDING}"), None) is not None


def read(folder: Path, allow_outside: bool) -> Source:
    file = inside(folder, FILE, allow_outside)
    data = read_json(file)
    angle = number(data.get("camera_angle_x"), file, "camera_angle_x", 1e-3, np.pi - 1e-3)
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise SceneError(file, "expected a list of frames", "frames")
    images = {}
    missing, poses = [], []
    for i, frame in enumerate(frames):
        name = _name(frame, file, f"frames[{i}].file_path")
        image = inside(folder, name, allow_outside, f"{file}: frames[{i}].file_path")
        if name in images:
            raise SceneError(file, f"shows {name!r} again", f"frames[{i}].file_path")
        if not image.is_file():
            missing.append(name)
            continue
        images[name] = image
        poses.append(pose(frame.get("transform_matrix"), file, f"frames[{i}].transform_matrix"))
    if not images:
        raise SceneError(file, f"none of its {len(missing)} pictures exists, the first is {missing[0]!r}", "frames")
    sizes = np.array([image_size(image) for image in images.values()], np.int64)
    focal = sizes[:, :1] / 2 / np.tan(angle / 2)
    cameras = make_cameras(opengl_to_opencv(np.stack(poses)), np.concatenate([focal, focal, sizes / 2], -1), sizes)
    radius = np.linalg.norm(cameras.centers, axis=-1)
    published = bool(((radius > PUBLISHED_NEAR_FAR[0]) & (radius < PUBLISHED_NEAR_FAR[1])).all())
    return Source(
        kind="object_sets",
        folder=folder,
        names=list(images),
        cameras=cameras,
        image_files=list(images.values()),
        near_far=PUBLISHED_NEAR_FAR if published else None,
        notes=["objects on nothing: pictures have alpha", *(["near 4 and far 9 as published"] if published else [])],
        warnings=[f"{len(missing)} frames are skipped: their pictures do not exist (the first is {missing[0]})"]
        if missing
        else [],
    )


def _name(frame: Any, file: Path, field: str) -> str:
    """The picture of a frame: the last part of its file_path, without extension, and _obj.png."""
    path = frame.get("file_path") if isinstance(frame, dict) else None
    stem = PurePosixPath(path.replace("\\", "/")).stem if isinstance(path, str) else ""
    if not stem:
        raise SceneError(file, "expected the name of a picture", field)
    return stem + ENDING
