"""The files of all browsers in one folder: stem_1, stem_2, …"""

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from taichi_nerf.export.files import os_errors_named


class NumberedFiles:
    """None replaces another, however many browsers save at a time: a name is free until its file is written."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = Lock()

    def add(self, stem: str, suffix: str, write: Callable[[Path], None]) -> Path:
        """The file that `write` wrote."""
        with self._lock:
            number = 1
            while (self.folder / f"{stem}_{number}{suffix}").exists():
                number += 1
            file = self.folder / f"{stem}_{number}{suffix}"
            with os_errors_named(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            write(file)
        return file
