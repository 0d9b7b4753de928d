"""Turned images and their estimated poses as a scene: what `taichi-nerf train` takes, so that a 2D generator ends as a mesh.

OUT/transforms.json     poses (x right, y up, z backward) about the object at the origin, the camera's distance being 1
OUT/images/00.png …     the views, in the order of the turn
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.cameras import opengl_to_opencv
from taichi_nerf.generator.depth_pose.geometry import inverted
from taichi_nerf.scenes.unfinished import unfinished_folder
from taichi_nerf.scenes.write_png import write_png

HALF = 0.45  # of the box around the object, in units of the camera's distance


def camera_to_worlds(motions: Tensor) -> NDArray[np.float64]:
    """OpenCV poses [k, 3, 4] of motions from the source's camera, the world's origin being one unit before it."""
    poses = inverted(motions.double()).numpy()
    poses[:, :, 3] -= [0.0, 0.0, 1.0]
    return np.asarray(poses, np.float64)


def write_scene(out: Path, images: NDArray[np.uint8], motions: Tensor, focal: float, held_out: int = 5) -> None:
    """Views [k, size, size, 3]; `focal` is in units of their width. Every `held_out`-th is for testing."""
    size, poses = images.shape[1], opengl_to_opencv(camera_to_worlds(motions))
    frames: list[dict[str, Any]] = []
    with unfinished_folder(out) as folder:
        (folder / "images").mkdir()
        for i, (image, pose) in enumerate(zip(images, poses, strict=True)):
            name = f"images/{i:02d}.png"
            write_png(folder / name, image)
            frames.append({"file_path": name, "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]})
        names = [frame["file_path"] for frame in frames]
        test = names[held_out // 2 :: held_out]
        data = {
            "w": size,
            "h": size,
            "fl_x": focal * size,
            "fl_y": focal * size,
            "cx": size / 2,
            "cy": size / 2,
            "aabb": [[-HALF] * 3, [HALF] * 3],
            "train_filenames": [name for name in names if name not in test],
            "test_filenames": test,
            "frames": frames,
        }
        (folder / "transforms.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
