"""DTU's scenes, and all that are laid out like them: IDR, NeuS, BlendedMVS as IDR has it, pixelNeRF's copy of DTU.

    cameras_sphere.npz, cameras.npz or cameras_large.npz    for each picture i
        world_mat_i     K [R | t], world to pixels, 4 x 4 or 3 x 4; of any scale and either sign
        scale_mat_i     maps the unit sphere that holds the object into the world; uniform scale and a translation
        camera_mat_i    pixels to [-1, 1], where it is there: it states the size of the pictures that K is for
    image/ (or rgb/, images/)    pictures in the order of i
    mask/ (or masks/)            what is not black is the object; optional

Poses stay in the file's world (millimetres in DTU), where its ground-truth scans are; the cube around the sphere becomes the
box, so scene units are the sphere's. Where `scale_mat` differs between pictures, the world is that of the first. Intrinsics are
scaled when pictures have another size than they are for; which that is, K's principal point tells where `camera_mat` is of
another size than the pictures: it is near the middle of those that K is for.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes.camera_matrices import OFF_CENTER, Fitted, decompose, fit_to_pictures, match_by_number, pinhole
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import array_names, inside, matrix, number, read_npz
from taichi_nerf.scenes.images import has_alpha, image_size, list_images
from taichi_nerf.scenes.source import Array, Source, counted
from taichi_nerf.scenes.transform_lenses import ratio_to_stated

CAMERA_FILES = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz")  # NeuS has a sphere and a larger one around it
IMAGE_FOLDERS, MASK_FOLDERS = ("image", "rgb", "images"), ("mask", "masks")


def fits(folder: Path) -> str:
    """A camera file with projections (not the rigid world_mat of DVR's ShapeNet renderings) beside a folder of pictures."""
    file = camera_file(folder) if folder.is_dir() else None
    images = first_folder(folder, IMAGE_FOLDERS)
    if file is None or images is None:
        return ""
    names = array_names(file)
    worlds = sorted(name for name in names if re.fullmatch("world_mat_[0-9]+", name))
    if not worlds or not (any(name.startswith("scale_mat_") for name in names) or not has_rigid_cameras(file, worlds[0])):
        return ""
    return f"{file.name} with world_mat, and {images.name}/"


def camera_file(folder: Path) -> Path | None:
    return next((file for name in CAMERA_FILES if (file := folder / name).is_file()), None)


def first_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((found for name in names if (found := folder / name).is_dir()), None)


def has_rigid_cameras(file: Path, name: str) -> bool:
    """Whether a matrix of the file is [R | t] without intrinsics."""
    try:
        left = matrix(read_npz(file)[name][:3, :3], (3, 3), file, name)
    except (SceneError, KeyError, IndexError):
        return False
    product = left @ left.T
    return bool(np.abs(product - product[0, 0] * np.eye(3)).max() < 1e-3 * abs(product[0, 0]))


def read(folder: Path, allow_outside: bool) -> Source:
    file = camera_file(folder)
    if file is None:
        raise SceneError(folder, f"expected one of {', '.join(CAMERA_FILES)}")
    arrays = read_npz(file)
    used, sizes, held = numbered_views(folder, arrays, file, IMAGE_FOLDERS, MASK_FOLDERS, allow_outside)
    taken_apart = [decompose(world_matrix(arrays, i, file), file, f"world_mat_{i}") for i in used]
    intrinsics = np.stack([pinhole(k, file, f"world_mat_{i}") for i, (k, _) in zip(used, taken_apart, strict=True)])
    fitted = _fit(intrinsics, sizes, arrays, used, file)
    poses = np.stack([pose for _, pose in taken_apart])
    poses, box, sphere_notes = _into_one_sphere(poses, arrays, used, file)
    bounded = held["mask_files"] is not None or has_alpha(held["image_files"])
    held["warnings"] = [*fitted.warnings, *held["warnings"]]
    return Source(
        kind="dtu",
        cameras=make_cameras(poses, fitted.intrinsics, sizes),
        box=box,
        unbounded=not bounded,
        notes=[
            *fitted.notes,
            *sphere_notes,
            "an object on nothing (there are masks)" if bounded else "a capture with a surrounding (there are no masks)",
        ],
        **held,
    )


def numbered_views(
    folder: Path, arrays: dict[str, Array], file: Path, images: tuple[str, ...], masks: tuple[str, ...], outside: bool
) -> tuple[list[int], Array, dict[str, Any]]:
    """The i of the file's cameras that have a picture, the pictures' sizes [n, 2], and what a `Source` holds of them."""
    numbers = numbered(arrays, "world_mat")
    if not numbers:
        raise SceneError(file, "expected arrays world_mat_0, world_mat_1, …", "world_mat")
    found, unused = pictures(folder, images, numbers, outside)
    if not found:
        raise SceneError(folder, f"no picture in {' or '.join(images)} belongs to a camera of {file.name}")
    hidden, _ = pictures(folder, masks, numbers, outside)
    used = sorted(found)
    missing = [f"world_mat_{i}" for i in numbers if i not in found]
    lists = ((missing, "cameras are skipped: they have no picture"), (unused, "pictures are skipped: they have no camera"))
    held = {"names": [found[i].relative_to(folder).as_posix() for i in used], "image_files": [found[i] for i in used]}
    held |= {"mask_files": [hidden.get(i) for i in used] if hidden else None, "warnings": counted(*lists)}
    return used, np.array([image_size(found[i]) for i in used], np.int64), {"folder": folder, **held}


def numbered(arrays: dict[str, Array], name: str) -> list[int]:
    """The i of all arrays name_i, as they are spelt without leading zeros."""
    found = [re.fullmatch(f"{name}_(0|[1-9][0-9]{{0,5}})", key) for key in arrays]
    return sorted(int(hit[1]) for hit in found if hit)


def world_matrix(arrays: dict[str, Array], i: int, file: Path) -> Array:
    """[3, 4], checked; the files have 4 x 4 or 3 x 4."""
    found = arrays[f"world_mat_{i}"]
    rows = 3 if found.shape == (3, 4) else 4
    return matrix(found, (rows, 4), file, f"world_mat_{i}")[:3]


def pictures(folder: Path, names: tuple[str, ...], numbers: list[int], outside: bool) -> tuple[dict[int, Path], list[str]]:
    """Pictures by the number of their camera, and the names of pictures that have none."""
    place = first_folder(folder, names)
    if place is None:
        return {}, []
    listed = list_images(place)
    matched = match_by_number(listed, numbers)
    unused = set(listed) - set(matched.values())
    relative = {i: picture.relative_to(folder).as_posix() for i, picture in matched.items()}
    return {i: inside(folder, name, outside) for i, name in relative.items()}, sorted(picture.name for picture in unused)


def _fit(intrinsics: Array, sizes: Array, arrays: dict[str, Array], used: list[int], file: Path) -> Fitted:
    """Scaled to the pictures' real size, from the size that camera_mat states or, without it, by the principal point."""
    stated = _stated_size(arrays, used[0], file)
    if stated is None:
        return fit_to_pictures(intrinsics, sizes, file)
    ratios = np.stack([ratio_to_stated((int(w), int(h)), stated, file, f"camera_mat_{used[0]}") for w, h in sizes])
    center = np.median(intrinsics[:, 2:], 0)
    off_stated, off_pictures = (np.abs(2 * center / size - 1).max() for size in (stated, np.median(sizes, 0)))
    if off_pictures <= OFF_CENTER < off_stated:  # pictures were made smaller, and world_mat with them, but not camera_mat
        told = f"camera_mat is for pictures of {stated[0]:g} x {stated[1]:g}, but world_mat for these: nothing is scaled"
        return Fitted(intrinsics, [told], [])
    note = f"intrinsics are for {stated[0]:g} x {stated[1]:g} by camera_mat: scaled by {ratios[0, 0]:.4g}"
    return Fitted(intrinsics * np.tile(ratios, (1, 2)), [note] if (ratios != 1).any() else [], [])


def _stated_size(arrays: dict[str, Array], i: int, file: Path) -> list[float] | None:
    """The size of the pictures whose pixels camera_mat maps to [-1, 1]; None where it maps something else."""
    found = arrays.get(f"camera_mat_{i}")
    if found is None or found.shape not in ((3, 3), (4, 4), (3, 4)) or found.dtype.kind not in "fiu":
        return None
    scale, offset = found[[0, 1], [0, 1]].astype(np.float64), found[:2, 2]
    if not (np.isfinite(found).all() and (np.abs(offset + 1) < 0.01).all() and (scale > 0).all() and (scale < 0.5).all()):
        return None
    return [number(round(2 / side), file, f"camera_mat_{i}", 1) for side in scale]  # the file may be in 32 bits


def _into_one_sphere(
    poses: Array, arrays: dict[str, Array], used: list[int], file: Path
) -> tuple[Array, Array | None, list[str]]:
    """Poses in the world of the first picture, the cube around the unit sphere there, and notes."""
    given = [i for i in used if f"scale_mat_{i}" in arrays]
    if not given:
        return poses, None, ["no scale_mat: bounds are guessed from the cameras"]
    if given != used:
        first = next(i for i in used if i not in given)
        raise SceneError(file, f"expected one for each picture or none, {len(used) - len(given)} lack", f"scale_mat_{first}")
    spheres = np.stack([_sphere(arrays[f"scale_mat_{i}"], file, f"scale_mat_{i}") for i in used])
    center, radius = spheres[0, :3], spheres[0, 3]
    notes = [f"bounds from scale_mat: a sphere of radius {radius:.5g}"]
    if np.abs(spheres - spheres[0]).max() > 1e-4 * radius:
        notes.append("scale_mat differs between pictures: cameras are moved into the world of the first")
        poses = poses.copy()
        poses[:, :, 3] = (poses[:, :, 3] - spheres[:, :3]) / spheres[:, 3:] * radius + center
    return poses, np.stack([center - radius, center + radius]), notes


def _sphere(scale_mat: Array, file: Path, field: str) -> Array:
    """Center and radius [4]."""
    found = matrix(scale_mat, (3 if scale_mat.shape == (3, 4) else 4, 4), file, field)
    radius = number(found[0, 0], file, field, 1e-9)
    if np.abs(found[:3, :3] - radius * np.eye(3)).max() > 1e-4 * radius:
        raise SceneError(file, "expected one scale for x, y and z and a translation", field)
    return np.array([*found[:3, 3], radius])
