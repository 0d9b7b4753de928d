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

    def __init__(self, path: Path, option: str = "--out"):
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]  # innermost first
        path.mkdir(parents=True, exist_ok=True)
        self._stream: IO[bytes] | None = self._taken(option)

    def _taken(self, option: str) -> IO[bytes]:
        me = f"process {os.getpid()} on {platform.node()}"
        stream = open(self.path / LOCK, "a+b")  # noqa: SIM115 (open as long as the lock is held)
        if not try_lock(stream):
            stream.seek(0)
            holder = stream.read(100).decode(errors="replace").strip()
            stream.close()
            if holder == me:
                raise RunError(self.path, "is held by this process already, for a training that was not closed: close() it")
            raise RunError(
                self.path,
                f"another process is training into it ({holder or 'just started'}); wait for it, or choose another {option}",
            )
        with naming(self.path / LOCK):
            stream.truncate(0)
            stream.write(f"{me}\n".encode())
            stream.flush()
        return stream

    def close(self, began: bool = True) -> None:
        """Let others train into the folder. If it was made for a training that never began, it goes."""
        if self._stream is None:
            return
        goes = bool(self._made) and not began
        removed = goes and self._removed()  # while nobody else can hold it
        self._stream.close()
        self._stream = None
        if goes and (removed or self._removed()):  # Windows removes no open file
            with contextlib.suppress(OSError):
                for folder in self._made:
                    folder.rmdir()

    def _removed(self) -> bool:
        try:
            (self.path / LOCK).unlink()
        except OSError:
            return False
        return True

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(began=self.path.is_dir() and any(file.name != LOCK for file in self.path.iterdir()))
