"""RGB-D sequences as 7-Scenes and 3DMatch have them; those of TUM's benchmark are read by `rgbd_tum`,
ScanNet's by `rgbd_scannet`.

    frame-000000.color.png (or .jpg)    pictures
    frame-000000.depth.png              16 bits, millimetres along the optical axis; 0 and 65535 are not measured
    frame-000000.pose.txt               4 x 4 camera to world, metres, x right, y down, z forward; not finite where lost
    camera-intrinsics.txt               3 x 3, for the pictures' pixels (3DMatch); without it 7-Scenes' f 585 and center 320, 240

either in the folder itself or in its folders seq-01, seq-02, …, which share one world. TrainSplit.txt and TestSplit.txt, lines
like "sequence1", are then the scene's own splits. 7-Scenes' depth maps are not registered to its pictures: some pixels apart.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes import rgbd_scannet, rgbd_tum
from taichi_nerf.scenes.camera_matrices import fit_to_pictures, pinhole
from taichi_nerf.scenes.depth_points import points_of_depths
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, matrix, number, pose, read_text
from taichi_nerf.scenes.images import image_size, natural_key
from taichi_nerf.scenes.source import Array, DepthFiles, Source, counted
from taichi_nerf.scenes.transform_lenses import ratio_to_stated

INTRINSICS_FILE = "camera-intrinsics.txt"
PUBLISHED = np.array([585.0, 585.0, 320.0, 240.0])  # 7-Scenes, for 640 x 480
POSE, DEPTH, COLORS = ".pose.txt", ".depth.png", (".color.png", ".color.jpg", ".color.jpeg")
SPLIT_FILES = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
MILLIMETRE = 0.001
NOT_MEASURED = 65535.0  # zero never is


class Frame(NamedTuple):
    name: str
    sequence: str
    image: Path
    depth: Path | None
    pose: Array


def fits(folder: Path) -> str:
    """frame-….pose.txt in the folder or in its folders seq-…; or the three lists of TUM's benchmark; or ScanNet's folders."""
    if not folder.is_dir():
        return ""
    if _first_pose(folder):
        return f"frame-…{POSE} and color"
    sequences = [place for place in _sequences(folder) if _first_pose(place)]
    if sequences:
        return f"sequences {', '.join(place.name for place in sequences[:4])}"
    return rgbd_tum.fits(folder) or rgbd_scannet.fits(folder)


def _first_pose(folder: Path) -> Path | None:
    return next(folder.glob(f"frame-*{POSE}"), None)


def _sequences(folder: Path) -> list[Path]:
    found = [place for place in folder.glob("seq-*") if place.is_dir()]
    return sorted(found, key=lambda place: natural_key(place.name))


def read(folder: Path, allow_outside: bool) -> Source:
    for other in (rgbd_tum, rgbd_scannet):
        if not _first_pose(folder) and not _sequences(folder) and other.fits(folder):
            return other.read(folder, allow_outside)
    places = [folder] if _first_pose(folder) else _sequences(folder)
    frames, warnings = _frames(folder, places, allow_outside)
    if not frames:
        raise SceneError(folder, f"no frame has a picture (frame-000000{COLORS[0]}) and a pose (frame-000000{POSE})")
    sizes = np.array([image_size(frame.image) for frame in frames], np.int64)
    intrinsics, notes, odd = _intrinsics(folder, sizes)
    cameras = make_cameras(np.stack([frame.pose for frame in frames]), intrinsics, sizes)
    depths = [frame.depth for frame in frames]
    depth = DepthFiles(depths, MILLIMETRE, "z", NOT_MEASURED) if any(depths) else None
    images = [frame.image for frame in frames]
    splits, split_notes = _splits(folder, [frame.sequence for frame in frames])
    return Source(
        kind="rgbd",
        folder=folder,
        names=[frame.name for frame in frames],
        cameras=cameras,
        image_files=images,
        splits=splits,
        depth=depth,
        points=points_of_depths(cameras, images, depth) if depth else None,
        unbounded=True,
        notes=[*notes, "depth in millimetres, 0 and 65535 not measured; lengths are metres", *split_notes],
        warnings=[*warnings, *odd],
    )


def _frames(folder: Path, places: list[Path], allow_outside: bool) -> tuple[list[Frame], list[str]]:
    """Frames that have a picture and a pose, in natural order, and what is missing."""
    frames: list[Frame] = []
    pictureless, lost, without_depth, poseless = [], [], [], []
    for place in places:
        there = {file.name for file in place.iterdir()}
        stems = sorted((name.removesuffix(POSE) for name in there if name.endswith(POSE)), key=natural_key)
        poseless += sorted(name for name in there if name.endswith(COLORS) and name.rsplit(".color.", 1)[0] + POSE not in there)
        for stem in stems:
            at = place.relative_to(folder) / stem
            image = next((stem + color for color in COLORS if stem + color in there), None)
            if image is None:
                pictureless.append(str(at))
                continue
            found = _read_pose(inside(folder, f"{at}{POSE}", allow_outside))
            if found is None:
                lost.append(str(at))
                continue
            depth = inside(folder, f"{at}{DEPTH}", allow_outside) if stem + DEPTH in there else None
            without_depth += [str(at)] if depth is None else []
            name = (place.relative_to(folder) / image).as_posix()
            frames.append(Frame(name, place.name, inside(folder, name, allow_outside), depth, found))
    lists = (
        (pictureless, "poses are skipped: they have no picture"),
        (poseless, "pictures are skipped: they have no pose"),
        (lost, "frames are skipped: tracking was lost, their poses are not finite"),
        (without_depth if len(without_depth) < len(frames) else [], "frames have no depth map"),
    )
    return frames, counted(*lists)


def _read_pose(file: Path) -> Array | None:
    """[3, 4]; None for a lost frame."""
    words = _words(file, 16)
    try:
        if not np.isfinite(np.array(words[:12], np.float64)).any():
            return None
    except (ValueError, OverflowError):
        pass  # `number` says what is wrong
    return pose(np.reshape([number(word, file, f"number {i + 1}") for i, word in enumerate(words)], (4, 4)), file, "pose")


def _words(file: Path, n: int) -> list[str]:
    text = read_text(file)
    words = text[:4096].split()
    if len(text) > 4096 or len(words) != n:
        raise SceneError(file, f"expected {n} numbers, got {len(words) if len(text) <= 4096 else 'a long text'}")
    return words


def _intrinsics(folder: Path, sizes: Array) -> tuple[Array, list[str], list[str]]:
    """[n, 4], notes and warnings."""
    file = inside(folder, INTRINSICS_FILE)
    if file.is_file():
        values = [number(word, file, f"number {i + 1}") for i, word in enumerate(_words(file, 9))]
        given = pinhole(matrix(np.reshape(values, (3, 3)), (3, 3), file, "camera matrix"), file, "camera matrix")
        fitted = fit_to_pictures(np.tile(given, (len(sizes), 1)), sizes, file)
        return fitted.intrinsics, [f"intrinsics from {INTRINSICS_FILE}", *fitted.notes], fitted.warnings
    ratios = np.stack([ratio_to_stated((int(w), int(h)), [640, 480], file, "absent, so 7-Scenes'") for w, h in sizes])
    note = f"no {INTRINSICS_FILE}: 7-Scenes' focal length of 585 pixels in pictures of 640 x 480 is assumed"
    return PUBLISHED * np.tile(ratios, (1, 2)), [note], []


def _splits(folder: Path, sequences: list[str]) -> tuple[dict[str, Array], list[str]]:
    """By sequences, where both files are there and name some that are there."""
    number_of = {name: int(digits[-1]) for name in set(sequences) if (digits := re.findall("[0-9]{1,9}", name))}
    splits: dict[str, Array] = {}
    for split, name in SPLIT_FILES.items():
        file = inside(folder, name)
        if not file.is_file():
            return {}, []
        wanted = {int(digits) for digits in re.findall("sequence *([0-9]{1,9})", read_text(file)[:100_000])}
        splits[split] = np.array([i for i, sequence in enumerate(sequences) if number_of.get(sequence) in wanted], np.int64)
    both = np.intersect1d(splits["train"], splits["test"])
    if len(both):
        raise SceneError(folder / SPLIT_FILES["test"], f"names sequences that {SPLIT_FILES['train']} names too")
    if not all(len(index) for index in splits.values()):
        return {}, ["TrainSplit.txt and TestSplit.txt name sequences that are not here: not used"]
    return splits, ["splits: by sequences, from TrainSplit.txt and TestSplit.txt"]
