"""Sequences of TUM's RGB-D benchmark, and what is recorded in their form.

    rgb.txt            "timestamp rgb/1305031102.175304.png" a line, seconds; # begins a comment
    depth.txt          "timestamp depth/….png": 16 bits, 5000 counts a metre along the optical axis, 0 is not measured
    groundtruth.txt    "timestamp tx ty tz qx qy qz qw": camera to world, metres, x right, y down, z forward, at its own rate

Pictures, depth maps and poses are taken at different times: a picture goes with the depth map nearest to it, within 20 ms, and
with the pose interpolated between the two around it, if one is within 20 ms. Depth maps are registered to the pictures. No
file holds the lens; where rgb.txt's comment names the recording's camera (freiburg1, 2 or 3) its published calibration is
taken, else the nominal one. camera-intrinsics.txt, 3 x 3, goes before both. 0.5 is added to the published principal points,
which count from the middle of the first pixel.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.cameras import OPENCV, PINHOLE, make_cameras
from taichi_nerf.scenes.camera_matrices import fit_to_pictures, pinhole
from taichi_nerf.scenes.depth_points import points_of_depths
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, number, read_text
from taichi_nerf.scenes.images import image_size
from taichi_nerf.scenes.source import Array, DepthFiles, Source
from taichi_nerf.scenes.transform_lenses import ratio_to_stated

LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt")
COUNTS_PER_METRE = 5000
LARGEST_GAP = 0.02  # seconds
LONGEST_LINE = 4096

# fx, fy, cx, cy, then k1, k2, k3, p1, p2, for 640 x 480, as the benchmark publishes them.
NOMINAL = ((525.0, 525.0, 319.5, 239.5), (0.0, 0.0, 0.0, 0.0, 0.0))
CALIBRATED = {
    "freiburg1": ((517.306408, 516.469215, 318.643040, 255.313989), (0.262383, -0.953104, 1.163314, -0.005358, 0.002628)),
    "freiburg2": ((520.908620, 521.007327, 325.141442, 249.701764), (0.231222, -0.784899, 0.917205, -0.003257, -0.000105)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}


def fits(folder: Path) -> str:
    """rgb.txt and groundtruth.txt."""
    there = [name for name in LISTS if (folder / name).is_file()]
    return " and ".join(there) if {"rgb.txt", "groundtruth.txt"} <= set(there) else ""


def read(folder: Path, allow_outside: bool) -> Source:
    times, names = _listed(folder / "rgb.txt")
    poses, has_pose = _poses_at(times, folder / "groundtruth.txt")
    paths = [inside(folder, name, allow_outside, folder / "rgb.txt") for name in names]
    there = np.array([path.is_file() for path in paths], bool)
    used = np.flatnonzero(there & has_pose)
    if not len(used):
        raise SceneError(folder / "rgb.txt", f"none of its {len(names)} pictures is there and has a pose within 20 ms")
    images = [paths[i] for i in used]
    sizes = np.array([image_size(image) for image in images], np.int64)
    intrinsics, distortion, notes, odd = _lens(folder, sizes)
    model = OPENCV if any(distortion) else PINHOLE
    cameras = make_cameras(poses[used], intrinsics, sizes, model, distortion)
    depths, depthless = _depths_at(times[used], folder, allow_outside)
    depth = DepthFiles(depths, 1 / COUNTS_PER_METRE, "z") if any(depths) else None
    counted = (
        (int((~there).sum()), "pictures are skipped: they do not exist"),
        (int((there & ~has_pose).sum()), "pictures are skipped: no pose within 20 ms"),
        (depthless if depth else 0, "pictures have no depth map within 20 ms"),
    )
    return Source(
        kind="rgbd",
        folder=folder,
        names=[names[i] for i in used],
        cameras=cameras,
        image_files=images,
        depth=depth,
        points=points_of_depths(cameras, images, depth) if depth else None,
        unbounded=True,
        notes=[*notes, "poses interpolated at the pictures' times; depth: 5000 counts a metre; lengths are metres"],
        warnings=[*(f"{n} {what}" for n, what in counted if n), *odd],
    )


def _rows(file: Path) -> list[list[str]]:
    """Words of the lines that are no comments."""
    lines = read_text(file).replace("\0", " ").splitlines()
    if any(len(line) > LONGEST_LINE for line in lines):
        raise SceneError(file, "has a line of thousands of letters; expected a timestamp and a file's name, or a pose")
    return [line.replace(",", " ").split() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _listed(file: Path) -> tuple[Array, list[str]]:
    """Times [n], sorted, and file names."""
    found: dict[str, float] = {}
    for i, row in enumerate(_rows(file)):
        if len(row) != 2:
            raise SceneError(file, f"expected a timestamp and a file's name, got {' '.join(row)[:60]!r}", f"entry {i + 1}")
        found.setdefault(row[1], number(row[0], file, f"entry {i + 1}", 0, 1e12))
    order = sorted(found, key=lambda name: found[name])
    return np.array([found[name] for name in order], np.float64), order


def _poses_at(times: Array, file: Path) -> tuple[Array, Array]:
    """Poses [n, 3, 4] at some times, and which of them are known [n]."""
    rows = _rows(file)
    if not rows or any(len(row) != 8 for row in rows):
        raise SceneError(file, "expected lines of a timestamp, a position and a quaternion (timestamp tx ty tz qx qy qz qw)")
    table = np.array([[number(word, file, f"entry {i + 1}", -1e12, 1e12) for word in row] for i, row in enumerate(rows)])
    table = table[np.argsort(table[:, 0], kind="stable")]
    if (np.abs(table[:, 1:4]) > 1e6).any():
        raise SceneError(file, "has positions beyond a thousand kilometres")
    lengths = np.linalg.norm(table[:, 4:], axis=-1)
    if (np.abs(lengths - 1) > 0.05).any():
        raise SceneError(file, "expected quaternions of length 1", f"entry {int(np.argmax(np.abs(lengths - 1))) + 1} in time")
    after = np.clip(np.searchsorted(table[:, 0], times), 0, len(table) - 1)
    before = np.maximum(after - 1, 0)
    gaps = np.abs(np.stack([table[before, 0], table[after, 0]]) - times)
    span = table[after, 0] - table[before, 0]
    between = (span > 0) & (gaps.max(0) <= span) & (span <= 2 * LARGEST_GAP)
    weight = np.where(between, gaps[0] / np.where(span > 0, span, 1), gaps.argmin(0))[:, None]
    first, second = table[before, 4:] / lengths[before, None], table[after, 4:] / lengths[after, None]
    second = np.where(((first * second).sum(-1) < 0)[:, None], -second, second)  # q and -q are one rotation
    quaternions = (1 - weight) * first + weight * second
    positions = (1 - weight) * table[before, 1:4] + weight * table[after, 1:4]
    return np.concatenate([rotations(quaternions), positions[..., None]], -1), gaps.min(0) <= LARGEST_GAP


def rotations(quaternions: Array) -> Array:
    """[n, 3, 3] of quaternions x, y, z, w of any length."""
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)).T
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )


def _depths_at(times: Array, folder: Path, allow_outside: bool) -> tuple[list[Path | None], int]:
    """The depth map nearest to each time, and how many have none."""
    if not (folder / "depth.txt").is_file():
        return [None] * len(times), 0
    stamps, names = _listed(folder / "depth.txt")
    if not names:
        return [None] * len(times), len(times)
    after = np.clip(np.searchsorted(stamps, times), 0, len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(stamps[before] - times) < np.abs(stamps[after] - times), before, after)
    found: list[Path | None] = []
    for i, time in zip(nearest, times, strict=True):
        path = inside(folder, names[i], allow_outside, folder / "depth.txt")
        found.append(path if abs(stamps[i] - time) <= LARGEST_GAP and path.is_file() else None)
    return found, sum(path is None for path in found)


def _lens(folder: Path, sizes: Array) -> tuple[Array, list[float], list[str], list[str]]:
    """Intrinsics [n, 4], eight distortion coefficients, notes, warnings."""
    own = inside(folder, "camera-intrinsics.txt")
    if own.is_file():
        words = read_text(own)[:4096].split()
        if len(words) != 9:
            raise SceneError(own, f"expected 9 numbers, got {len(words)}")
        values = np.reshape([number(word, own, f"number {i + 1}") for i, word in enumerate(words)], (3, 3))
        fitted = fit_to_pictures(np.tile(pinhole(values, own, "camera matrix"), (len(sizes), 1)), sizes, own)
        return fitted.intrinsics, [0.0] * 8, [f"intrinsics from {own.name}", *fitted.notes], fitted.warnings
    comments = " ".join(line for line in read_text(folder / "rgb.txt")[:10_000].splitlines() if line.startswith("#"))
    camera = next((name for name in CALIBRATED if name in comments), None)
    (fx, fy, cx, cy), (k1, k2, k3, p1, p2) = CALIBRATED[camera] if camera else NOMINAL
    ratios = np.stack([ratio_to_stated((int(w), int(h)), [640, 480], folder / "rgb", "published calibration") for w, h in sizes])
    why = (
        f"published calibration of {camera}, which rgb.txt names"
        if camera
        else "nominal focal length of 525 pixels: no file states it"
    )
    return np.array([fx, fy, cx + 0.5, cy + 0.5]) * np.tile(ratios, (1, 2)), [k1, k2, k3, 0, 0, 0, p1, p2], [why], []
