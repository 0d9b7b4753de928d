"""Where a COLMAP model is in a folder, and where its pictures are: by what the files hold, at most a few levels down."""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taichi_nerf.scenes.colmap_model import ColmapCamera, ColmapImage
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside
from taichi_nerf.scenes.images import EXTENSIONS, image_size

DEEPEST = 3  # levels below the scene's folder
MOST_FOLDERS = 2000
SMALLEST_IMAGE = 73  # bytes of an image's record
USUAL_NAMES = ("images", "input", "rgb", "")  # decides only between folders that fit equally well
MASK_NAMES = ("masks", "mask")  # folders whose files have the pictures' names and are no pictures


@dataclass(frozen=True)
class Place:
    """One model."""

    folder: Path
    extension: str  # ".bin" or ".txt"

    def named_from(self, scene: Path) -> str:
        inner = self.folder.relative_to(scene)
        return f"{inner / 'images'}{self.extension}"


def subfolders(scene: Path) -> list[Path]:
    """The folder and those in it, breadth first. Each place once, so that links in a circle end."""
    found, level, known = [scene], [scene], {scene.resolve()}
    for _ in range(DEEPEST):
        below: list[Path] = []
        for folder in level:
            for inner in folders_in(folder) if len(found) + len(below) < MOST_FOLDERS else []:
                if inner.resolve() not in known:
                    known.add(inner.resolve())
                    below.append(inner)
        found += below
        level = below
    return found[:MOST_FOLDERS]


def folders_in(folder: Path) -> list[Path]:
    """Its visible folders by name; none where it cannot be read."""
    names = [name for name in _names_in(folder) if not name.startswith(".")]
    return [folder / name for name in sorted(names) if os.path.isdir(folder / name)]  # False for links in a circle


def is_whole_below(scene: Path, places: list[Place]) -> bool:
    """Whether every model lies in an inner folder that has pictures of its own: those folders are scenes, not this one."""
    inner = {place.folder.relative_to(scene).parts[0] if place.folder != scene else "" for place in places}
    return "" not in inner and all(_has_pictures(scene / name) for name in inner)


def _has_pictures(scene: Path) -> bool:
    return any(Path(name).suffix.lower() in EXTENSIONS for folder in subfolders(scene) for name in _names_in(folder))


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def models_in(scene: Path) -> list[Place]:
    """Every model, cameras and images of the same kind side by side; binary before text."""
    if not scene.is_dir():
        return []
    folders = subfolders(scene)
    places = [Place(folder, extension) for folder in folders for extension in (".bin", ".txt")]
    return sorted((place for place in places if _is_model(place)), key=lambda place: place.extension)


def _is_model(place: Place) -> bool:
    cameras, images = (place.folder / f"{name}{place.extension}" for name in ("cameras", "images"))
    try:
        if not (cameras.is_file() and images.is_file()):
            return False
        if place.extension == ".bin":
            return True
        with cameras.open("rb") as opened:  # cameras.txt is a name that other formats use as well
            lines = opened.read(8192).decode("utf-8", "replace").splitlines()
    except OSError:
        return False
    records = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return any(len(fields) > 4 and fields[1].isupper() for fields in records[:1])


def largest_model(places: list[Place]) -> Place:
    """The one with most images; of equal ones the first."""
    return max(places, key=_n_images)  # max keeps the first of equals


def _n_images(place: Place) -> int:
    file = place.folder / f"images{place.extension}"
    try:
        if place.extension == ".bin":
            with file.open("rb") as opened:
                (n,) = struct.unpack("<Q", opened.read(8).ljust(8, b"\0"))
            return int(n) if n * SMALLEST_IMAGE <= file.stat().st_size else 0
        with file.open("rb") as opened:
            return sum(1 for line in opened if not line.startswith(b"#")) // 2
    except OSError:
        return 0


def picture_folder(scene: Path, place: Place, images: list[ColmapImage], cameras: dict[int, ColmapCamera]) -> tuple[Path, bool]:
    """The folder that a model's file names start from, and whether they differ in their endings (image.JPG, image.png).

    The one that holds most of them; of several, the one whose pictures are of the size that the model speaks of.
    """
    some = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, 50).astype(int))]
    candidates = [inner for inner in subfolders(scene) if inner == scene or inner.name.split("_")[0] not in MASK_NAMES]
    for other_endings in (False, True):
        scores = {
            folder: sum(find_picture(folder, image.name, other_endings) is not None for image in some) for folder in candidates
        }
        best = max(scores.values())
        if best:
            equal = [folder for folder in candidates if scores[folder] == best]
            return min(equal, key=lambda folder: _unfitness(folder, place, some, cameras, other_endings)), other_endings
    raise SceneError(
        place.folder / f"images{place.extension}",
        f"none of its {len(images)} pictures, the first of them {images[0].name!r}, is anywhere in {scene}; "
        "give the folder that holds both the model and the pictures",
    )


def _unfitness(
    folder: Path, place: Place, some: list[ColmapImage], cameras: dict[int, ColmapCamera], other_endings: bool
) -> tuple[float, int, int, str]:
    mismatch = 9.0
    for image in some:
        file = find_picture(folder, image.name, other_endings)
        if file is not None:
            try:
                camera = cameras[image.camera]
                mismatch = round(abs(math.log(max(image_size(file)) / max(camera.width, camera.height))), 2)
            except SceneError:
                mismatch = 8.0  # no picture after all
            break
    usual = USUAL_NAMES.index(folder.name) if folder.name in USUAL_NAMES else len(USUAL_NAMES)
    apart = len(os.path.relpath(folder, place.folder).split(os.sep))
    return mismatch, usual, apart, str(folder)


def find_picture(folder: Path, name: str, other_endings: bool = False) -> Path | None:
    """The file of an image if it is there: by its name or by its name with another ending."""
    try:
        if not other_endings:
            return folder / name if (folder / name).is_file() else None
        stem = (folder / name).with_suffix("")
        endings = [ending for lower in EXTENSIONS for ending in (lower, lower.upper())]
        return next((file for file in (stem.parent / (stem.name + ending) for ending in endings) if file.is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def inside_scene(scene: Path, file: Path, allow_outside: bool, named_in: Path) -> Path:
    """The file, refused where it leads out of the scene's folder."""
    try:
        relative = str(file.relative_to(scene))
    except ValueError:
        relative = str(file)
    return inside(scene, relative, allow_outside, named_in)
