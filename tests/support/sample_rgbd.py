"""A room with a floor and two walls, seen by an RGB-D camera: depths are exact. Written in the form of 7-Scenes."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from opengl_views import look_at, write_picture

SIZE = (40, 30)
K = (36.5, 36.5, 20.0, 15.0)
PLANES = (((0, 0, 1), -1.0), ((0, 1, 0), -2.5), ((1, 0, 0), -2.0))  # normal · x = offset: floor and two walls


INSIDE = np.array([[-1.0, -1.2, -0.7], [-0.5, -1.5, -0.2], [-1.2, -0.4, 0.1]])  # points in the room


def off_the_walls(points):
    """Distance of points to the nearest plane of the room."""
    return np.min([np.abs(points @ np.array(normal) - offset) for normal, offset in PLANES], 0)


def room_poses(n):
    """OpenGL poses in the room that look at its corner."""
    angles = np.linspace(0.1, 1.2, n)
    return [look_at((1.5 * np.cos(a), 1.5 * np.sin(a), 0.2 + 0.1 * i), (-1, -1.5, -0.8)) for i, a in enumerate(angles)]


def z_depths(matrix, size=SIZE, k=K):
    """[h, w] depths along the axis."""
    x, y = np.meshgrid((np.arange(size[0]) + 0.5 - k[2]) / k[0], (np.arange(size[1]) + 0.5 - k[3]) / k[1])
    directions = np.stack([x, -y, -np.ones_like(x)], -1) @ matrix[:3, :3].T
    distances = np.full(x.shape, np.inf)
    with np.errstate(divide="ignore"):
        for normal, offset in PLANES:
            along = (offset - matrix[:3, 3] @ normal) / (directions @ normal)
            distances = np.where((along > 0) & (along < distances), along, distances)
    return distances


def millimetres(depths):
    return np.where(np.isfinite(depths), np.rint(depths * 1000), 65535).astype(np.uint16)


def make(folder: Path, n=5, sequence="", first=0) -> list:
    """Writes frames in 7-Scenes' form; OpenGL poses come back."""
    poses = room_poses(n)
    place = folder / sequence
    place.mkdir(parents=True)
    for i, matrix in enumerate(poses):
        stem = f"frame-{first + i:06d}"
        write_picture(place / f"{stem}.color.png", *SIZE, 3, seed=i)
        imageio.imwrite(place / f"{stem}.depth.png", millimetres(z_depths(matrix)))
        np.savetxt(place / f"{stem}.pose.txt", matrix @ np.diag([1, -1, -1, 1]))
    np.savetxt(folder / "camera-intrinsics.txt", np.array([[K[0], 0, K[2]], [0, K[1], K[3]], [0, 0, 1]]))
    return poses
