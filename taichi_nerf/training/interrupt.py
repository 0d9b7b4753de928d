"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) as a wish that a training grants at its next step.

    with StopSignals() as stop:
        while not stop.requested and …:
            step()
    save()
    if stop.requested:
        sys.exit(stop.exit_status)          # 130, 143 or 129, as shells report these signals

Who is asked to stop before the first step raises `Stopped`: nothing was learned, and what was there before stays.

An exception thrown into the middle of a step would leave parameters and moments that do not belong together; a flag does not.
"""

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# Ctrl-C in a terminal goes to every process, and a launcher may pass it on to its workers once more: only a later one counts.
SECOND_AFTER = 1.0  # seconds
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


class Stopped(Exception):
    """The wish to stop, before there was anything to save."""

    exit_status = 128 + signal.SIGINT  # `StopSignals` tells which signal it was


def ends(stop: Callable[[], bool], n_steps: int) -> bool:
    """Whether a training stops after so many steps; `Stopped` if these are none."""
    if stop():
        if not n_steps:
            raise Stopped
        return True
    return False


def leave_terminal() -> None:
    """Let what is written to a terminal from now on go nowhere: it has hung up, and a line about the saving of a training would
    be an error that keeps it from being saved. Files and pipes stay."""
    with open(os.devnull, "wb") as nowhere:
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # there may be none; and one that has hung up says that it is no terminal
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nowhere.fileno(), descriptor)


class StopSignals:
    """Notes the first SIGINT, SIGTERM or SIGHUP. A second Ctrl-C does at once what it would have done outside.

    Python hands signals to the main thread alone; in another thread this notes nothing and changes nothing. A signal that is
    ignored outside (as SIGHUP under nohup) stays ignored.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.signal: signal.Signals | None = None  # the first that came
        self._at = 0.0
        self._clock = clock
        self._former: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """What a process that was ended by this signal exits with; 0 if none came."""
        return 128 + self.signal if self.signal is not None else 0

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                former = signal.getsignal(number)
                if former is not None and former != signal.SIG_IGN:  # None: a handler that is not Python's
                    self._former[number] = former
                    signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former.clear()
        if isinstance(error, Stopped) and self.requested:
            error.exit_status = self.exit_status

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        if number == HANGUP:
            leave_terminal()
        if self.signal is None:
            self.signal, self._at = signal.Signals(number), now
        elif number == signal.SIGINT and now - self._at >= SECOND_AFTER:
            signal.signal(signal.SIGINT, self._former[signal.SIGINT])
            signal.raise_signal(signal.SIGINT)
