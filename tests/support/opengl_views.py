"""Known cameras and points for the tests of scene readers: x right, y up, z backward. Nothing here uses `Cameras`."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

POINTS = np.random.default_rng(7).uniform(-0.5, 0.5, (40, 3))


def look_at(position, target=(0, 0, 0), up=(0, 0, 1)):
    """Camera to world [4, 4]."""
    backward = np.subtract(position, target) / np.linalg.norm(np.subtract(position, target))
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(backward, right), backward, position], -1)
    return matrix


def ring(n, radius=4.0):
    angles = 2 * np.pi * np.arange(n) / n
    return [look_at((radius * np.cos(a) * 0.8, radius * np.sin(a) * 0.8, radius * 0.6)) for a in angles]


def to_camera(matrix, points=POINTS):
    """World points in the camera, x right, y up, z backward."""
    return (points - matrix[:3, 3]) @ matrix[:3, :3]


def project(matrix, fx, fy, cx, cy, points=POINTS, bend=lambda x, y: (x, y)):
    """Pixels [n, 2]: x to the right, y down from the top; `bend` maps undistorted image points, y down, to distorted ones."""
    local = to_camera(matrix, points)
    x, y = bend(local[:, 0] / -local[:, 2], -local[:, 1] / -local[:, 2])
    return np.stack([cx + fx * x, cy + fy * y], -1)


def write_picture(file: Path, width=12, height=8, channels=4, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    imageio.imwrite(file, pixels if channels > 1 else pixels[..., 0])
    return pixels
