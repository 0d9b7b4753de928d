"""Writing a folder whole or not at all: under a hidden name first, then put into its place by renaming.

The hidden folder is beside the place. In an empty folder that is there already it is inside: that one may be the current folder,
which cannot be replaced, a file system of its own, or the only one around that may be written to.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taichi_nerf.scenes.errors import SceneError

IN_USE = "is there already: choose another folder, or remove it first"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # never the fault of a file that is read


def require_free(out: Path) -> None:
    """A folder that is written has to be new or empty."""
    try:
        in_use = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise SceneError(out, f"cannot be written: {error.strerror}") from None
    if in_use:
        raise SceneError(out, IN_USE)


@contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end. What the system refuses is an error of `out`."""
    require_free(out)
    unfinished = hidden_place(out)
    with errors_name(out, unfinished):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            put_in_place(unfinished, out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def hidden_place(out: Path) -> Path:
    """The name of a folder, which is to be made and removed by who asks, to write into what becomes `out`."""
    place = out.resolve()
    return (place if place.is_dir() else place.parent) / f".{place.name}.{os.getpid()}"


def put_in_place(finished: Path, out: Path) -> None:
    """Make `finished`, which is the `hidden_place` of `out` or lies in it, `out`."""
    place = out.resolve()
    if place not in finished.parents:
        if place.exists():
            place.rmdir()
        finished.replace(place)
        return
    if any(other not in (finished, *finished.parents) for other in place.iterdir()):  # somebody else's, meanwhile
        raise SceneError(out, IN_USE)
    for part in sorted(finished.iterdir(), key=lambda part: part.is_file()):  # the files that describe the folders come last
        part.replace(place / part.name)


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
