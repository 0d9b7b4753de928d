"""Locks as Windows has them, on a POSIX system: no `fcntl`, and a stand-in of `msvcrt`.

There a lock is of bytes from where the descriptor stands, of one handle and against all others, even those of the same process;
it ends when the handle is closed or its process ends. All of that but the bytes flock does, too; the bytes are kept here.
"""

import errno
import fcntl
import os
import sys
from types import SimpleNamespace

LK_NBLCK = 2
READ = 10**6  # bytes of a file's beginning that others read while it is locked: the lock may not touch them


def locking(descriptor, mode, n_bytes):
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    assert (mode, n_bytes) == (LK_NBLCK, 1)
    assert READ < start < 2**31 - n_bytes, "locked where others read, or where the C library cannot"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


def modules(locks=locking):
    return {"fcntl": None, "msvcrt": SimpleNamespace(LK_NBLCK=LK_NBLCK, locking=locks)}


def install():
    sys.modules.update(modules())
