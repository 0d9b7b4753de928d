"""Objects on a turntable, as in COIL-20 and COIL-100: <object>__<view>.png, a full turn in steps of five degrees.

The view is a number from 0 to 71 (COIL-20) or an angle in degrees (COIL-100, 0 to 355). Only the angle is known: pictures were
cropped and scaled to the object, so camera height, distance and focal length are lost. They are taken as level, and as a
field of view of 30 degrees that the object fills; the table as turning clockwise seen from above.

One object is one scene. A folder opens as its first object; a picture's own path opens the object that it shows.
"""

import re
from pathlib import Path

import numpy as np

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import image_size, list_images, natural_key
from taichi_nerf.scenes.source import Array, Source

STEP = 5.0  # degrees
FIELD_OF_VIEW = 30.0  # degrees, assumed
FEWEST = 8  # views that make a turn
NAME = re.compile(r"(.+)__(\d{1,3})\.png", re.IGNORECASE)


def fits(path: Path) -> str:
    """Eight pictures or more of one object, and all pictures named like that."""
    try:
        objects = find_objects(path if path.is_dir() else path.parent)
    except OSError:
        return ""
    views = max((len(views) for views in objects.values()), default=0)
    if views < FEWEST or (path.is_file() and not NAME.fullmatch(path.name)):
        return ""
    return "<object>__<view>.png"


def find_objects(folder: Path) -> dict[str, dict[int, Path]]:
    """object → view number → picture, in natural order; empty if some picture is named otherwise."""
    objects: dict[str, dict[int, Path]] = {}
    for file in list_images(folder):
        found = NAME.fullmatch(file.name)
        if found is None:
            return {}
        objects.setdefault(found[1], {})[int(found[2])] = file
    return dict(sorted(objects.items(), key=lambda item: natural_key(item[0])))


def read(path: Path, allow_outside: bool) -> Source:
    objects = find_objects(path if path.is_dir() else path.parent)
    shown = NAME.fullmatch(path.name)
    name = shown[1] if shown and path.is_file() else next(iter(objects))
    views = dict(sorted(objects[name].items()))
    numbers = np.array(list(views))
    in_degrees = numbers.max() >= 360 / STEP
    angles = numbers.astype(float) if in_degrees else STEP * numbers
    if angles.max() >= 360:
        raise SceneError(path, f"view {numbers.max()} of {name} is no part of a turn: expected 0 to 71, or degrees below 360")
    files = list(views.values())
    sizes = np.array([image_size(file) for file in files], np.int64)
    focal = sizes.max(-1) / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    intrinsics = np.stack([focal, focal, sizes[:, 0] / 2, sizes[:, 1] / 2], -1)
    notes = [
        f"object {name}, {len(files)} views; view is {'degrees' if in_degrees else f'steps of {STEP:g} degrees'}",
        f"camera height, distance and field of view are not known: taken as level, and {FIELD_OF_VIEW:g} degrees",
    ]
    if len(objects) > 1:
        others = ", ".join(list(objects)[:4])
        notes.append(f"{len(objects)} objects in this folder ({others}, …): open a picture to get the object that it shows")
    return Source(
        kind="turntable",
        folder=path if path.is_dir() else path.parent,
        names=[file.name for file in files],
        cameras=make_cameras(around(angles), intrinsics, sizes),
        image_files=files,
        notes=notes,
    )


def around(angles: Array) -> Array:
    """[n, 3, 4] level cameras that look at the origin, y up, from a distance at which the unit ball fills the field of view."""
    a = np.radians(angles)
    outward = np.stack([np.sin(a), np.zeros_like(a), np.cos(a)], -1)
    down = np.broadcast_to([0.0, -1, 0], outward.shape)
    right = np.cross(down, -outward)
    distance = 1 / np.sin(np.radians(FIELD_OF_VIEW) / 2)
    return np.stack([right, down, -outward, distance * outward], -1)
