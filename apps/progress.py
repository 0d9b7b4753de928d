"""A progress bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from taichi_nerf.apps.command import raise_if_interrupted

QUICK = 2.0  # seconds that need no progress


@contextmanager
def progress(every_seconds: float = 5.0) -> Iterator[Callable[[float, str], None]]:
    """Yield `report(fraction_done, text)`. Without a terminal it prints a line every few seconds, none for what is quick."""
    if not sys.stderr.isatty():
        last = [time.monotonic() + QUICK - every_seconds]

        def line(done: float, text: str) -> None:
            raise_if_interrupted()
            if time.monotonic() - last[0] >= every_seconds:
                last[0] = time.monotonic()
                click.echo(f"{100 * done:3.0f} %  {text}", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)

        def update(done: float, text: str) -> None:
            raise_if_interrupted()
            bars.update(task, completed=done, description=text)

        yield update
