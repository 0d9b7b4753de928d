"""mip-NeRF's multiscale scenes: every rendering at full, half, quarter and eighth size, and which pixel counts how much.

metadata.json    {"train": {…}, "val": {…}, "test": {…}}, each a table of lists that run in parallel:
  file_path      the picture, RGBA, from the folder on
  cam2world      camera to world, x right, y up, z backward
  width, height, focal, label     pixels; the label is the level, 0 for full size
  pix2cam        the inverse of the camera matrix, [[1/fx, 0, -cx/fx], [0, -1/fy, cy/fy], [0, 0, -1]]
  near, far      along rays
  lossmult       4^label: a pixel stands for so many of full size
"""

from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import make_cameras, opengl_to_opencv
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, matrix, number, pose, read_json
from taichi_nerf.scenes.images import image_size
from taichi_nerf.scenes.source import Array, Source, counted
from taichi_nerf.scenes.transform_frames import name_of
from taichi_nerf.scenes.transform_lenses import LARGEST_SIDE, ratio_to_stated

SPLITS = ("train", "val", "test")
NEEDED = ("file_path", "cam2world", "width", "height", "focal")
OPTIONAL = ("pix2cam", "near", "far", "lossmult", "label")


def fits(folder: Path) -> str:
    """metadata.json with tables of file_path and cam2world."""
    file = folder / "metadata.json"
    if not folder.is_dir() or not file.is_file():
        return ""
    try:
        data = read_json(file)
    except SceneError:
        return ""
    tables = [table for split in SPLITS if isinstance(table := data.get(split), dict)]
    return "metadata.json" if any("file_path" in table and "cam2world" in table for table in tables) else ""


def read(folder: Path, allow_outside: bool) -> Source:
    file = folder / "metadata.json"
    data = read_json(file)
    rows: list[dict[str, Any]] = []
    splits: dict[str, list[int]] = {}
    missing: list[str] = []
    repeated: list[str] = []
    seen: set[Path] = set()
    for split in SPLITS:
        for row in _rows(data.get(split), file, split):
            row["image"] = inside(folder, row["file_path"], allow_outside, f"{file}: {row['where']}.file_path")
            key = row["image"].resolve()
            if not row["image"].is_file():
                missing.append(row["file_path"])
            elif key in seen:
                repeated.append(row["file_path"])
            else:
                seen.add(key)
                splits.setdefault(split, []).append(len(rows))
                rows.append(_read_row(row, file))
    if not rows:
        why = f"none of its {len(missing)} pictures exists, the first is {missing[0]!r}" if missing else "has no pictures"
        raise SceneError(file, why)
    near, far = _bounds(rows, file)
    sizes = np.stack([row["size"] for row in rows])
    levels = np.unique(sizes, axis=0)[::-1]
    notes = [
        "pictures at " + ", ".join(f"{w} x {h}" for w, h in levels[:8]) + (" and more" if len(levels) > 8 else ""),
        "weights of pixels are the file's lossmult" if "lossmult" in rows[0] else "all pixels weigh the same: no lossmult",
        *sorted({row["note"] for row in rows if row["note"]})[:3],
    ]
    lists = ((missing, "pictures are skipped: they do not exist"), (repeated, "pictures are skipped: they are listed twice"))
    return Source(
        kind="multiscale",
        folder=folder,
        names=[name_of(row["image"], folder) for row in rows],
        cameras=make_cameras(np.stack([row["pose"] for row in rows]), np.stack([row["intrinsics"] for row in rows]), sizes),
        image_files=[row["image"] for row in rows],
        splits={split: np.array(index, np.int64) for split, index in splits.items()},
        weights=np.array([row.get("lossmult", 1.0) for row in rows]),
        near_far=None if near is None or far is None else (near, far),
        notes=notes,
        warnings=counted(*lists),
    )


def _rows(table: Any, file: Path, split: str) -> list[dict[str, Any]]:
    """The lists of a split's table, as rows."""
    if table is None:
        return []
    if not isinstance(table, dict):
        raise SceneError(file, "expected an object of lists", split)
    names = [*NEEDED, *(name for name in OPTIONAL if name in table)]
    for name in names:
        if not isinstance(table.get(name), list):
            raise SceneError(file, "expected a list", f"{split}.{name}")
        if len(table[name]) != len(table["file_path"]):
            here, there = len(table[name]), len(table["file_path"])
            raise SceneError(file, f"has {here} entries for {there} pictures", f"{split}.{name}")
    rows = [
        {"where": f"{split}[{i}]", **dict(zip(names, values, strict=True))}
        for i, values in enumerate(zip(*(table[name] for name in names), strict=True))
    ]
    for row in rows:
        if not isinstance(row["file_path"], str) or not row["file_path"]:
            raise SceneError(file, "expected the name of a picture", f"{row['where']}.file_path")
    return rows


def _read_row(row: dict[str, Any], file: Path) -> dict[str, Any]:
    """The row with its numbers checked, and its camera for the picture as it is."""
    where, size = row["where"], image_size(row["image"])
    stated = [number(row[name], file, f"{where}.{name}", 1, LARGEST_SIDE) for name in ("width", "height")]
    ratio = ratio_to_stated(size, stated, file, f"{where}.width")
    note = "" if (ratio == 1).all() else "pictures are not of the size that the file states: intrinsics are scaled"
    row.update(
        size=size,
        note=note,
        pose=opengl_to_opencv(pose(row["cam2world"], file, f"{where}.cam2world")[None])[0],
        intrinsics=_intrinsics(row, file, stated) * np.tile(ratio, 2),
    )
    for name in ("near", "far", "lossmult"):
        if name in row:
            row[name] = number(row[name], file, f"{where}.{name}", 0, 1e9)
    return row


def _intrinsics(row: dict[str, Any], file: Path, stated: list[float]) -> Array:
    focal = number(row["focal"], file, f"{row['where']}.focal", 1e-6)
    if "pix2cam" not in row:
        return np.array([focal, focal, stated[0] / 2, stated[1] / 2])
    inverse = matrix(row["pix2cam"], (3, 3), file, f"{row['where']}.pix2cam")
    form = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]])
    if inverse[0, 0] <= 1e-9 or inverse[1, 1] >= -1e-9 or inverse[2, 2] != -1 or (inverse[form == 0] != 0).any():
        raise SceneError(file, "expected [[1/fx, 0, -cx/fx], [0, -1/fy, cy/fy], [0, 0, -1]]", f"{row['where']}.pix2cam")
    fx, fy = 1 / inverse[0, 0], -1 / inverse[1, 1]
    if max(abs(fx / focal - 1), abs(fy / focal - 1)) > 0.01:
        raise SceneError(file, f"focal {focal:g} disagrees with pix2cam, which says {fx:g} and {fy:g}", row["where"])
    return np.array([fx, fy, -inverse[0, 2] * fx, inverse[1, 2] * fy])


def _bounds(rows: list[dict[str, Any]], file: Path) -> tuple[float | None, float | None]:
    if not all("near" in row and "far" in row for row in rows):
        return None, None
    near, far = min(row["near"] for row in rows), max(row["far"] for row in rows)
    if not 0 <= near < far:
        raise SceneError(file, f"expected near < far, got {near:g} and {far:g}", "near")
    return near, far
