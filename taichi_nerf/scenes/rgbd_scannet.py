"""RGB-D sequences as ScanNet's exporter writes them.

    color/0.jpg                        pictures
    depth/0.png                        16 bits, millimetres along the optical axis; 0 is not measured
    pose/0.txt                         4 x 4 camera to world, metres, x right, y down, z forward; not finite where lost
    intrinsic/intrinsic_color.txt      4 x 4, for the pictures; those of the depth maps (intrinsic_depth.txt) see the same

Depth maps are smaller than the pictures and registered to them. Some tools write one intrinsic.txt, or leave the folder out.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes.camera_matrices import fit_to_pictures, pinhole
from taichi_nerf.scenes.depth_points import points_of_depths
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, matrix, number, pose, read_text
from taichi_nerf.scenes.images import image_size, list_images
from taichi_nerf.scenes.source import Array, DepthFiles, Source

COLORS, DEPTHS, POSES = "color", "depth", "pose"
INTRINSICS = ("intrinsic/intrinsic_color.txt", "intrinsic/intrinsic.txt", "intrinsic_color.txt", "intrinsic.txt")
MILLIMETRE = 0.001
LONGEST = 4096  # letters of a matrix


def fits(folder: Path) -> str:
    """The folders color and pose, and the intrinsics of the color pictures."""
    file = _intrinsics_file(folder)
    return f"color, pose and {file}" if file and all((folder / name).is_dir() for name in (COLORS, POSES)) else ""


def _intrinsics_file(folder: Path) -> str:
    return next((name for name in INTRINSICS if (folder / name).is_file()), "")


def read(folder: Path, allow_outside: bool) -> Source:
    pictures = [inside(folder, f"{COLORS}/{picture.name}", allow_outside) for picture in list_images(folder / COLORS)]
    named = {f"{POSES}/{picture.stem}.txt": picture for picture in pictures}
    posed = {picture: inside(folder, name, allow_outside) for name, picture in named.items() if (folder / name).is_file()}
    poses = {picture: _pose(file) for picture, file in posed.items()}
    used = [picture for picture in pictures if poses.get(picture) is not None]
    if not used:
        raise SceneError(folder, f"none of the {len(pictures)} pictures in {COLORS} has a pose of its name in {POSES}")
    sizes = np.array([image_size(picture) for picture in used], np.int64)
    file = inside(folder, _intrinsics_file(folder), allow_outside)
    values = _matrix(file)[:3, :3]
    fitted = fit_to_pictures(np.tile(pinhole(values, file, "camera matrix"), (len(used), 1)), sizes, file)
    cameras = make_cameras(
        np.stack([found for picture in used if (found := poses[picture]) is not None]), fitted.intrinsics, sizes
    )
    depths = [_depth(folder, picture, allow_outside) for picture in used]
    depth = DepthFiles(depths, MILLIMETRE, "z") if any(depths) else None
    depthless = sum(found is None for found in depths) if depth else 0
    counted = (
        (len(pictures) - len(posed), "pictures are skipped: they have no pose"),
        (len(posed) - len(used), "frames are skipped: tracking was lost, their poses are not finite"),
        (depthless, "frames have no depth map"),
    )
    return Source(
        kind="rgbd",
        folder=folder,
        names=[f"{COLORS}/{picture.name}" for picture in used],
        cameras=cameras,
        image_files=used,
        depth=depth,
        points=points_of_depths(cameras, used, depth) if depth else None,
        unbounded=True,
        notes=[f"intrinsics from {_intrinsics_file(folder)}", *fitted.notes, "depth in millimetres; lengths are metres"],
        warnings=[*(f"{n} {what}" for n, what in counted if n), *fitted.warnings],
    )


def _depth(folder: Path, picture: Path, allow_outside: bool) -> Path | None:
    name = f"{DEPTHS}/{picture.stem}.png"
    return inside(folder, name, allow_outside) if (folder / name).is_file() else None


def _words(file: Path) -> list[str]:
    text = read_text(file)
    words = text[:LONGEST].split()
    if len(text) > LONGEST or len(words) not in (9, 16):
        raise SceneError(file, f"expected 4 x 4 numbers, got {len(words) if len(text) <= LONGEST else 'a long text'}")
    return words


def _matrix(file: Path) -> Array:
    words = _words(file)
    side = 3 if len(words) == 9 else 4
    values = np.reshape([number(word, file, f"number {i + 1}") for i, word in enumerate(words)], (side, side))
    return matrix(values, (side, side), file, "matrix")


def _pose(file: Path) -> Array | None:
    """[3, 4]; None for a lost frame."""
    words = _words(file)
    if any(word.lower().lstrip("+-") in ("inf", "nan", "infinity") for word in words):
        return None
    return pose(_matrix(file), file, "pose")
