"""All objects of a set, with their category and split: what a learned prior is trained over. No picture is opened.

    NMR, DVR     <category>/<prefix>_<split>.lst, a folder's name a line; softras, gen (unseen categories) or new (DTU)
    SRN          <category>_<split>/<object>/intrinsics.txt; also a level deeper (chairs_train/chairs_2.0_train)
    several      …/<split>/…/<scene>/transforms.json with …_obj.png

Splits and categories are in the names of files and folders only; where those say none, the split is "".
"""

import re
from pathlib import Path
from typing import NamedTuple

from taichi_nerf.scenes import object_frames
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, read_text
from taichi_nerf.scenes.images import natural_key

SPLITS = ("train", "val", "test")
PREFIXES = ("softras", "new", "gen")
LARGEST_COUNT = 10**6
DEEPEST = 3  # folders between the set and an object


class ObjectEntry(NamedTuple):
    category: str
    name: str
    folder: Path
    split: str


def list_objects(folder: Path, prefix: str = "", missing: list[str] | None = None) -> list[ObjectEntry]:
    """Every object of the set, by category, split and name. Of several kinds of lists `prefix` chooses one. Objects that lists
    name and that are not there are left out, and their names are added to `missing`."""
    if not folder.is_dir():
        raise SceneError(folder, "no such folder")
    missing = [] if missing is None else missing
    listed = _listed(folder, prefix, missing)
    if prefix and not listed and not missing:
        raise SceneError(folder, f"has no lists {prefix}_{'|'.join(SPLITS)}.lst", "prefix")
    entries = listed or _found(folder)
    if not entries:
        raise SceneError(folder, "holds no objects (softras_train.lst, <object>/intrinsics.txt, transforms.json with _obj.png)")
    order = {split: i for i, split in enumerate(SPLITS)}
    return sorted(entries, key=lambda entry: (entry.category, order.get(entry.split, len(order)), natural_key(entry.name)))


def _listed(folder: Path, prefix: str, missing: list[str]) -> list[ObjectEntry]:
    """From lists in the categories' folders, or in the folder itself if it is one category's."""
    for chosen in (prefix,) if prefix else PREFIXES:
        files = {split: sorted(folder.glob(f"*/{_plain(chosen)}_{split}.lst")) for split in SPLITS}
        files = files if any(files.values()) else {split: [folder / f"{_plain(chosen)}_{split}.lst"] for split in SPLITS}
        entries = [
            entry for split in SPLITS for file in files[split] if file.is_file() for entry in _read_list(file, split, missing)
        ]
        if entries:
            return entries
    return []


def _plain(prefix: str) -> str:
    if not re.fullmatch("[A-Za-z0-9.-]{1,64}", prefix):
        raise SceneError("list of objects", f"expected a prefix like softras, got {prefix[:64]!r}", "prefix")
    return prefix


def _read_list(file: Path, split: str, missing: list[str]) -> list[ObjectEntry]:
    names = list(dict.fromkeys(line.strip() for line in read_text(file).splitlines() if line.strip()))
    if len(names) > LARGEST_COUNT:
        raise SceneError(file, f"names {len(names)} objects, more than any set has")
    entries = []
    for name in names:
        place = inside(file.parent, name, False, file)
        if place.is_dir():
            entries.append(ObjectEntry(file.parent.name, name, place, split))
        else:
            missing.append(f"{file.parent.name}/{name}")
    return entries


def _found(folder: Path) -> list[ObjectEntry]:
    """Objects of SRN's kind and scenes of several objects, wherever they are up to some depth."""
    entries = []
    pending = [(folder, 0)]
    while pending:
        place, depth = pending.pop()
        if (place / "intrinsics.txt").is_file() or object_frames.fits(place):
            category, split = _category_and_split(folder, place)
            entries.append(ObjectEntry(category, place.name, place, split))
        elif depth < DEEPEST:
            pending += [(child, depth + 1) for child in place.iterdir() if child.is_dir() and not child.is_symlink()]
        if len(entries) + len(pending) > LARGEST_COUNT:
            raise SceneError(folder, f"holds more than {LARGEST_COUNT} folders")
    return entries


def _category_and_split(folder: Path, place: Path) -> tuple[str, str]:
    """From the nearest folder above the object, up to the set's own, that is called <category>_<split> or <split>."""
    above = [parent for parent in place.parents if parent.is_relative_to(folder)]
    for i, parent in enumerate(above):
        category, _, split = parent.resolve().name.rpartition("_")
        if split in SPLITS:
            outer = above[i + 1].resolve().name.rpartition("_") if i + 1 < len(above) else ("", "", "")
            if outer[2] == split and outer[0]:  # chairs_train/chairs_2.0_train
                category = outer[0]
            return category or folder.resolve().name, split
    return (above[0] if above else place).resolve().name, ""
