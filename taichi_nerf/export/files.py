"""Files that are there whole or not at all: written under a hidden name beside their place and moved when complete.

They can be made again, so there may be thousands a minute: what `training.atomic` does against power cuts would slow them down.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from taichi_nerf.scenes.write_png import png_bytes


class ExportError(ValueError):
    """What cannot be written, in one line that names the path."""

    def __init__(self, path: Path | str, message: str):
        super().__init__(f"{path}: {' '.join(message.split())}")


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """`data` as the file `path`. What the system refuses (no space, no permission) becomes one line that names it."""
    with whole_stream(path) as stream:
        stream.write(data)


def write_png(path: Path, picture: NDArray[Any]) -> None:  # [height, width, 3] uint8
    """A picture as a PNG, whole or not at all."""
    write_whole(path, png_bytes(picture))


def expect_writable(path: Path) -> None:
    """Refuse, before the work that it is to hold, a file or folder that cannot be written. Nothing is left of the attempt."""
    with os_errors_named(path):
        place = path if path.is_dir() else next(above for above in path.absolute().parents if above.exists())
        if not place.is_dir():
            raise ExportError(path, f"cannot be written: {place} is a file, not a folder")
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(2**12))  # a full disk takes an empty file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name to write to meanwhile. Leaving moves it to `path`; an exception, Ctrl-C's too, removes it: `path` stays as it was.

    Folders on the way are made.
    """
    if path.is_dir():
        raise ExportError(path, "is a folder, and a file was to be written")
    with os_errors_named(path):
        if path.parent.is_file():
            raise ExportError(path, f"cannot be written: {path.parent} is a file, not a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        with os_errors_named(path):
            unfinished.replace(path)
    finally:
        with suppress(OSError):  # never a reason to fail: whoever comes here may already be failing
            unfinished.unlink(missing_ok=True)


@contextmanager
def whole_stream(path: Path) -> Iterator[BinaryIO]:
    """A stream for what `path` is to hold. What happens in here is writing: the system's refusals name `path`."""
    with whole_file(path) as unfinished, os_errors_named(path), unfinished.open("wb") as stream:
        yield stream


@contextmanager
def os_errors_named(path: Path) -> Iterator[None]:
    """What the system refuses in here concerns `path`, whatever the temporary name was."""
    try:
        yield
    except OSError as error:
        raise ExportError(path, f"cannot be written: {error.strerror or error}") from error


def expect_suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """The suffix in lower case, if it is one of these."""
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        *others, last = suffixes
        raise ExportError(path, f"expected a name that ends in {', '.join(others)}{' or ' if others else ''}{last}")
    return suffix
