"""What a transforms.json says beside its frames: bounds, depth maps, sparse points, and what is not used."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import MODELS
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, matrix, number
from taichi_nerf.scenes.ply import read_ply
from taichi_nerf.scenes.source import Array, DepthFiles, Points
from taichi_nerf.scenes.transform_frames import Views

NGP_SCALE, NGP_OFFSET = 0.33, 0.5
UNUSED = {
    "rolling_shutter": "rolling shutter is not modelled",
    "white_transparent": "white pixels are not made transparent",
    "black_transparent": "black pixels are not made transparent",
    "envmap": "the environment map is not used",
    "n_extra_learnable_dims": "learned values per picture are not used",
}


def reach_of(data: dict[str, Any], file: Path) -> float | None:
    reach = data.get("aabb_scale")
    return None if reach is None else number(reach, file, "aabb_scale", 1e-3, 1e6)


def bounds(data: dict[str, Any], file: Path, has_alpha: bool) -> tuple[Array | None, bool, list[str]]:
    """The box in the file's coordinates where it states one, whether there is a surrounding, and why."""
    reach = reach_of(data, file)
    box, notes = _box(data, file, reach)
    if reach is not None:
        unbounded = reach > 1
        why = f"aabb_scale {reach:g}"
    else:
        unbounded = not has_alpha and box is None
        why = (
            "pictures have alpha" if has_alpha else "the file states its bounds" if box is not None else "pictures have no alpha"
        )
    notes.append(f"a capture with a surrounding ({why})" if unbounded else f"an object on nothing ({why})")
    return box, unbounded, notes


def _box(data: dict[str, Any], file: Path, reach: float | None) -> tuple[Array | None, list[str]]:
    if data.get("aabb") is not None:
        corners = matrix(data["aabb"], (2, 3), file, "aabb")
        box = np.stack([corners.min(0), corners.max(0)])
        if (box[1] - box[0]).max() < 1e-9:
            raise SceneError(file, "expected two different corners", "aabb")
        return box, ["bounds from aabb"]
    stated = data.get("scale") is not None or data.get("offset") is not None
    if not stated and (reach is None or reach > 1):
        return None, []
    scale = NGP_SCALE if data.get("scale") is None else number(data["scale"], file, "scale", 1e-6, 1e6)
    offset = data.get("offset", NGP_OFFSET)
    if isinstance(offset, list):
        shift = matrix(offset, (3,), file, "offset")
    else:
        shift = np.full(3, NGP_OFFSET if offset is None else number(offset, file, "offset"))
    return (np.array([[0.0] * 3, [1.0] * 3]) - shift) / scale, ["bounds are instant-ngp's unit cube"]


def depths(data: dict[str, Any], file: Path, views: Views) -> tuple[DepthFiles | None, list[str]]:
    """Depth maps along the optical axis, and their unit."""
    files = [view.depth for view in views.found]
    given = sum(found is not None for found in files)
    if not given:
        return None, []
    for name in ("integer_depth_scale", "depth_unit_scale_factor"):
        if data.get(name) is not None:
            unit, why = number(data[name], file, name, 1e-12, 1e6), name
            break
    else:
        unit, why = 0.001, "millimetres, as nerfstudio writes them"
    return DepthFiles(files, unit, "z"), [f"{given} depth maps, one count is {unit:g} ({why})"]


def points(data: dict[str, Any], file: Path, views: Views) -> tuple[Points | None, list[str], list[str]]:
    """nerfstudio's sparse points, notes and warnings."""
    notes = [f"{name}: the poses are read as they stand" for name in ("applied_transform", "applied_scale") if name in data]
    name = data.get("ply_file_path")
    if name is None:
        return None, notes, []
    if not isinstance(name, str) or not name:
        raise SceneError(file, "expected the name of a file", "ply_file_path")
    ply = inside(views.folder, name, views.allow_outside, f"{file}: ply_file_path")
    if not ply.is_file():
        return None, notes, [f"the sparse points {name!r} do not exist"]
    positions, colors = read_ply(ply)
    if not len(positions):
        return None, notes, [f"the sparse points {name!r} are none"]
    share = seen_share(views, positions)
    warnings = [] if share > 0.5 else [f"cameras see only {share:.0%} of the points in {name!r}: another coordinate system?"]
    return Points.without_tracks(positions, colors), [*notes, f"{len(positions)} points from {name}"], warnings


def seen_share(views: Views, positions: Array) -> float:
    """The share of some points that at least one of some cameras sees."""
    cameras = views.cameras
    some = positions[:: max(1, len(positions) // 500)]
    seen = np.zeros(len(some), bool)
    for camera in range(0, len(cameras), max(1, len(cameras) // 50)):
        with np.errstate(all="ignore"):
            pixels, depth = cameras.project(camera, some)
            seen |= (
                (pixels >= 0).all(-1)
                & (pixels <= cameras.sizes[camera]).all(-1)
                & ((depth > 0) | (views.found[camera].lens.model > 1))
            )
    return float(seen.mean())


def lens_notes(views: Views) -> list[str]:
    """Which lens models the frames have, and whether they bend."""
    cameras = views.cameras
    kinds = ", ".join(MODELS[model] for model in np.unique(cameras.models))
    bent = int(cameras.distortion.any(-1).sum())
    n_lenses = len(np.unique(np.concatenate([cameras.intrinsics, cameras.distortion], -1), axis=0))
    which = "one lens" if n_lenses == 1 else f"{n_lenses} lenses"
    return [f"{which}: {kinds}; " + (f"distortion kept for {bent} of {len(cameras)} views" if bent else "no distortion")]


def unused(data: dict[str, Any], views: Views) -> list[str]:
    found = [why for name, why in UNUSED.items() if data.get(name) not in (None, False, 0)]
    images = [view.image for view in views.found]
    for pattern, why in (("dynamic_mask_{}.png", "instant-ngp's dynamic masks"), ("rays_{}.dat", "instant-ngp's ray files")):
        if any(os.path.isfile(image.parent / pattern.format(image.stem)) for image in images):
            found.append(f"{why} lie beside the pictures and are not used")
    return found
