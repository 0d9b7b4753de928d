"""A small training set of MVSNet's form: one scan in three lights, its cameras for a quarter of the pictures' size."""

from pathlib import Path

import numpy as np
from sample_mvsnet import SIZE, camera_text, write_pfm

from opengl_views import ring, write_picture


def make(folder: Path, n=5, scan="scan1_train", lights=(0, 3, 6)) -> list:
    """OpenGL poses come back."""
    poses = ring(n)
    place = folder / "Cameras" / ("train" if scan.endswith("_train") else "")
    place.mkdir(parents=True, exist_ok=True)
    for i, matrix in enumerate(poses):
        factor = 0.25 if scan.endswith("_train") else 1.0
        (place / f"{i:08d}_cam.txt").write_text(camera_text(matrix, factor, "2.0 0.02"))
        for light in lights:
            write_picture(folder / f"Rectified/{scan}/rect_{i + 1:03d}_{light}_r5000.png", *SIZE, 3, seed=100 * light + i)
        write_pfm(folder / f"Depths/{scan}/depth_map_{i:04d}.pfm", np.full((SIZE[1] // 4, SIZE[0] // 4), 3 + i / 10))
    (folder / "Cameras/pair.txt").write_text(f"{n}\n0\n2 1 100.0 2 90.0\n")
    return poses
