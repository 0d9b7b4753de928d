"""What `--resume` may change: where a training is and how long it lasts. Of all else the folder has its own settings."""

from collections.abc import Container
from pathlib import Path

import click

from taichi_nerf.apps.command import given_options

ANYWHERE = {"out", "arch", "steps", "time_budget", "resume", "overwrite", "dry_run", "debug"}
SPENT = "its budget was spent before, so nothing was trained: --steps and --time-budget count from the beginning, give more"


def refuse_both(resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise click.UsageError("--resume goes on with what is in --out and --overwrite replaces it; give one of them")


def refuse_changes(context: click.Context, may_change: Container[str] = (), as_before: Container[str] = ()) -> None:
    """Complain of every option on the command line that cannot be followed. Those `as_before` repeat what the folder has."""
    fixed = [
        option.opts[0]
        for option in given_options(context)
        if not any(option.name in names for names in (ANYWHERE, may_change, as_before))
    ]
    if fixed:
        named = " and ".join(filter(None, (", ".join(fixed[:-1]), fixed[-1])))
        raise click.UsageError(f"{named} cannot change on --resume: the run has its settings")


def place_now(out: Path, before: str, given: Path | None, argument: str) -> str:
    """Where the pictures are that the training in `out` learned from `before`: there, or at `given` if they were moved."""
    from taichi_nerf.training.run_folder import RunError

    is_there = Path(before).exists()
    if given is None or given.resolve() == Path(before):
        if is_there:
            return before
        raise RunError(out, f"was trained on {before}, which is not there any more; name its new place as {argument}")
    if is_there:
        raise RunError(out, f"was trained on {before}, not on {given}; leave {argument} out, or choose another --out")
    return str(given.resolve())
