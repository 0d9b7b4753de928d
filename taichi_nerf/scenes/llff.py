"""LLFF: poses_bounds.npy beside the pictures in images, images_4, images_8, …

poses_bounds.npy is [n, 17]: a 3 x 5 matrix by rows, then the nearest and farthest depth of the scene. The matrix' columns are
the camera's down, right and backward axes and its center in the world, then height, width and focal length in pixels of the
full-size picture, whose middle is the optical axis. Poses are in the lexicographic order of the pictures' names.

Such captures come from COLMAP, and the pictures keep the lens distortion that the poses file has no room for. Where COLMAP's
model is at hand and agrees with the poses, its lens and points are used (`llff_model.py`).
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import N_DISTORTION, PINHOLE, Cameras
from taichi_nerf.scenes.colmap_find import inside_scene
from taichi_nerf.scenes.colmap_model import Array
from taichi_nerf.scenes.colmap_views import View, on_picture
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import matrix, number, pose, read_npz
from taichi_nerf.scenes.images import EXTENSIONS, image_size
from taichi_nerf.scenes.lens import Lens, cameras_of
from taichi_nerf.scenes.llff_model import Companion, companion_of
from taichi_nerf.scenes.source import Source

POSES = "poses_bounds.npy"
NEAR_SLACK = 0.9  # the published bounds start at 0.9 of the nearest depth, which is a percentile
NDC_SLACK = 0.75  # and normalised device coordinates at 0.75 of it (`bd_factor`)
LARGEST_SIDE = 1e6  # pixels
LEAST_FORWARD = 0.1  # cosine between the mean viewing direction and any ray


def fits(folder: Path) -> str:
    return POSES if (folder / POSES).is_file() else ""


def read(folder: Path, allow_outside: bool) -> Source:
    file = folder / POSES
    table = _table(file)
    poses = np.stack([_pose(row, file, i) for i, row in enumerate(table)])
    lenses = [_lens(row, file, i) for i, row in enumerate(table)]
    pictures, others = _pictures(folder, len(table), lenses[0].size, file)
    pictures = [inside_scene(folder, picture, allow_outside, file) for picture in pictures]
    near_far, warnings = _bounds(table)
    companion = companion_of(folder, poses, lenses, table[:, 15:])
    views = [on_picture(view, file) for view in companion.views(pictures, poses, lenses)]
    cameras = cameras_of([view.pose for view in views], [view.lens for view in views])
    forward = is_forward_facing(cameras, near_far[0] if near_far else None)
    return Source(
        kind="llff",
        folder=folder,
        names=[picture.relative_to(folder).as_posix() for picture in pictures],
        cameras=cameras,
        image_files=pictures,
        points=companion.points(views),
        near_far=near_far,
        unbounded=True,
        forward_facing=forward,
        ndc_near=NDC_SLACK / NEAR_SLACK * near_far[0] if forward and near_far else None,
        notes=_notes(folder, views, others, near_far, forward, companion),
        warnings=warnings,
    )


def _table(file: Path) -> Array:
    """[n, 17]"""
    found = read_npz(file).get("")
    if found is None or found.ndim != 2 or found.shape[1] != 17 or found.dtype.kind not in "fiu":
        shape = "several arrays" if found is None else f"{found.dtype} of shape {found.shape}"
        raise SceneError(file, f"expected numbers of shape (n, 17), got {shape}")
    if not len(found):
        raise SceneError(file, "has no poses")
    return matrix(found, found.shape, file, "poses and bounds")


def _pose(row: Array, file: Path, i: int) -> Array:
    down, right, back, center, _ = row[:15].reshape(3, 5).T
    return pose(np.stack([right, down, -back, center], -1), file, f"pose {i}")


def _lens(row: Array, file: Path, i: int) -> Lens:
    sides = [
        round(number(side, file, f"pose {i}: {name}", 1, LARGEST_SIDE)) for name, side in (("width", row[9]), ("height", row[4]))
    ]
    focal = number(row[14], file, f"pose {i}: focal length", 1e-3)
    width, height = sides
    return Lens((width, height), np.array([focal, focal, width / 2, height / 2]), PINHOLE, np.zeros(N_DISTORTION))


def _pictures(folder: Path, n: int, size: tuple[int, int], file: Path) -> tuple[list[Path], list[str]]:
    """Of the folders with as many pictures as there are poses, those of the largest; and the names of the others."""
    found = {inner: _sorted_pictures(inner) for inner in [folder, *sorted(inner for inner in folder.iterdir() if inner.is_dir())]}
    fitting = {inner: pictures for inner, pictures in found.items() if len(pictures) == n}
    if not fitting:
        there = ", ".join(f"{inner.name} {len(pictures)}" for inner, pictures in found.items() if pictures) or "none"
        raise SceneError(
            file, f"has {n} poses, but no folder has as many pictures ({there}); which belong to which cannot be told"
        )
    ratios = {inner: image_size(pictures[0])[0] / size[0] for inner, pictures in fitting.items()}

    def unfitness(inner: Path) -> tuple[bool, float, str]:
        """Pictures by their usual name first: depth maps and masks may be as many."""
        return not inner.name.startswith("images"), round(abs(float(np.log(ratios[inner]))), 2), inner.name

    first, *rest = sorted(fitting, key=unfitness)
    return fitting[first], [inner.name for inner in rest if inner.name.startswith("images")]


def _sorted_pictures(folder: Path) -> list[Path]:
    """In the order of the poses: letter by letter, so that 10 comes before 9."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS and not file.name.startswith("."))
    except OSError:
        return []


def _bounds(table: Array) -> tuple[tuple[float, float] | None, list[str]]:
    near, far = float(table[:, 15].min()), float(table[:, 16].max())
    if near <= 0 or not (table[:, 15] < table[:, 16]).all():
        return None, [f"{POSES} has depth bounds that cannot be ({near:.4g} to {far:.4g}); they are ignored"]
    return (NEAR_SLACK * near, far), []


def is_forward_facing(cameras: Cameras, near: float | None) -> bool:
    """Whether all that the cameras see is in front of one plane: what normalised device coordinates need.

    Every ray through a corner goes forward, along the mean viewing direction, and no camera is ahead of the nearest depth.
    """
    axis = cameras.forwards.mean(0)
    length = float(np.linalg.norm(axis))
    if length < 0.5:
        return False
    axis /= length
    along = (cameras.centers - cameras.centers.mean(0)) @ axis
    if near is not None and along.max() - along.min() > near:
        return False
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    with np.errstate(all="ignore"):  # beyond a lens' reach there is no direction: NaN, which is not forward
        return all((cameras.rays(i, corners * cameras.sizes[i])[1] @ axis > LEAST_FORWARD).all() for i in range(len(cameras)))


def _notes(
    folder: Path, views: list[View], others: list[str], near_far: tuple[float, float] | None, forward: bool, companion: Companion
) -> list[str]:
    first = views[0]
    where = first.file.parent.relative_to(folder)
    size = " x ".join(map(str, first.lens.size))
    notes = [f"{len(views)} pictures in {where}, {size}: {first.scale[0]:.4g} of the poses' size"]
    if others:
        notes[0] += f" (as many are in {', '.join(others)})"
    if near_far:
        notes.append(
            f"near {near_far[0]:.4g} and far {near_far[1]:.4g} from the bounds: {NEAR_SLACK} of the nearest, and the farthest"
        )
    facing = "all cameras face one way" + ("" if not near_far else f": NDC begin at {NDC_SLACK} of the nearest bound")
    facing = facing if forward else "not forward-facing: the cameras look around or in from all sides"
    return [*notes, facing, *companion.notes]
