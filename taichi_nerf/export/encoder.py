"""A running ffmpeg: it is fed frames, and what it complains of becomes one line that names the file it was to write."""

import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]

from taichi_nerf.export.files import ExportError

TELLING = ("No space left on device", "Permission denied", "File too large", "Disk quota exceeded")  # what users can mend


class Encoder:
    """`options` as on ffmpeg's command line; frames come through `write`, and `finish` waits until all is on disk.

    `follow` is told twice a second, while `finish` waits, how many frames are written.
    """

    def __init__(self, path: Path, options: list[str], follow: Callable[[int], None] | None = None):
        self._path, self._follow = path, follow
        telling = [] if follow is None else ["-progress", "pipe:1"]
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  not a pipe, which would fill up unread
        # In a session of its own: Ctrl-C is ours to answer, by `stop`.
        self._process = subprocess.Popen(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "error", "-xerror", "-y", *telling, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if follow is None else subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )

    def write(self, frame: bytes | memoryview) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame)
        except OSError:  # it went away
            raise self._error() from None

    def finish(self) -> None:
        try:
            self._close()
            if self._follow is not None:
                assert self._process.stdout is not None
                for line in self._process.stdout:
                    if line.startswith(b"frame="):
                        self._follow(int(line.partition(b"=")[2]))
            if self._process.wait():
                raise self._error()
        finally:
            self.stop()

    def stop(self) -> None:
        """End it, whether or not it had finished. May be called again."""
        self._process.kill()
        self._process.wait()
        self._close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._complaints.close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # what was still to be flushed has no reader; its exit status says why
            self._process.stdin.close()

    def _error(self) -> ExportError:
        self._close()
        status = self._process.wait()
        self._complaints.seek(0)
        lines = [line.strip() for line in self._complaints.read().decode("utf-8", "replace").splitlines() if line.strip()]
        telling = [words for words in TELLING if any(words in line for line in lines)]
        if telling:
            return ExportError(self._path, f"cannot be written: {telling[0]}")
        reason = (lines or [f"stopped with status {status}"])[0]
        if status < 0:
            reason = f"was ended by {signal.Signals(-status).name}"
        return ExportError(self._path, f"cannot be written: ffmpeg: {reason[-200:]}")
