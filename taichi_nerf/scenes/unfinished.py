"""Writing a folder whole or not at all: beside its place first, then put there by a renaming."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
from numpy.typing import NDArray

from taichi_nerf.scenes.errors import SceneError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # never the fault of a file that is read


def require_free(out: Path) -> None:
    """A folder that is written has to be new or empty."""
    try:
        in_use = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise SceneError(out, f"cannot be written: {error.strerror}") from None
    if in_use:
        raise SceneError(out, "is there already: choose another folder, or remove it first")


@contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end. What the system refuses is an error of `out`."""
    require_free(out)
    unfinished = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}")
    with errors_name(out, unfinished):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            if out.exists():
                out.rmdir()
            unfinished.replace(out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def write_png(file: Path, pixels: NDArray[Any], **options: Any) -> None:  # [height, width] or [height, width, channels]
    """A picture, encoded before its file is opened: a file that imageio itself cannot fill, for want of room, it fails to close
    once more when it is forgotten, past every handler, and prints a traceback then."""
    file.write_bytes(imageio.imwrite("<bytes>", pixels, extension=".png", plugin="pillow", **options))


@contextmanager
def errors_name(out: Path, unfinished: Path) -> Iterator[None]:
    """Errors of the system while writing name what is written, not the temporary place of it."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or str(error.filename).startswith(str(unfinished)) or error.errno in NO_ROOM
        if not ours and Path(str(error.filename)) not in (out, *out.resolve().parents):
            raise
        raise SceneError(out, f"cannot be written: {error.strerror or error}") from None
