"""A small LLFF scene: seven views that face one way, full size and halved."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

SIZE, FOCAL, N_VIEWS = (64, 48), 60.0, 7


def poses():
    """Camera to world, x right, y down, z forward: [n, 3, 4]."""
    found = np.zeros((N_VIEWS, 3, 4))
    for i, angle in enumerate(np.linspace(-0.1, 0.1, N_VIEWS)):
        c, s = np.cos(angle), np.sin(angle)
        found[i, :, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        found[i, :, 3] = [0.5 * i, 0.1 * i, 0]
    return found


def table(camera_to_worlds, bounds=(5.0, 40.0), size=SIZE, focal=FOCAL):
    """[n, 17] as the format has it: columns down, right, back, center, (height, width, focal)."""
    rows = []
    for pose in camera_to_worlds:
        right, down, forward, center = pose.T
        block = np.stack([down, right, -forward, center, [size[1], size[0], focal]], -1)
        rows.append(np.concatenate([block.ravel(), bounds]))
    return np.array(rows)


def write_images(folder: Path, size, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(N_VIEWS):
        picture = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        imageio.imwrite(folder / f"image{i:03d}.{ending}", picture)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "poses_bounds.npy", table(poses()))
    write_images(folder / "images", SIZE)
    write_images(folder / "images_2", (32, 24))
