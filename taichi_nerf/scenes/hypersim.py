"""Scenes of Hypersim, photorealistic rooms with exact depth, as the dataset is distributed. Needs h5py (the extra `hypersim`).

    _detail/metadata_scene.csv                              "meters_per_asset_unit,0.0254"
    _detail/cam_00/camera_keyframe_orientations.hdf5        [n, 3, 3] camera to world, x right, y up, z backward
    _detail/cam_00/camera_keyframe_positions.hdf5           [n, 3] in asset units
    _detail/cam_00/camera_keyframe_frame_indices.hdf5       [n] numbers of the frames; 0, 1, … where it is absent
    images/scene_cam_00_final_preview/frame.0000.tonemap.jpg        tone-mapped pictures, or, where a scene has none,
    images/scene_cam_00_final_hdf5/frame.0000.color.hdf5            [h, w, 3] linear, not tone-mapped
    images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5  [h, w] metres along the ray, not the axis; NaN at no surface

Lengths become metres. The field of view is the dataset's 60 degrees across; a few of its scenes have tilted lenses, which their
folders do not say. Frames that the publishers withheld have poses and no pictures.
"""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from taichi_nerf.cameras import make_cameras, opengl_to_opencv
from taichi_nerf.scenes.depth_points import points_of_depths
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, matrix, number, pose, read_text
from taichi_nerf.scenes.hdf5 import read_hdf5
from taichi_nerf.scenes.images import image_size, natural_key
from taichi_nerf.scenes.source import Array, DepthFiles, Source

FIELD_OF_VIEW = np.radians(60)
LARGEST_COUNT = 10**5  # of key frames
UNIT = "meters_per_asset_unit"


class Frame(NamedTuple):
    name: str
    picture: Path | None  # tone-mapped
    linear: Path | None
    depth: Path | None
    pose: Array


def fits(folder: Path) -> str:
    """_detail/cam_… with key frames."""
    cameras = _cameras(folder)
    return f"_detail with key frames of {', '.join(camera.name for camera in cameras[:4])}" if cameras else ""


def _cameras(folder: Path) -> list[Path]:
    found = [file.parent for file in folder.glob("_detail/cam_*/camera_keyframe_positions.hdf5")] if folder.is_dir() else []
    return sorted(found, key=lambda camera: natural_key(camera.name))


def read(folder: Path, allow_outside: bool) -> Source:
    unit = _metres_per_unit(folder)
    frames = [frame for camera in _cameras(folder) for frame in _frames(folder, camera.name, unit, allow_outside)]
    linear = not any(frame.picture for frame in frames)
    shown = [(frame, image) for frame in frames if (image := frame.linear if linear else frame.picture) is not None]
    if not shown:
        raise SceneError(folder, f"none of its {len(frames)} key frames has a picture (images/scene_cam_00_final_preview)")
    images = [image for _, image in shown]
    sizes = np.array([image_size(image) for image in images], np.int64)
    focal = sizes[:, :1] / 2 / np.tan(FIELD_OF_VIEW / 2)
    cameras = make_cameras(np.stack([frame.pose for frame, _ in shown]), np.concatenate([focal, focal, sizes / 2], -1), sizes)
    depths = [frame.depth for frame, _ in shown]
    depth = DepthFiles(depths, 1.0, "ray") if any(depths) else None
    missing = [frame.name for frame in frames if (frame.linear if linear else frame.picture) is None]
    without_depth = sum(file is None for file in depths) if depth else 0
    return Source(
        kind="hypersim",
        folder=folder,
        names=[frame.name for frame, _ in shown],
        cameras=cameras,
        image_files=images,
        depth=depth,
        points=points_of_depths(cameras, images, depth) if depth else None,
        unbounded=True,
        linear=linear,
        notes=[
            f"one asset unit is {unit:g} metres; lengths are metres, depths are along rays",
            "field of view 60 degrees across, as published",
            "pictures are linear, not tone-mapped" if linear else "pictures are the tone-mapped previews",
        ],
        warnings=[
            *([f"{len(missing)} key frames are skipped: they have no picture (the first is {missing[0]})"] if missing else []),
            *([f"{without_depth} frames have no depth map"] if without_depth else []),
        ],
    )


def _metres_per_unit(folder: Path) -> float:
    file = inside(folder, "_detail/metadata_scene.csv")
    text = read_text(file)
    try:
        rows = list(csv.reader(io.StringIO(text[:100_000])))
    except csv.Error as error:
        raise SceneError(file, f"is no readable table: {error}") from None
    value = next((row[1] for row in rows if len(row) > 1 and row[0].strip() == UNIT), None)
    if value is None:
        raise SceneError(file, "expected a line of that name and a number", UNIT)
    return number(value, file, UNIT, 1e-6, 1e6)


def _frames(folder: Path, camera: str, unit: float, allow_outside: bool) -> list[Frame]:
    """The key frames of one camera, whether they have pictures or not."""

    def table(name: str) -> Path:
        return inside(folder, f"_detail/{camera}/camera_keyframe_{name}.hdf5", allow_outside)

    positions, orientations = read_hdf5(table("positions")), read_hdf5(table("orientations"))
    n = len(positions) if positions.ndim else 0
    if not n <= LARGEST_COUNT:
        raise SceneError(table("positions"), f"has {n} key frames, more than any trajectory")
    positions = matrix(positions, (n, 3), table("positions"), "dataset") * unit
    orientations = matrix(orientations, (n, 3, 3), table("orientations"), "dataset")
    indices = _indices(table("frame_indices"), n)
    there = {name: _numbered(folder, camera, place, ending, allow_outside) for name, (place, ending) in FILES.items()}
    frames = []
    for i, index in enumerate(indices):
        opengl = np.concatenate([orientations[i], positions[i][:, None]], -1)
        found = opengl_to_opencv(pose(opengl, table("orientations"), f"dataset[{i}]")[None])[0]
        picture, linear, depth = (there[name].get(index) for name in FILES)
        frames.append(Frame(f"{camera}/frame.{index:04d}", picture, linear, depth, found))
    return frames


FILES = {
    "picture": ("final_preview", ".tonemap.jpg"),
    "linear": ("final_hdf5", ".color.hdf5"),
    "depth": ("geometry_hdf5", ".depth_meters.hdf5"),
}


def _indices(file: Path, n: int) -> list[int]:
    """Frame numbers of the key frames, all different."""
    if not file.is_file():
        return list(range(n))
    found = read_hdf5(file).reshape(-1)
    if len(found) != n or not ((found >= 0) & (found < 10**9) & (found == np.floor(found))).all() or len(np.unique(found)) != n:
        raise SceneError(file, f"expected {n} different frame numbers, one a key frame", "dataset")
    return [int(index) for index in found]


def _numbered(folder: Path, camera: str, place: str, ending: str, allow_outside: bool) -> dict[int, Path]:
    """frame.0000<ending> of one of a camera's folders, by number."""
    parent = folder / "images" / f"scene_{camera}_{place}"
    names = [file.name for file in parent.iterdir()] if parent.is_dir() else []
    hits = [re.fullmatch(rf"frame\.([0-9]{{1,9}}){re.escape(ending)}", name) for name in names]
    return {int(hit[1]): inside(folder, f"images/{parent.name}/{hit[0]}", allow_outside) for hit in hits if hit}
