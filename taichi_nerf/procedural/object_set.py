"""Sets of procedural objects in SRN's form, for priors that learn what a category has in common.

    <family>_<split>/<seed>/{rgb/000000.png, pose/000000.txt, intrinsics.txt}

Objects stand around the origin, on white, and cameras look at it from a distance of 2, as in SRN's chairs: near 1.25, far 2.75.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from taichi_nerf.cameras import Array, Cameras, make_cameras
from taichi_nerf.procedural.pictures import take_color
from taichi_nerf.scenes.procedural import describe, family_of
from taichi_nerf.scenes.procedural.cameras import look_at
from taichi_nerf.scenes.unfinished import unfinished_folder
from taichi_nerf.scenes.write_png import write_png

DISTANCE = 2.0
NEAR_FAR = (1.25, 2.75)
Report = Callable[[int, int], None]


class ObjectViews(NamedTuple):
    """Views of one object, in the set's coordinates."""

    cameras: Cameras
    pictures: Array  # [n, height, width, 3] bytes


def view_object(family: str, seed: int, n_views: int, size: int, n_samples: int = 2) -> ObjectViews:
    """Views from all around, between the family's lowest and highest elevation, evenly by area and at random."""
    chosen = family_of(family)
    if chosen.view != "orbit" or chosen.moves:
        raise ValueError(f"{family}: expected a family of things that stand still and are looked at from around")
    generator = np.random.default_rng([seed, 404])
    low, high = np.sin(chosen.elevations)
    height, azimuth = generator.uniform(low, high, n_views), generator.uniform(0, 2 * np.pi, n_views)
    level = np.sqrt(1 - height**2)
    eyes = np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, height], -1)
    return _take(family, seed, np.array([look_at(eye, (0, 0, 0)) for eye in eyes]), size, n_samples)


def _take(family: str, seed: int, poses: Array, size: int, n_samples: int) -> ObjectViews:
    """With cameras at distance 1 from the origin."""
    chosen, scene = family_of(family), describe(family, seed)
    focal = size / 2 / math.tan(chosen.field_of_view / 2)
    intrinsics, n = [focal, focal, size / 2, size / 2], len(poses)
    there, ours = poses.copy(), poses.copy()
    there[:, :, 3] = chosen.radius * poses[:, :, 3] + np.asarray(chosen.target)
    ours[:, :, 3] *= DISTANCE
    cameras = make_cameras(there, intrinsics, [size, size])
    pictures = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        color, opacity = take_color(scene, cameras, i, n_samples)
        pictures[i] = np.rint(255 * np.clip(color * opacity[..., None] + 1 - opacity[..., None], 0, 1))
    return ObjectViews(make_cameras(ours, intrinsics, [size, size]), pictures)


def make_object_set(
    families: Iterable[str],
    out_folder: Path | str,
    seeds: dict[str, range],  # of each split
    *,
    n_views: int = 12,
    size: int = 64,
    report: Report = lambda done, of: None,
) -> Path:
    """Write a set and return its folder, which must not exist, or be empty; it appears when it is complete."""
    jobs = [(split, family, seed) for split, numbers in seeds.items() for seed in numbers for family in families]
    if not jobs or not 1 <= n_views <= 10_000 or not 8 <= size <= 1024:
        raise ValueError("an object set needs families, seeds, 1 to 10,000 views and pictures of 8 to 1024 pixels")
    with unfinished_folder(Path(out_folder)) as unfinished:
        for done, (split, family, seed) in enumerate(jobs, 1):
            _write_object(unfinished / f"{family}_{split}" / f"{seed:05d}", view_object(family, seed, n_views, size))
            report(done, len(jobs))
    return Path(out_folder)


def _write_object(folder: Path, views: ObjectViews) -> None:
    for name in ("rgb", "pose"):
        (folder / name).mkdir(parents=True)
    for i, (pose, picture) in enumerate(zip(views.cameras.camera_to_worlds, views.pictures, strict=True)):
        rows = [*pose, np.array([0.0, 0, 0, 1])]
        (folder / f"pose/{i:06d}.txt").write_text(" ".join(repr(float(value)) for row in rows for value in row) + "\n")
        write_png(folder / f"rgb/{i:06d}.png", picture, compress_level=3)
    focal, _, x, y = views.cameras.intrinsics[0]
    width, height = views.cameras.sizes[0]
    text = f"{float(focal)!r} {float(x)!r} {float(y)!r} 0.\n0. 0. 0.\n1.\n{height} {width}\n"
    (folder / "intrinsics.txt").write_text(text)
