"""Objects of the sets that learned priors are trained on: one object's folder is a scene, and `list_objects` names all of a set.

    SRN (cars, chairs)    <category>_<split>/<object>/{rgb/*.png, pose/*.txt, intrinsics.txt}; white background
        pose              4 x 4 camera to world, x right, y down, z forward
        intrinsics.txt    "f cx cy 0.", …, last line height and width
    NMR (DVR's ShapeNet)  <category>/<object>/{image/*.png, mask/*.png, cameras.npz}; <category>/softras_<split>.lst names objects
        world_mat_i       [R | t] world to camera, x right, y down, z forward (world_mat_inv_i its inverse)
        camera_mat_i      focal length for a picture that reaches from -1 to 1
    several objects       …/<scene>/{transforms.json, *_obj.png}; RGBA, *_env.png is a background for them
        transforms.json   camera_angle_x, frames' transform_matrix camera to world, x right, y up, z backward

Near and far are pixelNeRF's where the cameras stand as in its sets. pixelNeRF turns all of these to cameras that look along -z,
and NMR's world by a right angle about x (its y is up); neither is needed here.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import Cameras, invert_poses, make_cameras
from taichi_nerf.scenes import nsvf, object_frames
from taichi_nerf.scenes.dtu import has_rigid_cameras, numbered_views, world_matrix
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import array_names, inside, matrix, number, pose, read_npz, read_text
from taichi_nerf.scenes.images import image_size
from taichi_nerf.scenes.object_lists import ObjectEntry, list_objects
from taichi_nerf.scenes.source import Array, Source, counted
from taichi_nerf.scenes.transform_lenses import ratio_to_stated

__all__ = ["ObjectEntry", "fits", "list_objects", "read"]

# pixelNeRF's near and far, by the distance of all cameras from the origin: SRN's cars and chairs, NMR.
PUBLISHED = {1.3: (0.8, 1.8), 2.0: (1.25, 2.75), 2.732: (1.2, 4.0)}


def fits(folder: Path) -> str:
    """One object of one of the sets."""
    if not folder.is_dir():
        return ""
    if (folder / "intrinsics.txt").is_file() and all((folder / name).is_dir() for name in ("rgb", "pose")):
        return "" if (folder / "bbox.txt").is_file() else "an object of SRN's sets: rgb, pose and intrinsics.txt"
    if object_frames.fits(folder):
        return "a scene of several objects: transforms.json and …_obj.png"
    file = folder / "cameras.npz"
    if not file.is_file() or not (folder / "image").is_dir():
        return ""
    names = array_names(file)
    known = {"world_mat_0", "camera_mat_0"} <= names and not any(name.startswith("scale_mat_") for name in names)
    return (
        "an object of NMR: image and cameras.npz with rigid cameras" if known and has_rigid_cameras(file, "world_mat_0") else ""
    )


def read(folder: Path, allow_outside: bool) -> Source:
    if (folder / "intrinsics.txt").is_file():
        return _read_srn(folder, allow_outside)
    if object_frames.fits(folder):
        return object_frames.read(folder, allow_outside)
    return _read_nmr(folder, allow_outside)


def _read_srn(folder: Path, allow_outside: bool) -> Source:
    images, missing, unposed = nsvf.pairs(folder, "pose", allow_outside)
    file = inside(folder, "intrinsics.txt", allow_outside)
    given, stated = nsvf.camera_matrix(nsvf.number_lines(file), file)
    sizes = np.array([image_size(image) for image in images.values()], np.int64)
    intrinsics = np.tile(given, (len(sizes), 1))
    notes = []
    if stated is not None:
        ratios = np.stack([ratio_to_stated((int(w), int(h)), list(stated), file, "height and width") for w, h in sizes])
        intrinsics = intrinsics * np.tile(ratios, (1, 2))
        notes += [f"intrinsics for {stated[0]:g} x {stated[1]:g} scaled to the pictures"] if (ratios != 1).any() else []
    poses = [_pose_of_text(inside(folder, f"pose/{stem}.txt", allow_outside)) for stem in images]
    cameras = make_cameras(np.stack(poses), intrinsics, sizes)
    near_far, why = _published(cameras)
    lists = ((missing, "poses are skipped: they have no picture"), (unposed, "pictures are skipped: they have no pose"))
    return Source(
        kind="object_sets",
        folder=folder,
        names=[f"rgb/{image.name}" for image in images.values()],
        cameras=cameras,
        image_files=list(images.values()),
        near_far=near_far,
        notes=[*notes, *why, "an object on white"],
        warnings=counted(*lists),
    )


def _pose_of_text(file: Path) -> Array:
    words = read_text(file)[:4096].split()
    if len(words) not in (12, 16):
        raise SceneError(file, f"expected 4 x 4 numbers, got {len(words)}")
    return pose(np.reshape([number(word, file, f"number {i + 1}") for i, word in enumerate(words)], (-1, 4)), file, "pose")


def _read_nmr(folder: Path, allow_outside: bool) -> Source:
    file = inside(folder, "cameras.npz", allow_outside)
    arrays = read_npz(file)
    used, sizes, held = numbered_views(folder, arrays, file, ("image",), ("mask",), allow_outside)
    poses = np.stack([_camera_to_world(arrays, i, file) for i in used])
    intrinsics = np.stack([_intrinsics(arrays, i, size, file) for i, size in zip(used, sizes, strict=True)])
    cameras = make_cameras(poses, intrinsics, sizes)
    near_far, why = _published(cameras)
    return Source(
        kind="object_sets",
        cameras=cameras,
        near_far=near_far,
        notes=[*why, "intrinsics are for pictures that reach from -1 to 1", "an object on nothing"],
        **held,
    )


def _camera_to_world(arrays: dict[str, Array], i: int, file: Path) -> Array:
    found = world_matrix(arrays, i, file)
    try:
        inverse = invert_poses(found[None])[0]
    except np.linalg.LinAlgError:
        raise SceneError(file, "its rotation part is singular", f"world_mat_{i}") from None
    return pose(inverse, file, f"world_mat_{i}")


def _intrinsics(arrays: dict[str, Array], i: int, size: Array, file: Path) -> Array:
    """In pixels, from camera_mat, whose picture reaches from -1 to 1 both ways."""
    name = f"camera_mat_{i}"
    if name not in arrays:
        raise SceneError(file, "expected the focal length for a picture from -1 to 1", name)
    shape = arrays[name].shape
    found = matrix(arrays[name], shape if shape in ((3, 3), (3, 4)) else (4, 4), file, name)[:3, :3]
    focal = [number(found[axis, axis], file, name, 1e-6) for axis in (0, 1)]
    if abs(found[0, 1]) > 1e-6 * focal[0] or found[1, 0] != 0 or (found[2] != [0, 0, 1]).any():
        raise SceneError(file, "expected a camera matrix without skew", name)
    return np.concatenate([np.array(focal) * size / 2, (found[:2, 2] + 1) * size / 2])


def _published(cameras: Cameras) -> tuple[tuple[float, float] | None, list[str]]:
    """pixelNeRF's near and far where all cameras stand at a distance that it knows and look at the origin."""
    radius = np.linalg.norm(cameras.centers, axis=-1)
    if (-(cameras.centers * cameras.forwards).sum(-1) > 0.95 * radius).all():
        for distance, near_far in PUBLISHED.items():
            if (np.abs(radius - distance) < 0.02 * distance).all():
                note = f"near {near_far[0]:g} and far {near_far[1]:g} as published for cameras at distance {distance:g}"
                return near_far, [note]
    return None, []
