"""Balls of one color each, in closed form and in SRN's form: what a prior over objects can learn in seconds."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from taichi_nerf.cameras import make_cameras
from taichi_nerf.trajectories import look_at

DISTANCE, FOCAL = 2.0, 1.4  # focal length in widths of the picture


def ball_views(seed, n_views=6, size=24, n_samples=3):
    """Cameras, and pictures [n, size, size, 3] in bytes, on white."""
    random = np.random.default_rng(seed)
    color, radius = random.uniform(0, 0.9, 3), random.uniform(0.3, 0.5)
    up = random.normal(size=(n_views, 3))
    eyes = DISTANCE * up / np.linalg.norm(up, axis=-1, keepdims=True)
    focal = FOCAL * size
    cameras = make_cameras(look_at(eyes, np.zeros(3), np.array([0.0, 0, 1])), [focal, focal, size / 2, size / 2], (size, size))
    y, x = (np.mgrid[: size * n_samples, : size * n_samples] + 0.5) / n_samples
    pictures = []
    for view in range(n_views):
        origins, directions = cameras.rays(view, np.stack([x.ravel(), y.ravel()], -1))
        nearest = -(origins * directions).sum(-1)
        hit = radius**2 - (origins**2).sum(-1) + nearest**2 > 0
        seen = np.where(hit[:, None], color, 1.0).reshape(size, n_samples, size, n_samples, 3).mean((1, 3))
        pictures.append(np.rint(255 * seen).astype(np.uint8))
    return cameras, np.stack(pictures)


def write_object(folder: Path, seed, **options) -> Path:
    cameras, pictures = ball_views(seed, **options)
    for name in ("rgb", "pose"):
        (folder / name).mkdir(parents=True)
    for i, (pose, picture) in enumerate(zip(cameras.camera_to_worlds, pictures, strict=True)):
        imageio.imwrite(folder / f"rgb/{i:06d}.png", picture)
        rows = np.concatenate([pose, [[0, 0, 0, 1]]])
        (folder / f"pose/{i:06d}.txt").write_text(" ".join(repr(float(value)) for value in rows.ravel()))
    focal, _, x, y = cameras.intrinsics[0]
    size = pictures.shape[1]
    (folder / "intrinsics.txt").write_text(f"{focal} {x} {y} 0.\n0. 0. 0.\n1.\n{size} {size}\n")
    return folder


def write_set(folder: Path, n_train=6, n_test=2, **options) -> Path:
    for split, seeds in (("train", range(n_train)), ("test", range(100, 100 + n_test))):
        for seed in seeds:
            write_object(folder / f"balls_{split}" / f"{seed:03d}", seed, **options)
    return folder
