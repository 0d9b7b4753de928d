"""MVSNet's training set: DTU's scans side by side, which share their cameras.

    Cameras/train/00000000_cam.txt             for the pictures of Rectified/scan…_train, at a quarter of their size
    Cameras/00000000_cam.txt                   for those of Rectified/scan… (1600 x 1200)
    Rectified/scan1_train/rect_001_3_r5000.png  view 1, which is camera 0, in light 3 of 0 to 6
    Depths/scan1_train/depth_map_0000.pfm      depths along the optical axis in millimetres, 0 where nothing was measured

A scene is one scan: its folder in Rectified, or the whole set where that has only one. One light is read: the third where it is
there, which is the one that is validated on, else the first that is.
"""

import re
from pathlib import Path
from typing import NamedTuple

from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside
from taichi_nerf.scenes.images import list_images

CAMERAS, PICTURES, DEPTHS = "Cameras", "Rectified", "Depths"
PICTURE = re.compile(r"rect_([0-9]{3})_([0-9a-z]{1,8})_r[0-9]{1,6}")
CAMERA = re.compile(r"([0-9]{8})_cam\.txt")
USUAL_LIGHT = "3"


class Scan(NamedTuple):
    """Files by the camera's name of eight digits."""

    cameras: dict[str, Path]
    pictures: dict[str, Path]
    depth_maps: dict[str, Path]
    notes: list[str]


def fits(folder: Path) -> str:
    """A scan's folder in Rectified with Cameras beside that, or the folder that holds both."""
    scans = [folder] if _is_scan(folder) else _scans(folder)
    if not scans:
        return ""
    return f"{CAMERAS}/…_cam.txt and {PICTURES}/{scans[0].name if len(scans) == 1 else '…'}/rect_…_r5000.png"


def open_scan(folder: Path, allow_outside: bool) -> Scan:
    scans = [folder] if _is_scan(folder) else _scans(folder)
    if len(scans) > 1:
        named = ", ".join(scan.name for scan in scans[:8])
        raise SceneError(folder, f"holds {len(scans)} scans; name the folder of one of them in {PICTURES}: {named}")
    scan = scans[0].resolve()
    root = scan.parents[1]
    inner = f"{CAMERAS}/train" if scan.name.endswith("_train") and _cameras(root / CAMERAS / "train") else CAMERAS
    cameras = {name: inside(root, f"{inner}/{file.name}", allow_outside) for name, file in _cameras(root / inner).items()}
    lights: dict[str, dict[str, Path]] = {}
    for picture in list_images(scan):
        if parts := PICTURE.fullmatch(picture.stem):
            name = f"{int(parts[1]) - 1:08d}"
            lights.setdefault(parts[2], {})[name] = inside(root, picture.relative_to(root).as_posix(), allow_outside)
    light = USUAL_LIGHT if USUAL_LIGHT in lights else min(lights)
    depth_maps = {}
    for name in lights[light]:
        place = f"{DEPTHS}/{scan.name}/depth_map_{name[-4:]}.pfm"
        if (root / place).is_file():
            depth_maps[name] = inside(root, place, allow_outside)
    notes = [f"scan {scan.name}, light {light} of {', '.join(sorted(lights))}; cameras from {inner}"]
    return Scan(cameras, lights[light], depth_maps, notes)


def _is_scan(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    root = folder.resolve().parent.parent
    has_cameras = bool(_cameras(root / CAMERAS) or _cameras(root / CAMERAS / "train"))
    return has_cameras and any(PICTURE.fullmatch(picture.stem) for picture in list_images(folder))


def _scans(root: Path) -> list[Path]:
    place = root / PICTURES
    if not place.is_dir() or not (root / CAMERAS).is_dir():
        return []
    return [scan for scan in sorted(place.iterdir()) if _is_scan(scan)]


def _cameras(place: Path) -> dict[str, Path]:
    if not place.is_dir():
        return {}
    return {parts[1]: file for file in sorted(place.iterdir()) if (parts := CAMERA.fullmatch(file.name))}
