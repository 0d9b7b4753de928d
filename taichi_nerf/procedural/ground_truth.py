"""Truth about a made scene: exact depth from any camera, and points on its visible surface for Chamfer distances.

made = open_made("my_room")                        # family, seed and arrays, from what make_scene wrote
depth = take_picture(made.at(0.0), cameras, 3).depth
points = surface_points(made.at(0.0), 100_000, seen_by=cameras)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from taichi_nerf.cameras import Array, Cameras
from taichi_nerf.ops import procedural
from taichi_nerf.procedural.pictures import solids_of
from taichi_nerf.runtime import current
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import number, read_json
from taichi_nerf.scenes.procedural import FAMILIES, Description, describe, sample_surface

FILE = "procedural.json"  # in a made scene's folder
FORM = 1  # changes whenever the same seed would make another scene
SHORT = 1e-3  # of a point that rays from the cameras have to reach


@dataclass(frozen=True)
class Made:
    """What a folder was made from."""

    family: str
    seed: int

    def at(self, time: float = 0.0) -> Description:
        return describe(self.family, self.seed, time)


def open_made(folder: Path | str) -> Made:
    """Which scene make_scene wrote into a folder."""
    file = Path(folder) / FILE
    data = read_json(file)
    family = data.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise SceneError(file, f"expected one of {', '.join(FAMILIES)}", "family")
    if data.get("form") != FORM:
        raise SceneError(
            file, f"expected {FORM}, got {str(data.get('form'))[:20]!r}: made by another version; make it anew", "form"
        )
    return Made(family, int(number(data.get("seed"), file, "seed", 0, 2**31)))


def surface_points(scene: Description, n: int, seed: int = 0, seen_by: Cameras | None = None) -> Array:
    """Points [n, 3] spread evenly by area over the surface of the union of all shapes, within the scene's box.

    With cameras, over what at least one of them sees: what no camera saw, no method can reconstruct. Fewer than n points if
    that is next to nothing.
    """
    if seen_by is None:
        return sample_surface(scene, n, seed)[0]
    kept: list[Array] = []
    for attempt in range(40):
        points, _ = sample_surface(scene, n, seed * 40 + attempt)
        kept.append(points[visible(scene, points, seen_by)])
        if sum(map(len, kept)) >= n:
            break
    return np.concatenate(kept)[:n]


def visible(scene: Description, points: Array, cameras: Cameras) -> Array:
    """[n] whether a camera sees each point on the surface: within its picture, and nothing in between."""
    solids = solids_of(scene)
    found = np.zeros(len(points), bool)
    for camera in range(len(cameras)):
        rest = np.flatnonzero(~found)
        with np.errstate(all="ignore"):
            pixels, depth = cameras.project(camera, points[rest])
            rest = rest[(depth > 0) & (pixels >= 0).all(-1) & (pixels <= cameras.sizes[camera]).all(-1)]
        if not len(rest):
            continue
        towards = points[rest] - cameras.centers[camera]
        reach = np.linalg.norm(towards, axis=-1)
        towards /= reach[:, None]
        start, directions, far = (
            torch.from_numpy(np.ascontiguousarray(array)).float().to(current().torch_device)
            for array in (np.broadcast_to(cameras.centers[camera], towards.shape), towards, reach - SHORT)
        )
        hits = procedural.trace_rays(solids, start, directions, far, any_will_do=True)
        found[rest[(hits.shape < 0).cpu().numpy()]] = True
    return found
