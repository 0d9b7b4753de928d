"""A small COLMAP scene, written by hand as text: five views of twenty points through one OpenCV lens."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

SIZE = (80, 60)
LENS = (70.0, 72.0, 41.0, 29.0, 0.08, -0.03, 0.004, -0.002)  # fx fy cx cy k1 k2 p1 p2
N_VIEWS, N_POINTS = 5, 20


def quaternion_of(rotation):
    """w, x, y, z; for rotations by less than half a turn."""
    w = np.sqrt(1 + np.trace(rotation)) / 2
    skew = rotation - rotation.T
    return np.array([w, *(np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) / (4 * w))])


def poses():
    """World to camera, [n, 3, 4]: on an arc, looking at the origin."""
    found = []
    for angle in np.linspace(-0.6, 0.6, N_VIEWS):
        center = 4 * np.array([np.sin(angle), 0.1, -np.cos(angle)])
        forward = -center / np.linalg.norm(center)
        right = np.cross([0, 1.0, 0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        found.append(np.concatenate([rotation, -rotation @ center[:, None]], -1))
    return np.stack(found)


def points():
    return np.random.default_rng(3).uniform(-0.9, 0.9, (N_POINTS, 3))


def project(pose, positions, lens=LENS):
    """OpenCV's formula, point by point."""
    fx, fy, cx, cy, k1, k2, p1, p2 = lens
    pixels = []
    for position in positions:
        x, y, z = pose[:, :3] @ position + pose[:, 3]
        x, y = x / z, y / z
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2 * r2
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        pixels.append((fx * u + cx, fy * v + cy))
    return np.array(pixels)


def observations():
    """[n_views, n_points, 2] where each was seen: where it projects to, and 0.2 pixels of noise."""
    exact = np.stack([project(pose, points()) for pose in poses()])
    return exact + np.random.default_rng(4).normal(size=exact.shape) * 0.2


def errors():
    """[n_points] the mean distance of a point's observations from its projections."""
    exact = np.stack([project(pose, points()) for pose in poses()])
    return np.linalg.norm(observations() - exact, axis=-1).mean(0)


def write_images(folder: Path, size=SIZE, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(N_VIEWS):
        picture = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        imageio.imwrite(folder / (names[i] if names else f"view_{i + 1}.png"), picture)


def write_text(folder: Path, names=None):
    """Image numbers are 11, 12, …; point numbers 100, 101, …; a keypoint of no point opens each image's list."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text("# cameras\n1 OPENCV 80 60 " + " ".join(map(str, LENS)) + "\n")
    lines = ["# images"]
    for i, (pose, seen) in enumerate(zip(poses(), observations(), strict=True)):
        numbers = " ".join(repr(float(x)) for x in [*quaternion_of(pose[:, :3]), *pose[:, 3]])
        lines.append(f"{11 + i} {numbers} 1 {names[i] if names else f'view_{i + 1}.png'}")
        lines.append("1.5 2.5 -1 " + " ".join(f"{float(u)!r} {float(v)!r} {100 + j}" for j, (u, v) in enumerate(seen)))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = ["# points"]
    for j, (position, error) in enumerate(zip(points(), errors(), strict=True)):
        track = " ".join(f"{11 + i} {1 + j}" for i in range(N_VIEWS))
        lines.append(f"{100 + j} " + " ".join(repr(float(x)) for x in position) + f" {j} 20 30 {float(error)!r} {track}")
    (folder / "points3D.txt").write_text("\n".join(lines) + "\n")


def make(folder: Path) -> None:
    write_images(folder / "images")
    write_text(folder / "sparse" / "0")
