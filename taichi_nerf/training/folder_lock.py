"""One training at a time into a folder: FOLDER/.lock is held by the process that trains; it goes with that process, so it is
never stale.

with FolderLock(path): ...      # RunError if another holds it
"""

import contextlib
import os
import platform
from pathlib import Path
from types import TracebackType
from typing import IO

from taichi_nerf.training.atomic import naming, try_lock
from taichi_nerf.training.run_error import RunError

LOCK = ".lock"


class FolderLock:
    """Held from the start until `close`, or the end of the process. The folder is made if it is not there."""

    def __init__(self, path: Path, option: str = "--out", name: str = LOCK):
        """`name`: of the lock, where a folder has several, each of other files."""
        self.path, self._file = path, path / name
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]  # innermost first
        self._stream: IO[bytes] | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._take(option)
        except BaseException:
            self._let_go(goes=bool(self._made))
            raise

    def _take(self, option: str) -> None:
        stream = open(self._file, "a+b")  # noqa: SIM115 (open as long as the lock is held)
        if not try_lock(stream):
            with stream:
                raise _held(self.path, stream, option)
        self._stream = stream
        with naming(self._file):
            stream.truncate(0)
            stream.write(f"{_me()}\n".encode())
            stream.flush()

    def close(self, began: bool = True) -> None:
        """Let others train into the folder. If it was made for a training that never began, it goes."""
        if self._stream is not None:
            self._let_go(goes=bool(self._made) and not began)

    def _let_go(self, goes: bool) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            removed = goes and self._removed()  # while nobody else can hold it
            with contextlib.suppress(OSError):  # what a full disk did not take is tried once more
                stream.close()
            goes = goes and (removed or self._removed())  # Windows removes no open file
        for folder in self._made if goes else ():
            with contextlib.suppress(OSError):  # others hold it by now, or it could not be made
                folder.rmdir()

    def _removed(self) -> bool:
        try:
            self._file.unlink()
        except OSError:
            return False
        return True

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(began=self.path.is_dir() and any(file != self._file for file in self.path.iterdir()))


def expect_free(path: Path) -> None:
    """Refuse what `FolderLock` would: a folder that others hold, or that cannot be written. Nothing is changed or made."""
    from taichi_nerf.export.files import expect_writable  # which loads what pictures take; a lock needs none of it

    with contextlib.suppress(FileNotFoundError, NotADirectoryError), open(path / LOCK, "rb") as stream:
        if not try_lock(stream):
            raise _held(path, stream, "--out")
    expect_writable(path)


def _me() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _held(path: Path, stream: IO[bytes], option: str) -> RunError:
    """Of a lock that another holds, who that is."""
    stream.seek(0)
    holder = stream.read(100).decode(errors="replace").strip()
    if holder == _me():
        return RunError(path, "is held by this process already, for a training that was not closed: close() it")
    told = f"another process is training into it ({holder or 'just started'}); wait for it, or choose another {option}"
    return RunError(path, told)
