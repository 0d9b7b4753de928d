"""One registered image of a COLMAP model, brought to the picture that is on disk: its pose, its lens, what it saw."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from taichi_nerf.scenes.colmap_model import Array, ColmapImage
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import LARGEST_NUMBER, matrix
from taichi_nerf.scenes.lens import Lens
from taichi_nerf.scenes.shown import as_its_camera_saw, turned

LARGEST_STRETCH = 0.02  # by which a picture's width and height may be scaled differently from the camera's


@dataclass(frozen=True)
class View:
    name: str
    file: Path
    camera: int  # the model's number of it
    pose: Array  # [3, 4] camera to world
    lens: Lens  # in the picture's pixels
    seen_at: Array  # [n_keypoints, 2] in the picture's pixels
    point_ids: Array  # [n_keypoints] the model's numbers, negative for none
    scale: tuple[float, float] = (1.0, 1.0)  # the picture's pixels per pixel of the file, across and down
    turns: int = 0  # quarter turns by which the picture is shown after COLMAP saw it


def view_of(image: ColmapImage, file: Path, lens: Lens, named_in: Path) -> View:
    """`lens` is in the pixels of the camera as COLMAP has it."""
    if not np.isfinite(image.keypoints).all() or np.abs(image.keypoints).max(initial=0) > LARGEST_NUMBER:
        raise SceneError(named_in, "has keypoints that are not finite, or absurdly large", f"image {image.id}")
    pose = camera_to_world(image, named_in)
    return on_picture(View(image.name, file, image.camera, pose, lens, image.keypoints, image.point_ids), named_in)


def on_picture(view: View, named_in: Path) -> View:
    """The view in the pixels of its file: resized, and turned where the file asks to be shown turned."""
    lens, pose = view.lens, view.pose
    (width, height), turns = as_its_camera_saw(view.file, lens.size[0] / lens.size[1])
    scale = (width / lens.size[0], height / lens.size[1])
    if abs(np.log(scale[0] / scale[1])) > LARGEST_STRETCH + 1 / min(width, height):
        was = f"{lens.size[0]} x {lens.size[1]}"
        raise SceneError(view.file, f"is {width} x {height} pixels, but its camera in {named_in.name} is {was}: another shape")
    lens, seen_at = lens.scaled(width, height), view.seen_at * np.array(scale)
    for _ in range(turns):
        seen_at = np.stack([lens.size[1] - seen_at[:, 1], seen_at[:, 0]], -1)
        pose, lens = turned(pose, lens, view.file)
    return replace(view, pose=pose, lens=lens, seen_at=seen_at, scale=scale, turns=turns)


def camera_to_world(image: ColmapImage, named_in: Path) -> Array:
    """[3, 4] from the quaternion and translation that take the world to the camera."""
    field = f"image {image.id}"
    quaternion = matrix(image.quaternion, (4,), named_in, f"{field}: quaternion")
    translation = matrix(image.translation, (3,), named_in, f"{field}: translation")
    length = float(np.linalg.norm(quaternion))
    if not 0.99 < length < 1.01:
        raise SceneError(named_in, f"expected a quaternion of length one, got length {length:.4g}", field)
    rotation = rotation_of(quaternion / length)
    return np.concatenate([rotation.T, -rotation.T @ translation[:, None]], -1)


def rotation_of(quaternion: Array) -> Array:
    """[3, 3] of a unit quaternion w, x, y, z."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
