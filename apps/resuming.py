"""What `--resume` may change: where a training is and how long it lasts. Of all else the folder has its own settings."""

from collections.abc import Container

import click

from taichi_nerf.apps.command import given_options

ANYWHERE = {"out", "arch", "steps", "time_budget", "resume", "overwrite", "dry_run", "debug"}


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
