"""Small objects of the forms that pixelNeRF's sets have."""

import json
from pathlib import Path

import numpy as np

from opengl_views import look_at, ring, write_picture

FLIP = np.diag([1.0, -1, -1, 1])
SRN_INTRINSICS = "20.0 6.5 4.25 0.\n0. 0. 0.\n1.\n8 12\n"


def on_sphere(n, radius):
    """OpenGL poses at one distance from the origin."""
    return [look_at(radius * np.array(matrix[:3, 3]) / np.linalg.norm(matrix[:3, 3])) for matrix in ring(n)]


def make_srn(folder: Path, n=4, radius=1.3, intrinsics=SRN_INTRINSICS) -> list:
    poses = on_sphere(n, radius)
    (folder / "pose").mkdir(parents=True)
    for i, matrix in enumerate(poses):
        write_picture(folder / f"rgb/{i:06d}.png", channels=3, seed=i)
        (folder / f"pose/{i:06d}.txt").write_text(" ".join(repr(float(value)) for value in (matrix @ FLIP).ravel()))
    (folder / "intrinsics.txt").write_text(intrinsics)
    return poses


def make_nmr(folder: Path, n=4, radius=2.732, focal=3.732, masks=True, **changes) -> list:
    poses = on_sphere(n, radius)
    arrays = {}
    for i, matrix in enumerate(poses):
        write_picture(folder / f"image/{i:04d}.png", 16, 16, 3, seed=i)
        if masks:
            write_picture(folder / f"mask/{i:04d}.png", 16, 16, 1, seed=i)
        arrays[f"world_mat_{i}"] = np.linalg.inv(matrix @ FLIP)
        arrays[f"world_mat_inv_{i}"] = matrix @ FLIP
        arrays[f"camera_mat_{i}"] = np.diag([focal, focal, 1, 1])
    arrays.update(changes)
    np.savez(folder / "cameras.npz", **{name: value for name, value in arrays.items() if value is not None})
    return poses


def make_several(folder: Path, n=4, radius=6.0, **fields) -> list:
    poses = on_sphere(n, radius)
    frames = []
    for i, matrix in enumerate(poses):
        write_picture(folder / f"{i:04d}_obj.png", seed=i)
        frames.append({"file_path": f"./renders/{i:04d}.png", "transform_matrix": matrix.tolist()})
    data = {"camera_angle_x": 0.6, "frames": frames, **fields}
    (folder / "transforms.json").write_text(json.dumps(data))
    return poses


make = make_srn
