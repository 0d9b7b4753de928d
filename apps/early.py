"""Ctrl-C before a command can catch it: while the program is imported, and while the command line is read."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def interrupts_leave() -> Iterator[None]:
    """End at once, as commands end later, but without unwinding: whatever is being imported may swallow or garble an exception.
    Nothing was begun yet that would have to be put away. Where Ctrl-C is ignored, as in the background, it stays ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(128 + signum)
