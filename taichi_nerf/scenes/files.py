"""Files of a scene: found inside its folder only, read with a bound on their size, and judged in one line."""

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taichi_nerf.file_error import one_line
from taichi_nerf.scenes.errors import SceneError

LARGEST_TEXT = 512 * 2**20  # bytes: a COLMAP text model of a city is smaller
LARGEST_NUMBER = 1e9  # beyond this a pose or an intrinsic is a mistake, and squares of it lose all digits


def inside(folder: Path, relative: str, allow_outside: bool = False, named_in: Path | str = "") -> Path:
    """The path of a file that a scene names. It may not leave the scene's folder, by `..`, as absolute path or by a link."""
    if "\0" in relative:
        raise SceneError(named_in or folder, f"{relative!r} is no file name")
    path = folder / relative
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
        path.is_file()  # the first to notice a name longer than the system allows
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, half a character
        encoding = error.encoding if isinstance(error, UnicodeEncodeError) else "utf-8"
        where = f" in the encoding of this locale ({encoding}); LC_ALL=C.UTF-8 has all of them" if encoding != "utf-8" else ""
        raise SceneError(named_in or folder, f"{relative[:80]!r} is no file name{where}") from None
    if leads_out and not allow_outside:
        raise SceneError(named_in or folder, f"{relative!r} leads out of the scene's folder; --allow-outside permits it")
    return path


def read_bytes(file: Path, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a file that exists, is a file, and is no larger than `largest`."""
    if not file.is_file():
        raise SceneError(file, "is a folder, not a file" if file.is_dir() else "no such file")
    size = file.stat().st_size
    if size > largest:
        raise SceneError(file, f"is {size / 2**20:.0f} MiB, more than the {largest / 2**20:.0f} MiB expected of such a file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise SceneError(file, str(error.strerror or error)) from None


def read_text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SceneError(file, f"is no UTF-8 text (byte {error.start})") from None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object."""
    text = read_text(file)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SceneError(file, f"is no valid JSON: {error.msg} in line {error.lineno}") from None
    except RecursionError:
        raise SceneError(file, "is nested too deeply") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise SceneError(file, "is no valid JSON: has a number of thousands of digits") from None
    if not isinstance(data, dict):
        raise SceneError(file, f"has to hold a JSON object, holds a {type(data).__name__}")
    return data


def array_names(file: Path) -> set[str]:
    """The arrays of an .npz by its table of contents; none if it is no .npz."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception:  # zipfile has many ways to complain of a file that is none
        return set()


def read_npz(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz, or {"": array} of an .npy; pickled objects are refused, nothing in the file is run."""
    try:
        loaded = np.load(io.BytesIO(read_bytes(file, 8 * LARGEST_TEXT)), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        unpacked = sum(entry.file_size for entry in loaded.zip.infolist()) if loaded.zip else 0
        if unpacked > 8 * LARGEST_TEXT:
            raise SceneError(file, f"unpacks to {unpacked / 2**30:.0f} GiB, more than the 4 GiB permitted")
        return {name: loaded[name] for name in loaded.files}
    except SceneError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy all have errors of their own for broken files
        raise SceneError(file, f"is no readable NumPy file: {one_line(error, 200)}") from None


def number(value: Any, file: Path | str, field: str, low: float = -LARGEST_NUMBER, high: float = LARGEST_NUMBER) -> float:
    """A finite number within bounds, from JSON or text."""
    try:
        found = float(value) if not isinstance(value, bool | list | dict) and value is not None else math.nan
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise SceneError(file, f"expected a finite number, got {str(value)[:40]!r}", field)
    if not low <= found <= high:
        raise SceneError(file, f"expected a number from {low:g} to {high:g}, got {found:g}", field)
    return found


def matrix(value: Any, shape: tuple[int, ...], file: Path | str, field: str) -> NDArray[np.float64]:
    """A finite matrix of a shape, from nested lists or an array."""
    try:
        given = np.asarray(value)
        if given.dtype.kind == "c":
            raise TypeError  # NumPy would warn and take the real part
        found = np.array(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise SceneError(file, f"expected {_times(shape)} numbers", field) from None
    if found.shape != shape:
        raise SceneError(file, f"expected {_times(shape)} numbers, got {_times(found.shape) or 'one'}", field)
    if not np.isfinite(found).all() or np.abs(found).max(initial=0) > LARGEST_NUMBER:
        raise SceneError(file, "has numbers that are not finite, or absurdly large", field)
    return found


def pose(value: Any, file: Path | str, field: str) -> NDArray[np.float64]:
    """A rigid camera-to-world matrix [3, 4] from 3 x 4 or 4 x 4 numbers: its rotation orthonormal to 1 %, and no mirror.

    A uniform scale of the rotation part, as some exporters leave, is divided out; the rest is made exactly orthonormal.
    """
    rows = len(value) if isinstance(value, list | tuple | np.ndarray) and len(value) == 3 else 4
    whole = matrix(value, (rows, 4), file, field)
    found = whole[:3]
    turned, stretch, back = np.linalg.svd(found[:, :3])
    if stretch[2] < 1e-9 or stretch[0] > 1.01 * stretch[2]:
        raise SceneError(file, "its rotation part is not orthonormal", field)
    if rows == 4 and np.abs(whole[3] - [0, 0, 0, 1]).max() > 1e-3:
        raise SceneError(file, "expected 0, 0, 0, 1 as its last row (is it transposed?)", field)
    rotation = turned @ back
    if np.linalg.det(rotation) < 0:
        raise SceneError(file, "its rotation part is a mirror image (determinant -1)", field)
    return np.concatenate([rotation, found[:, 3:]], -1)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
