"""Pixels that a lens has no direction for: beyond where its distortion folds back they would be learnt in wrong places."""

import numpy as np

from taichi_nerf.cameras import FISHEYE, OPENCV, Cameras

MOST_LENSES = 64  # that are looked at
GRID = 32  # pixels across and down


def out_of_reach(names: list[str], cameras: Cameras) -> list[str]:
    """Warnings."""
    first, same = cameras.lenses()
    bent = np.flatnonzero(np.isin(cameras.models[first], (OPENCV, FISHEYE)))
    at = (np.arange(GRID) + 0.5) / GRID
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    lost = {}
    for lens in bent[:MOST_LENSES]:
        view = int(first[lens])
        with np.errstate(all="ignore"):
            share = float(np.isnan(cameras.rays(view, grid * cameras.sizes[view])[1]).any(-1).mean())
        if share:
            lost[lens] = share
    if not lost:
        return []
    n_views, first_view = np.isin(same, list(lost)).sum(), names[min(first[lens] for lens in lost)]
    return [
        f"the distortion of {n_views} views (the first is {first_view}) folds back inside their pictures: up to "
        f"{max(lost.values()):.0%} of the pixels have no direction and will be learnt in wrong places; calibrate with fewer "
        "coefficients, or mask them"
    ]
