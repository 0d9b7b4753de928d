"""Writing a folder whole or not at all: beside its place first, then put there by a renaming."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
