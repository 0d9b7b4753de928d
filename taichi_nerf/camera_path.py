"""Camera paths as JSON files, to keep, edit and share; `docs/example_path.json` is one.

    {"fps": 30, "width": 800, "height": 800, "fov_y_degrees": 40,
     "frames": [{"camera_to_world": [[…4], […4], […4], [0, 0, 0, 1]], "fov_y_degrees": 35}, …]}

Poses are OpenCV (x right, y down, z forward) in scene units. `fps` is 30 where it is absent; a frame's own field of view goes
before the file's. All cameras are pinholes with the axis in the middle of the frame.
"""

import difflib
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import PINHOLE, Array, Cameras, make_cameras
from taichi_nerf.choices import LARGEST_RATE, LEAST_RATE

FIELDS = ("fps", "width", "height", "fov_y_degrees", "frames", "comment")
FRAME_FIELDS = ("camera_to_world", "fov_y_degrees", "comment")
FOREIGN = {"camera_path": "nerfstudio", "path": "instant-ngp"}  # by a field that only theirs have
LARGEST_FILE = 256 * 2**20  # bytes: half a million frames
LARGEST_NUMBER = 1e9


class CameraPathError(ValueError):
    """What is wrong with a camera path, in one line that names the file and the field."""


def read_camera_path(file: Path | str) -> tuple[Cameras, float]:
    """The frames and their number a second."""
    file = Path(file)
    data = _json(file)
    for field, program in FOREIGN.items():
        if field in data:
            raise CameraPathError(
                f"{file}: {field}: is a path of {program}, in coordinates of its own; `taichi-nerf view` records paths, and "
                "docs/camera_paths.md tells how to write one"
            )
    _known(data, FIELDS, file, "")
    fps = _number(data.get("fps", 30), file, "fps", LEAST_RATE, LARGEST_RATE)
    width, height = (int(_number(data.get(side), file, side, 1, 65536, whole=True)) for side in ("width", "height"))
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise CameraPathError(f"{file}: frames: expected a list of frames")
    poses, focal = np.zeros((len(frames), 3, 4)), np.zeros(len(frames))
    for i, frame in enumerate(frames):
        place = f"frames[{i}]"
        if not isinstance(frame, dict):
            raise CameraPathError(f"{file}: {place}: expected an object, got {_short(frame)}")
        _known(frame, FRAME_FIELDS, file, f"{place}.")
        poses[i] = _pose(frame.get("camera_to_world"), file, f"{place}.camera_to_world")
        own = "fov_y_degrees" in frame
        angle = frame["fov_y_degrees"] if own else data.get("fov_y_degrees")
        degrees = _number(angle, file, f"{place}.fov_y_degrees" if own else "fov_y_degrees", 0.01, 179)
        focal[i] = height / 2 / math.tan(math.radians(degrees) / 2)
    intrinsics = np.stack([focal, focal, np.full(len(focal), width / 2), np.full(len(focal), height / 2)], -1)
    return make_cameras(poses, intrinsics, (width, height)), fps


def write_camera_path(file: Path | str, path: Cameras, fps: float = 30.0) -> None:
    """Write frames of one size. A lens that the file cannot hold is refused, not flattened."""
    file = Path(file)
    width, height = path.sizes[0]
    middle = path.sizes / 2
    if (path.sizes != path.sizes[0]).any() or (path.models != PINHOLE).any():
        raise CameraPathError(f"{file}: a camera path has pinhole frames of one size")
    if np.abs(path.intrinsics[:, 2:] - middle).max() > 1e-6 or (np.abs(np.diff(path.intrinsics[:, :2])) > 1e-6).any():
        raise CameraPathError(f"{file}: a camera path has square pixels and its axis in the middle of the frame")
    degrees = [float(angle) for angle in np.degrees(2 * np.arctan(height / 2 / path.intrinsics[:, 1]))]
    usual = degrees[0]
    frames = []
    for pose, angle in zip(path.camera_to_worlds, degrees, strict=True):
        frame: dict[str, Any] = {"camera_to_world": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]}
        frames.append(frame if angle == usual else {**frame, "fov_y_degrees": angle})
    head = {"fps": fps, "width": int(width), "height": int(height), "fov_y_degrees": usual}
    lines = ",\n  ".join(json.dumps(frame) for frame in frames)
    text = json.dumps(head)[:-1] + ',\n "frames": [\n  ' + lines + "\n ]}\n"
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        raise CameraPathError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CameraPathError(f"{file}: {'is a folder, not a file' if file.is_dir() else 'no such file'}")
    if file.stat().st_size > LARGEST_FILE:
        raise CameraPathError(f"{file}: is larger than {LARGEST_FILE >> 20} MiB")
    try:
        data = json.loads(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CameraPathError(f"{file}: is no UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise CameraPathError(f"{file}: is no valid JSON: {error.msg} in line {error.lineno}") from None
    except (RecursionError, ValueError):
        raise CameraPathError(f"{file}: is no valid JSON: nested too deeply, or has a number of thousands of digits") from None
    if not isinstance(data, dict):
        raise CameraPathError(f"{file}: expected an object with frames, got {_short(data)}")
    return data


def _known(data: dict[str, Any], fields: tuple[str, ...], file: Path, place: str) -> None:
    for name in data:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise CameraPathError(f"{file}: {place}{name[:60]}: unknown field; {hint}")


def _number(value: Any, file: Path, field: str, low: float, high: float, whole: bool = False) -> float:
    kind = "a whole number" if whole else "a number"
    sound = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not sound or (whole and value != int(value)):
        raise CameraPathError(f"{file}: {field}: expected {kind} from {low:g} to {high:g}, got {_short(value)}")
    return float(value)


def _pose(value: Any, file: Path, field: str) -> Array:
    """[3, 4], its rotation orthonormal to 1 % and then made so exactly."""
    try:
        found = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.zeros(0)
    if found.shape not in ((3, 4), (4, 4)):
        raise CameraPathError(f"{file}: {field}: expected 4 x 4 numbers, got {_short(value)}")
    if not np.isfinite(found).all() or np.abs(found).max() > LARGEST_NUMBER:
        raise CameraPathError(f"{file}: {field}: has numbers that are not finite, or absurdly large")
    if len(found) == 4 and np.abs(found[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise CameraPathError(f"{file}: {field}: expected 0, 0, 0, 1 as its last row (is it transposed?)")
    turned, stretch, back = np.linalg.svd(found[:3, :3])
    if np.abs(stretch - 1).max() > 0.01 or np.linalg.det(turned @ back) < 0:
        raise CameraPathError(f"{file}: {field}: its first three columns are no rotation")
    return np.concatenate([turned @ back, found[:3, 3:]], -1)


def _short(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:40]
