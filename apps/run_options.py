"""What the commands that open a run have in common."""

from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import arch_option
from taichi_nerf.apps.scene_options import options_of
from taichi_nerf.choices import LARGEST_RATE, LEAST_RATE

RUN = (
    click.argument("run", type=click.Path(path_type=Path)),
    click.option("--scene", type=click.Path(path_type=Path), help="Where the run's scene is now, if it was moved."),
    arch_option,
)
run_options = options_of(RUN)


def open_run(run: Path, scene: Path | None, arch: str, quiet: bool = False) -> Any:
    """Start the backend and load the run; warnings go to stderr."""
    from taichi_nerf import runtime
    from taichi_nerf.training.run import load_run
    from taichi_nerf.training.run_kinds import SCENE, open_kind

    open_kind(run, SCENE)  # a wrong name is told before a backend is started
    backend = runtime.start(arch)
    loaded = load_run(run, backend.torch_device, scene)
    for warning in () if quiet else loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded


MOST_FRAMES = 100_000  # their names have five digits


def fps_option(usual: str) -> Any:
    """`--fps`, of the rates that a video can have."""
    told = f"Frames a second, of a video.  [default: {usual}]"
    return click.option("--fps", type=click.FloatRange(LEAST_RATE, LARGEST_RATE), help=told)


def refuse_idle_rate(out: Path | None, fps: float | None) -> None:
    """Complain of --fps where --out, if there is one, is of pictures."""
    from taichi_nerf.export.video import is_video

    if fps is not None and (out is None or not is_video(out)):
        raise click.UsageError("--fps is of a video: leave it out, or let --out be an .mp4 or .gif")


def refuse_run_folder(out: Path) -> None:
    """Frames would stand among the run's own files, which overwriting the run does not clear of them."""
    from taichi_nerf.training.run_kinds import kind_of

    if kind_of(out) is not None:
        raise ValueError(f"{out}: is the folder of a run; give the frames one of their own, as {out / 'frames'}")


def told_frames(out: Path, n: int, n_made: int) -> str:
    """That all frames are there, and how many of them were before."""
    return f"{n} frames" + (f", {n - n_made} of them were there already" if n_made < n else "") + f": {out}"
