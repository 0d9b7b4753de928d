"""NSVF's scenes (Synthetic-NSVF, and its copies of NeRF-synthetic, BlendedMVS, Tanks and Temples).

    bbox.txt          min x y z, max x y z, and the size of a voxel
    intrinsics.txt    (or intrinsic.txt) one of
                        a 3 x 3 or 4 x 4 camera matrix
                        "f cx cy 0." in the first line, SRN's form; a last line of two numbers is height and width
    rgb/*.png         pictures, alpha where the background is nothing
    pose/*.txt        4 x 4 camera to world, x right, y down, z forward, named as its picture
    extrinsic/*.txt   the same, world to camera; where both are there this one is read, as NSVF does

A name that begins with 0_ is of the training views. Where some begin with 2_, those are the test and 1_ the validation views, as
in the synthetic sets; else 1_ are the test views, as in the real ones. Other names leave the splits open.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import invert_poses, make_cameras
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, matrix, number, pose, read_text
from taichi_nerf.scenes.images import image_size, list_images
from taichi_nerf.scenes.source import Array, Source, counted
from taichi_nerf.scenes.transform_lenses import ratio_to_stated

LARGEST_TABLE = 256  # numbers in a text file of a camera


def fits(folder: Path) -> str:
    """bbox.txt, intrinsics.txt and the folders rgb and pose, or extrinsic."""
    if not folder.is_dir() or _intrinsics_file(folder) is None:
        return ""
    poses = _pose_folder(folder)
    return f"bbox.txt, rgb and {poses}" if poses and (folder / "bbox.txt").is_file() and (folder / "rgb").is_dir() else ""


def _pose_folder(folder: Path) -> str:
    return next((name for name in ("extrinsic", "pose") if (folder / name).is_dir()), "")


def _intrinsics_file(folder: Path) -> Path | None:
    return next((file for name in ("intrinsics.txt", "intrinsic.txt") if (file := folder / name).is_file()), None)


def read(folder: Path, allow_outside: bool) -> Source:
    place = _pose_folder(folder) or "pose"
    by_pose, missing, unposed = pairs(folder, place, allow_outside)
    images = list(by_pose.values())
    file = _intrinsics_file(folder) or folder / "intrinsics.txt"
    lines = number_lines(file)
    sizes = np.array([image_size(image) for image in images], np.int64)
    intrinsics, stated = camera_matrix(lines, file)
    notes: list[str] = []
    if stated is None:
        intrinsics = np.tile(intrinsics, (len(sizes), 1))
        _check_center(intrinsics[0], sizes[0], file)
    else:
        ratios = [ratio_to_stated((int(w), int(h)), list(stated), file, "height and width") for w, h in sizes]
        intrinsics = intrinsics * np.tile(ratios, (1, 2))
        if (sizes != stated).any():
            notes.append(f"intrinsics for {stated[0]:g} x {stated[1]:g} scaled to the pictures")
    poses = np.stack([_read_pose(folder / place / f"{image.stem}.txt") for image in images])
    if place == "extrinsic":
        poses = invert_poses(poses)
        notes.append("poses from extrinsic: world to camera")
    splits, rule = splits_by_prefix([image.name for image in images])
    lists = (
        (missing, "poses are skipped: rgb has no picture of their name"),
        (unposed, "pictures are skipped: they have no pose"),
    )
    return Source(
        kind="nsvf",
        folder=folder,
        names=[f"rgb/{image.name}" for image in images],
        cameras=make_cameras(poses, intrinsics, sizes),
        image_files=images,
        splits=splits,
        box=_box(folder / "bbox.txt"),
        notes=[f"splits: {rule}", "bounds from bbox.txt", *notes],
        warnings=counted(*lists),
    )


def pairs(folder: Path, place: str, allow_outside: bool) -> tuple[dict[str, Path], list[str], list[str]]:
    """Pictures in rgb by the name of their pose, poses without a picture, pictures without a pose."""
    images: dict[str, Path] = {}
    for picture in list_images(folder / "rgb"):
        if picture.stem in images:
            raise SceneError(folder / "rgb", f"has two pictures for one pose: {images[picture.stem].name} and {picture.name}")
        images[picture.stem] = inside(folder, f"rgb/{picture.name}", allow_outside)
    poses = {file.stem for file in (folder / place).iterdir() if file.suffix == ".txt" and not file.name.startswith(".")}
    both = {stem: image for stem, image in images.items() if stem in poses}
    if not both:
        raise SceneError(folder, f"no picture in rgb has a pose of its name in {place}", "rgb")
    return both, sorted(poses - images.keys()), [image.name for stem, image in images.items() if stem not in poses]


def number_lines(file: Path) -> list[list[float]]:
    """The numbers of a small text file, line by line; empty lines are left out."""
    text = read_text(file)
    if len(text) > 64 * LARGEST_TABLE:
        raise SceneError(file, f"expected a few numbers, got {len(text)} letters")
    lines = [line.split() for line in text.splitlines()]
    return [[number(word, file, f"line {i + 1}") for word in words] for i, words in enumerate(lines) if words]


def camera_matrix(lines: list[list[float]], file: Path) -> tuple[Array, Array | None]:
    """fx, fy, cx, cy, and the width and height that they are for where the file says."""
    lengths = {len(line) for line in lines}
    stated = None
    if lengths in ({3}, {4}) and len(lines) in (3, 4):
        found = np.array([[*row[:3]] for row in lines[:3]])
        if abs(found[0, 1]) > 1e-6 * abs(found[0, 0]) or found[1, 0] != 0 or (found[2] != [0, 0, 1]).any():
            raise SceneError(file, "expected a camera matrix without skew: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        intrinsics = np.array([found[0, 0], found[1, 1], found[0, 2], found[1, 2]])
    elif lengths == {16} or lengths == {9}:
        side = int(len(lines[0]) ** 0.5)
        return camera_matrix([lines[0][i : i + side] for i in range(0, side * side, side)], file)
    elif lines and len(lines[0]) in (3, 4):
        intrinsics = np.array([lines[0][0], lines[0][0], *lines[0][1:3]])
        if len(lines) > 1 and len(lines[-1]) == 2:
            stated = np.array([number(side, file, f"line {len(lines)}", 1, 1e6) for side in lines[-1][::-1]])
    else:
        raise SceneError(file, 'expected a 3 x 3 or 4 x 4 camera matrix, or "f cx cy 0." in the first line')
    if (intrinsics[:2] < 1e-6).any():
        raise SceneError(file, f"expected positive focal lengths, got {intrinsics[0]:g} and {intrinsics[1]:g}")
    return intrinsics, stated


def _check_center(intrinsics: Array, size: Array, file: Path) -> None:
    """Pictures that were made smaller, with intrinsics that were not, give themselves away."""
    if (intrinsics[2:] < 0).any() or (intrinsics[2:] > size).any():
        center = f"{intrinsics[2]:g}, {intrinsics[3]:g}"
        message = (
            f"has the principal point ({center}) outside of pictures of {size[0]} x {size[1]}; scale it as the pictures were"
        )
        raise SceneError(file, message)


def _read_pose(file: Path) -> Array:
    """4 x 4 or 3 x 4 numbers, broken into lines in any way."""
    values = [value for line in number_lines(file) for value in line]
    if len(values) not in (12, 16):
        raise SceneError(file, f"expected 4 x 4 numbers, got {len(values)}")
    return pose(np.array(values).reshape(-1, 4), file, "pose")


def _box(file: Path) -> Array:
    values = [value for line in number_lines(file) for value in line]
    if len(values) < 6:
        raise SceneError(file, f"expected min x y z, max x y z and the size of a voxel, got {len(values)} numbers")
    box = matrix(np.reshape(values[:6], (2, 3)), (2, 3), file, "box")
    if (box[1] <= box[0]).any():
        raise SceneError(file, "expected a box whose second corner is beyond the first in x, y and z")
    return box


def splits_by_prefix(names: list[str]) -> tuple[dict[str, Array], str]:
    """The splits that names beginning with 0_, 1_, 2_ state, and the rule in words."""
    groups = {digit: np.array([i for i, name in enumerate(names) if name.startswith(f"{digit}_")], np.int64) for digit in "012"}
    named = {digit for digit, index in groups.items() if len(index)}
    if "0" not in named or len(named) < 2 or sum(len(index) for index in groups.values()) < len(names):
        return {}, "none stated by the pictures' names"
    rule = {"train": "0", "val": "1", "test": "2"} if "2" in named else {"train": "0", "test": "1"}
    spelt = ", ".join(f"{digit}_ {split}" for split, digit in rule.items() if digit in named)
    return {split: groups[digit] for split, digit in rule.items() if digit in named}, f"by the pictures' names: {spelt}"
