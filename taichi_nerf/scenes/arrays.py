"""One .npz with pictures, poses and focal length, as tiny_nerf_data.npz has them: the path of the file, or of its folder.

    images   [n, height, width, 3 or 4], float from 0 to 1 or uint8
    poses    [n, 4, 4] or [n, 3, 4] camera to world, x right, y up, z backward
    focal    pixels: one number, fx and fy, or one for each picture

The pictures stay in memory in the type they have (64-bit floats become 32-bit ones); the principal point is in the middle.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import make_cameras, opengl_to_opencv
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import array_names, number, pose, read_npz
from taichi_nerf.scenes.source import Array, Source

NEEDED = ("images", "poses", "focal")
LARGEST_COUNT = 10**6


def fits(folder: Path) -> str:
    """An .npz with images, poses and focal."""
    file = _file(folder)
    return "" if file is None else f"{file.name} with {', '.join(NEEDED)}"


def _file(path: Path) -> Path | None:
    candidates = sorted(path.glob("*.npz"))[:32] if path.is_dir() else [path] if path.suffix.lower() == ".npz" else []
    return next((file for file in candidates if file.is_file() and array_names(file) >= set(NEEDED)), None)


def read(folder: Path, allow_outside: bool) -> Source:
    file = _file(folder)
    if file is None:
        raise SceneError(folder, f"expected an .npz with {', '.join(NEEDED)}")
    arrays = read_npz(file)
    images = _images(arrays["images"], file)
    n, height, width = images.shape[:3]
    poses = arrays["poses"]
    if poses.ndim != 3 or len(poses) != n or poses.dtype.kind not in "fiu":
        raise SceneError(file, f"expected {n} matrices, one a picture, got {poses.dtype} of shape {poses.shape}", "poses")
    matrices = np.stack([pose(matrix, file, f"poses[{i}]") for i, matrix in enumerate(poses)])
    focal = _focal(arrays["focal"], n, file)
    intrinsics = np.concatenate([focal, np.tile([width / 2, height / 2], (n, 1))], -1)
    unused = sorted(arrays.keys() - set(NEEDED))
    return Source(
        kind="arrays",
        folder=folder if folder.is_dir() else folder.parent,
        names=[f"{i:04d}" for i in range(n)],
        cameras=make_cameras(opengl_to_opencv(matrices), intrinsics, (width, height)),
        image_files=[file] * n,
        arrays=list(images),
        notes=[f"{n} pictures of {width} x {height} as {images.dtype}, in memory", "poses are read as x right, y up, z backward"],
        warnings=[f"arrays that are not used: {', '.join(unused)[:200]}"] if unused else [],
    )


def _images(images: Array, file: Path) -> Array:
    """Checked, in a type that pictures have."""
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or images.size == 0 or len(images) > LARGEST_COUNT:
        raise SceneError(file, f"expected n x height x width x 3, got shape {images.shape}", "images")
    if images.dtype in (np.uint8, np.uint16):
        return images
    if images.dtype not in (np.float16, np.float32, np.float64):
        raise SceneError(file, f"expected uint8 or floats from 0 to 1, got {images.dtype}", "images")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails this too
        raise SceneError(file, f"expected floats from 0 to 1, got {low:g} to {high:g}; divide bytes by 255", "images")
    return images.astype(np.float16 if images.dtype == np.float16 else np.float32, copy=False)


def _focal(focal: Array, n: int, file: Path) -> Array:
    """[n, 2] fx and fy."""
    if focal.dtype.kind not in "fiu" or focal.shape not in ((), (1,), (2,), (n,), (n, 1), (n, 2)):
        raise SceneError(file, f"expected one number, two, or one a picture, got {focal.dtype} of shape {focal.shape}", "focal")
    for value in focal.ravel():
        number(value, file, "focal", 1e-6)
    values = focal.astype(np.float64)
    if focal.shape == (n,) and n != 2:
        values = values[:, None]
    return np.broadcast_to(values, (n, 2)).copy()
