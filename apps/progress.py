"""A progress bar with rate and time left on a terminal, plain lines elsewhere."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from taichi_nerf.apps.command import raise_if_interrupted
from taichi_nerf.report import Report

QUICK = 2.0  # seconds that need no progress
COUNTED = re.compile(r"([a-z]+) (\d+) of \d+")  # what texts say where things are counted: "frame 3 of 120"


class Rate:
    """How fast things are counted, by the texts of reports; the first counts as the start, since it waited for compiling."""

    def __init__(self) -> None:
        self._thing, self._first, self._since = "", 0, 0.0

    def told(self, text: str, now: float) -> str:
        """The text, with the rate where there is one. `now` in seconds."""
        found = COUNTED.search(text)
        if found is None:
            return text
        thing, n = found[1], int(found[2])
        if thing != self._thing or n <= self._first or now <= self._since:
            self._thing, self._first, self._since = thing, n, now
            return text
        rate = (n - self._first) / (now - self._since)
        return f"{text}, " + (f"{rate:.1f} {thing}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{thing}")


@contextmanager
def progress(every_seconds: float = 5.0) -> Iterator[Report]:
    """Yield `report(fraction_done, text)`. Without a terminal it prints a line every few seconds, none for what is quick."""
    raise_if_interrupted()  # before kernels are compiled: the first report may come half a minute later
    rate = Rate()
    if not sys.stderr.isatty():
        last = [time.monotonic() + QUICK - every_seconds]

        def line(done: float, text: str) -> None:
            raise_if_interrupted()
            text = rate.told(text, time.monotonic())
            if time.monotonic() - last[0] >= every_seconds:
                last[0] = time.monotonic()
                with suppress(OSError):  # nobody reads it any more, as `tee` after Ctrl-C: no reason not to save what was learned
                    click.echo(f"{100 * done:3.0f} %  {text}", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)

        def update(done: float, text: str) -> None:
            raise_if_interrupted()
            bars.update(task, completed=done, description=rate.told(text, time.monotonic()))

        yield update
