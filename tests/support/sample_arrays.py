"""A small scene of the form of tiny_nerf_data.npz."""

from pathlib import Path

import numpy as np

from opengl_views import ring


def make(folder: Path, n=4, focal=20.0, dtype=np.float32, **changes) -> list:
    """Writes the scene; the poses come back."""
    poses = ring(n)
    images = np.random.default_rng(0).uniform(0, 1, (n, 8, 12, 3))
    images = np.rint(images * 255).astype(dtype) if np.issubdtype(dtype, np.integer) else images.astype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "tiny.npz", **{"images": images, "poses": np.stack(poses), "focal": np.array(focal), **changes})
    return poses
