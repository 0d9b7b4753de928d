"""Files that are whole or not there: written beside their place, made durable, then moved into it in one step."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

PARTIAL = "partial"  # the ending of what is being written
LONGEST_TURN = 10.0  # seconds that a file's turn is waited for
LOCKED_BYTE = 2**31 - 2  # the last but one that Windows' C library can lock; files may be shorter
WAITS = (0.01, 0.03, 0.1, 0.3, 1.0)  # seconds until a file that is refused is tried again


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A stream to write the new content of `file` to. Whatever ends it early leaves the former content as it was.

    The content reaches the disk before its name does, so neither `kill -9` nor a power cut leaves half a file. What earlier
    processes that were killed left half-written is removed first.
    """
    remove_abandoned(file)
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.{PARTIAL}")
    try:
        with naming(file), open(partial, "xb") as stream:
            try_lock(stream)  # says to others that somebody is writing; the lock goes with the process
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _put_in_place(partial, file)
        _sync_folder(file.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Of a full disk the system says which write failed, not of which file: that is added."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


def remove_abandoned(file: Path) -> None:
    """Remove what killed processes left of writing `file`."""
    for partial in partials(file):
        with contextlib.suppress(OSError):
            with open(partial, "rb") as stream:
                abandoned = try_lock(stream)
            if abandoned:
                partial.unlink()  # closed by now: Windows removes no file that is open, and so none that is still being written


def partials(file: Path) -> list[Path]:
    """What there is of half-written contents of `file`."""
    if not file.parent.is_dir():
        return []
    start = f".{file.name}."
    return [f for f in file.parent.iterdir() if f.name.startswith(start) and f.name.endswith("." + PARTIAL)]


@contextlib.contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """For who reads a file, changes it and writes it again, in a moment: one process after the other. The lock's file stays.
    Who holds it longer than ten seconds, as on a network disk that hangs, is no longer waited for."""
    until = time.monotonic() + LONGEST_TURN
    with open(lock, "ab") as stream:
        while not try_lock(stream) and time.monotonic() < until:
            time.sleep(0.01)
        yield


def try_lock(stream: IO[bytes]) -> bool:
    """Lock an open file, unless it is locked; closing it unlocks it, and so does the end of the process, however it comes.
    Where there are no locks (some network disks): True."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_a_byte(stream.fileno())
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _try_lock_a_byte(descriptor: int) -> bool:
    """On Windows: of a byte that nobody reads or writes, since there who holds it keeps all others from that."""
    import msvcrt

    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except PermissionError:
        return False
    except OSError:
        return True
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
    return True


def _put_in_place(partial: Path, file: Path) -> None:
    """Windows refuses while somebody has the former file open, as who reads a checkpoint or looks for viruses: not for long."""
    for wait in WAITS:
        with contextlib.suppress(PermissionError):
            os.replace(partial, file)
            return
        time.sleep(wait)
    os.replace(partial, file)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can. The new content is in place already: no error from here on."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
