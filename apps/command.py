"""What all commands share: `--debug`, errors as one line, and an honest exit status when interrupted."""

import atexit
import contextlib
import errno
import io
import math
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from itertools import pairwise
from types import FrameType
from typing import Any, NoReturn

import click

from taichi_nerf.apps.early import interrupts_leave

# Ctrl-C as it came. Code of others may swallow the KeyboardInterrupt (`import taichi` has a bare `except` around torch's import):
# whatever goes on for long asks `raise_if_interrupted` before and now and then.
interruptions: list[int] = []

arch_option = click.option(
    "--arch", type=click.Choice(["auto", "cpu", "cuda", "vulkan", "metal"]), default="auto", show_default=True
)

LARGEST_SEED = 2**31 - 1  # that procedural scenes take; torch and NumPy take it too


def seed_option(default: int = 0, what: str | None = None) -> Any:
    """`--seed`, of those numbers that every part of the system takes."""
    return click.option("--seed", type=click.IntRange(0, LARGEST_SEED), default=default, show_default=True, help=what)


def raise_if_interrupted() -> None:
    if interruptions:
        raise KeyboardInterrupt


class Command(click.Command):
    """A command with `--debug`, whose errors are one line on stderr and exit status 1."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the full traceback of an error."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        may_be_empty = {name for known in self.params if known.default == "" for name in known.opts}
        for before, arg in pairwise(["", *args]):
            is_bare = re.fullmatch("--[^=]+=", arg) is not None  # --out=
            option = arg[:-1] if is_bare else before
            if (is_bare or not arg) and option not in may_be_empty:  # a path would be taken for the current folder
                told = f"{option if is_bare else 'an argument'} is empty: a variable of the shell that is not set?"
                raise click.UsageError(told, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug", False)
        for name, value in ctx.params.items():
            if isinstance(value, float) and not math.isfinite(value):  # click's ranges let it pass
                said = "nan is no number" if math.isnan(value) else f"expected a finite number, got {value}"
                raise click.BadParameter(said, ctx, param_hint=f"--{name.replace('_', '-')}")
        with one_line_errors(debug), one_line_warnings():
            return super().invoke(ctx)


class Group(click.Group):
    """A group whose commands are `Command`s; an unknown name gets its nearest neighbours."""

    command_class = Command
    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> Any:
        make_sayable()
        try:
            with interrupts_leave():
                return super().main(*args, **kwargs)
        except SystemExit as end:
            if "TORCHELASTIC_RUN_ID" in os.environ:
                leave_at_once(end.code)
            raise

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from difflib import get_close_matches

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.list_commands(ctx), n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else f" There are: {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def given_options(context: click.Context) -> list[click.Option]:
    """Those that stand on the command line, whatever their values."""
    source = click.core.ParameterSource.COMMANDLINE
    options = [option for option in context.command.params if isinstance(option, click.Option)]
    return [option for option in options if context.get_parameter_source(option.name or "") == source]


def make_sayable() -> None:
    """Let stdout and stderr take any text: a path or a `→` is no reason to fail where the console's encoding lacks it, nor is
    a stream that whoever started the command has closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process lasts
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def leave_at_once(code: str | int | None) -> NoReturn:
    """End one of torchrun's processes: gloo's threads may still be running when C++ takes its globals apart, and abort it."""
    if isinstance(code, str):
        click.echo(code, err=True)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


@contextlib.contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turn an exception into one line and exit status 1, a signal into 128 and its number, as shells report it: Ctrl-C into 130,
    SIGTERM into 143, and the end of the terminal, unless it is ignored as under nohup, into 129."""
    from taichi_nerf.training.interrupt import HANGUP, Stopped, leave_terminal

    def terminate(signum: int, frame: FrameType | None) -> NoReturn:
        if signum == HANGUP:
            leave_terminal()
        sys.exit(128 + signum)

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        interruptions.append(signum)
        raise KeyboardInterrupt

    interruptions.clear()
    acts: dict[int, Any] = {signal.SIGTERM: terminate, signal.SIGINT: interrupt}
    if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
        acts[HANGUP] = terminate
    previous = {number: signal.signal(number, act) for number, act in acts.items()}
    try:
        yield
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(128 + signal.SIGINT)
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click ends in silence where `| head` has read enough
    except Exception as error:
        if isinstance(error, Stopped):
            click.echo("stopped before there was anything to save; nothing is changed", err=True)
            sys.exit(error.exit_status)
        if debug:
            traceback.print_exc()
        if interruptions:  # an import that Ctrl-C cut short calls itself failed, and the program damaged
            click.echo("interrupted", err=True)
            sys.exit(128 + signal.SIGINT)
        if not debug:
            click.echo(f"error: {describe(error)}", err=True)
        sys.exit(1)
    finally:
        for number, act in previous.items():
            signal.signal(number, act)


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show what the package warns of as commands do, once and on the main process alone; the warnings of others as ever."""
    told: set[str] = set()
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not category.__module__.startswith("taichi_nerf."):
                shown(message, category, *where, **more)
            elif os.environ.get("RANK", "0") == "0" and str(message) not in told:
                told.add(str(message))
                click.echo(f"warning: {message}", err=True)

        warnings.showwarning = show
        yield


def describe(error: Exception) -> str:
    """The message on one line. An error that is no plain complaint about input also names its type and `--debug`."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    # torch's allocators say it in words alone, but as RuntimeErrors; a complaint about a file may have any words in its name.
    in_words = isinstance(error, RuntimeError) and ("t allocate memory" in message or "out of memory" in message)
    if in_words or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        asked = re.search(r"allocate ([\d.]+ ?\w+)", message.replace("allocate memory", ""))
        return f"not enough memory{f' for {asked[1]} more' if asked else ''} (--debug shows where)"
    if isinstance(error, ValueError | OSError) or type(error).__name__ == "BackendError":
        return message
    return f"{type(error).__name__}: {message} (--debug shows where)"
