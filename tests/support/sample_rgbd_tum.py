"""A small sequence of the form of TUM's RGB-D benchmark. Poses come at their own rate, between those of the pictures."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from sample_rgbd import z_depths

from opengl_views import look_at, write_picture

SIZE = (64, 48)
NOMINAL = (52.5, 52.5, 32.0, 24.0)  # at SIZE, the centre of the first pixel at 0.5
START = 1305031102.0


def pose_at(seconds):
    """OpenGL pose: the camera moves along a line and turns at a constant rate about the vertical."""
    angle = 0.9 + 0.5 * seconds
    position = np.array([1.2 + 0.4 * seconds, 1.4 - 0.3 * seconds, 0.3])
    return look_at(position, position - [np.cos(angle), np.sin(angle), 0.35])


def quaternion(rotation):
    """x, y, z, w, by the axis of the rotation."""
    values, vectors = np.linalg.eig(rotation)
    axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    across = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    axis = axis * (1 if axis @ across >= 0 else -1)
    return [*(axis * np.sin(angle / 2)), np.cos(angle / 2)]


def make(folder: Path, n=5, camera="", picture_step=0.033, pose_step=0.01, flip=True) -> list:
    """Writes the sequence; OpenGL poses at the pictures' times come back."""
    header = f"# color images\n# file: 'rgbd_dataset_{camera}_room.bag'\n# timestamp filename\n"
    colors, depths, poses, truth = [], [], [], []
    for i in range(n):
        time = picture_step * i
        name = f"{START + time:.6f}.png"
        write_picture(folder / f"rgb/{name}", *SIZE, 3, seed=i)
        (folder / "depth").mkdir(exist_ok=True)
        imageio.imwrite(folder / f"depth/{name}", np.rint(z_depths(pose_at(time), SIZE, NOMINAL) * 5000).astype(np.uint16))
        colors.append(f"{START + time:.6f} rgb/{name}")
        depths.append(f"{START + time + 0.004:.6f} depth/{name}")
        poses.append(pose_at(time))
    for k in range(int(n * picture_step / pose_step) + 3):
        time = pose_step * (k - 1) + 0.003
        matrix = pose_at(time) @ np.diag([1, -1, -1, 1])
        sign = -1 if flip and k % 2 else 1  # both signs are the same rotation
        row = [*matrix[:3, 3], *(sign * value for value in quaternion(matrix[:3, :3]))]
        truth.append(f"{START + time:.6f} " + " ".join(f"{value:.12g}" for value in row))
    (folder / "rgb.txt").write_text(header + "\n".join(colors) + "\n")
    (folder / "depth.txt").write_text("# depth maps\n" + "\n".join(depths) + "\n")
    (folder / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(truth) + "\n")
    return poses
