"""A small sequence as ScanNet's exporter writes it: pictures twice as large as the depth maps."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from sample_rgbd import z_depths
from sample_rgbd_tum import NOMINAL, pose_at

from opengl_views import write_picture

SIZE = (128, 96)
INTRINSICS = tuple(2 * value for value in NOMINAL)  # of pictures


def make(folder: Path, n=5) -> list:
    """OpenGL poses come back."""
    poses = [pose_at(0.1 * i) for i in range(n)]
    for name in ("depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i, matrix in enumerate(poses):
        write_picture(folder / f"color/{i}.jpg", *SIZE, 3, seed=i)
        depths = z_depths(matrix, (64, 48), NOMINAL)
        imageio.imwrite(folder / f"depth/{i}.png", np.rint(depths * 1000).astype(np.uint16))
        np.savetxt(folder / f"pose/{i}.txt", matrix @ np.diag([1, -1, -1, 1]), fmt="%f")
    for kind, (fx, fy, cx, cy) in (("color", INTRINSICS), ("depth", NOMINAL)):
        matrix = np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        np.savetxt(folder / f"intrinsic/intrinsic_{kind}.txt", matrix, fmt="%f")
        np.savetxt(folder / f"intrinsic/extrinsic_{kind}.txt", np.eye(4), fmt="%f")
    return poses
