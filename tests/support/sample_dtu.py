"""A small scene of the form of DTU, IDR and NeuS."""

from pathlib import Path

import numpy as np

from opengl_views import ring, write_picture

SIZE = (24, 16)
K = np.array([[40.0, 0, 12.3], [0, 38, 7.8], [0, 0, 1]])  # for SIZE
CENTER, RADIUS = np.array([30.0, -20, 500]), 100.0  # of the sphere, in the world


def worlds(n):
    """OpenGL poses around the unit sphere at the origin, and OpenCV world-to-camera matrices [3, 4] of the world."""
    poses = ring(n)
    out = []
    for matrix in poses:
        moved = matrix.copy()
        moved[:3, 3] = matrix[:3, 3] * RADIUS + CENTER
        out.append(np.linalg.inv(moved @ np.diag([1, -1, -1, 1]))[:3])
    return poses, out


def make(folder: Path, n=5, size=SIZE, factor=1.0, sign=1.0, name="cameras_sphere.npz", masks=True, camera_mat=0.0, **changes):
    """Writes the scene, with K for pictures `factor` times as large, camera_mat, if at all, for some `camera_mat` times as large;
    OpenGL poses in units of the sphere come back."""
    poses, world_to_cameras = worlds(n)
    arrays = {}
    for i, world_to_camera in enumerate(world_to_cameras):
        write_picture(folder / f"image/{i:06d}.png", *size, 3, seed=i)
        if masks:
            write_picture(folder / f"mask/{i:03d}.png", *size, 1, seed=i)
        projection = np.eye(4)
        projection[:3] = sign * 2.5 * np.diag([factor, factor, 1]) @ K @ world_to_camera
        arrays[f"world_mat_{i}"] = projection
        scale = np.diag([RADIUS, RADIUS, RADIUS, 1.0])
        scale[:3, 3] = CENTER
        arrays[f"scale_mat_{i}"] = scale
        if camera_mat:
            to_unit = np.eye(4)
            to_unit[[0, 1], [0, 1]] = 2 / (np.array(SIZE) * camera_mat)
            to_unit[:2, 2] = -1
            arrays[f"camera_mat_{i}"] = to_unit
    arrays.update(changes)
    np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})
    return poses
