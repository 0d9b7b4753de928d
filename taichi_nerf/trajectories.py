"""Camera paths for videos: around a scene, in front of it, or through views that were taken.

Everything comes in and goes out as `Cameras`, in the coordinates of the cameras given (scene units, for those of a scene). Frames
are pinhole cameras of the views' usual size and field of view; `framed` changes both. `camera_path` reads and writes files.

    orbit        a level circle around what the cameras look at, closed
    ellipse      a level ellipse fitted to where the cameras stand, at even speed, closed (mip-NeRF 360's path)
    spiral       LLFF's path for views that face forward: a spiral about the mean camera, looking at one place ahead
    interpolate  a smooth curve through chosen views
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from taichi_nerf.cameras import EQUIRECTANGULAR, ORTHOGRAPHIC, PINHOLE, Array, Cameras, focus_point, make_cameras, upward
from taichi_nerf.curves import Curve, even_steps, quaternions, rotations

FIELD_OF_VIEW = 60.0  # degrees, of the frames of a path where the views are panoramas or parallel projections
FINE = 64  # steps between two frames or views, to measure lengths by


def orbit(
    cameras: Cameras,
    n_frames: int,
    *,
    center: ArrayLike | None = None,
    radius: float | None = None,
    elevation_degrees: float | None = None,
    arc_degrees: float = 360.0,
) -> Cameras:
    """A level circle that starts above or below the first view; what is not given is the median of the cameras'.

    A whole circle leaves out its last frame, which would repeat the first; an arc ends where it ends.
    """
    up = upward(cameras)
    middle = _center(cameras, center)
    offsets = cameras.centers - middle
    distances = np.linalg.norm(offsets, axis=-1)
    radius = float(np.median(distances)) if radius is None else radius
    sines = (offsets @ up) / np.where(distances > 0, distances, 1)
    elevation = np.median(np.arcsin(np.clip(sines, -1, 1))) if elevation_degrees is None else np.radians(elevation_degrees)
    east, north = _level_axes(up, offsets[0])
    whole = abs(arc_degrees) >= 360
    angles = np.radians(np.linspace(0, arc_degrees, _frames(n_frames), endpoint=not whole))[:, None]
    level = np.cos(angles) * east + np.sin(angles) * north
    positions = middle + radius * (np.cos(elevation) * level + np.sin(elevation) * up)
    return _looking_at(cameras, positions, middle, up)


def ellipse(
    cameras: Cameras,
    n_frames: int,
    *,
    center: ArrayLike | None = None,
    height_variation: float = 0.0,
    phase_degrees: float = 0.0,
) -> Cameras:
    """An ellipse along the main axes of where the cameras stand, through the 90th percentile of their distances on each.

    It lies at the cameras' median height; with `height_variation` 1 it rises and falls once between their 10th and 90th
    percentile.
    """
    up = upward(cameras)
    middle = _center(cameras, center)
    offsets = cameras.centers - middle
    heights = offsets @ up
    level = offsets - heights[:, None] * up
    spread = np.linalg.eigh(level.T @ level + 1e6 * np.trace(level.T @ level) * np.outer(up, up))[1]
    axes = np.stack(_level_axes(up, spread[:, 1] * np.sign(spread[:, 1] @ offsets[0] or 1.0)))
    radii = np.percentile(np.abs(level @ axes.T), 90, axis=0)
    low, high = np.percentile(heights, [10, 90])

    def place(angles: Array) -> Array:
        rise = (low + high) / 2 + (high - low) / 2 * np.cos(angles + np.radians(phase_degrees))
        height = np.median(heights) * (1 - height_variation) + rise * height_variation
        return middle + np.stack([np.cos(angles), np.sin(angles)], -1) * radii @ axes + height[:, None] * up

    fine = np.linspace(0, 2 * np.pi, FINE * _frames(n_frames) + 1)
    lengths = np.linalg.norm(np.diff(place(fine), axis=0), axis=-1)
    return _looking_at(cameras, place(even_steps(fine, lengths, n_frames, closed=True)), middle, up)


def spiral(
    cameras: Cameras,
    n_frames: int,
    *,
    near_far: tuple[float, float] | None = None,
    focus_distance: float | None = None,
    turns: float = 2.0,
    rate: float = 0.5,
    percentile: float = 90.0,
) -> Cameras:
    """LLFF's spiral. Its half axes are the cameras' 90th percentile distances from the mean camera, along that camera's axes.

    It looks at one place ahead: at `focus_distance`, else where LLFF has it between near and far,
    1 / (0.25 / 0.9 near + 0.75 / 5 far), else at what the cameras look at.
    """
    mean = _mean_pose(cameras)
    if focus_distance is None and near_far is not None:
        focus_distance = 1 / (0.25 / (0.9 * near_far[0]) + 0.75 / (5.0 * near_far[1]))
    if focus_distance is None:
        ahead = (focus_point(cameras.centers, cameras.forwards) - mean[:, 3]) @ mean[:, 2]
        spread = float(np.linalg.norm(cameras.centers - mean[:, 3], axis=-1).max())
        focus_distance = float(ahead) if ahead > spread else 4 * spread or 1.0
    radii = np.percentile(np.abs((cameras.centers - mean[:, 3]) @ mean[:, :3]), percentile, axis=0)
    angles = np.linspace(0, 2 * np.pi * turns, _frames(n_frames), endpoint=False)
    local = np.stack([np.cos(angles), np.sin(angles), np.sin(angles * rate)], -1) * radii
    target = mean[:, 3] + focus_distance * mean[:, 2]
    return _looking_at(cameras, local @ mean[:, :3].T + mean[:, 3], target, -mean[:, 1])


def interpolate(cameras: Cameras, n_frames: int, *, closed: bool = False, constant_speed: bool = True) -> Cameras:
    """A smooth curve through all the cameras in their order: positions and orientations as cubic Bézier curves whose speeds at a
    view are those of the parabola through it and its two neighbours (Catmull-Rom, centripetal).

    At constant speed frames are evenly spaced along the curve; otherwise each stretch between two views has as many.
    """
    _frames(n_frames)
    poses, focal = cameras.camera_to_worlds, _lens(cameras)[0][:, 1]
    if len(cameras) == 1:
        return _with_poses(cameras, np.repeat(poses, n_frames, 0), np.repeat(focal, n_frames))
    curve = Curve(poses[:, :, 3], quaternions(poses[:, :, :3]), closed)
    fine = np.linspace(0, curve.n_pieces, FINE * curve.n_pieces + 1)
    if constant_speed:
        at = even_steps(fine, curve.lengths(fine), n_frames, closed)
    else:
        at = np.linspace(0, curve.n_pieces, n_frames, endpoint=not closed)
    positions, orientations = curve(at)
    along = np.append(focal, focal[0]) if closed else focal
    focal = np.exp(np.interp(at, np.arange(len(along)), np.log(along)))
    return _with_poses(cameras, np.concatenate([rotations(orientations), positions[..., None]], -1), focal)


def evenly(path: Cameras, n_frames: int) -> Cameras:
    """So many of the path's frames, from the first to the last; more than it has repeat some."""
    return path[np.linspace(0, len(path) - 1, n_frames).round().astype(int)]


def framed(path: Cameras, width: int | None = None, height: int | None = None, fov_y_degrees: float | None = None) -> Cameras:
    """The same path in frames of another size. The vertical field of view stays, unless another one is given, and so does
    the lens: a pixel as far from the middle, in heights of the frame, sees the same.

    With one side given, the other follows the shape of the frames.
    """
    old_width, old_height = (int(side) for side in path.sizes[0])
    new_width = width or max(1, round(old_width * (height or old_height) / old_height))
    new_height = height or max(1, round(old_height * (width or old_width) / old_width))
    if fov_y_degrees is None:
        ratio = new_height / path.sizes[:, 1:]
    else:
        ratio = new_height / 2 / np.tan(np.radians(fov_y_degrees) / 2) / path.intrinsics[:, 1:2]
    size = np.array([new_width, new_height])
    center = size / 2 + (path.intrinsics[:, 2:] - path.sizes / 2) * ratio
    intrinsics = np.concatenate([path.intrinsics[:, :2] * ratio, center], -1)
    return replace(path, intrinsics=intrinsics, sizes=np.broadcast_to(size, (len(path), 2)).copy())


def look_at(positions: Array, targets: Array, up: Array) -> Array:
    """[n, 3, 4] OpenCV poses at positions [n, 3] that look at targets [n, 3] or [3]."""
    forward = _unit(targets - positions, np.array([0.0, 0, 1]))
    right = np.cross(forward, up)
    if (np.linalg.norm(right, axis=-1) < 1e-6).any():  # straight up or down: any horizontal axis is right
        some = np.cross(forward, np.roll(up, 1) + np.array([0.3, 0.1, 0.2]))
        right = np.where(np.linalg.norm(right, axis=-1, keepdims=True) < 1e-6, some, right)
    right = _unit(right, np.array([1.0, 0, 0]))
    return np.stack([right, np.cross(forward, right), forward, np.broadcast_to(positions, forward.shape)], -1)


def _looking_at(cameras: Cameras, positions: Array, target: Array, up: Array) -> Cameras:
    return _with_poses(cameras, look_at(positions, target, up))


def _with_poses(cameras: Cameras, poses: Array, focal: Array | None = None) -> Cameras:
    """Frames of the views' most frequent size and, unless focal lengths [n] are given, their median field of view."""
    intrinsics, size = _lens(cameras)
    lens = (
        np.median(intrinsics, axis=0)
        if focal is None
        else np.stack([focal, focal, *(np.full((2, len(focal)), size.T[:, None] / 2))], -1)
    )
    model = ORTHOGRAPHIC if (cameras.models == ORTHOGRAPHIC).all() else PINHOLE
    return make_cameras(poses, lens, size, model)


def _lens(cameras: Cameras) -> tuple[Array, Array]:
    """[n, 4] intrinsics of a plain lens for every view, in frames of one size [2]: square pixels, the axis in the middle."""
    sizes, counts = np.unique(cameras.sizes, axis=0, return_counts=True)
    size = sizes[np.argmax(counts)]
    focal = cameras.intrinsics[:, 1] / cameras.sizes[:, 1] * size[1]
    focal[cameras.models == EQUIRECTANGULAR] = size[1] / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    return np.stack([focal, focal, np.full(len(focal), size[0] / 2), np.full(len(focal), size[1] / 2)], -1), size


def _mean_pose(cameras: Cameras) -> Array:
    """[3, 4] at the mean position, looking the mean way, level with the mean up."""
    position = cameras.centers.mean(0)
    up = _unit(-cameras.camera_to_worlds[:, :, 1].mean(0), np.array([0.0, -1, 0]))
    return look_at(position[None], position + _unit(cameras.forwards.mean(0), np.array([0.0, 0, 1])), up)[0]


def _center(cameras: Cameras, center: ArrayLike | None) -> Array:
    return focus_point(cameras.centers, cameras.forwards) if center is None else np.asarray(center, np.float64)


def _level_axes(up: Array, toward: Array) -> tuple[Array, Array]:
    """Two level unit axes, the first as near to `toward` as it can be, the second to its left as seen from above."""
    fallback = np.eye(3)[np.argmin(np.abs(up))]
    east = _unit(toward - (toward @ up) * up, fallback - (fallback @ up) * up)
    east = east / np.linalg.norm(east)
    return east, np.cross(up, east)


def _unit(vectors: Array, fallback: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-12, vectors / np.where(length > 1e-12, length, 1), fallback)


def _frames(n_frames: int) -> int:
    if n_frames < 1:
        raise ValueError(f"a camera path has at least one frame, not {n_frames}")
    return n_frames
