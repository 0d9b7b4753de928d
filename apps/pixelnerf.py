"""`taichi-nerf pixelnerf`: a prior over objects, and what it makes of one or a few pictures."""

import sys
from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import Command, Group, arch_option
from taichi_nerf.apps.scene_options import Views


@click.group(cls=Group)
def pixelnerf() -> None:
    """Radiance fields from one or a few pictures, with a prior learned over many objects.

    \b
    Example:
      taichi-nerf pixelnerf render chair.png --turntable --out chair.mp4
    """


@pixelnerf.command()
@click.argument("objects", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option("--views", type=Views(), default="1", show_default=True, help="How many source views: 1,2 takes either by chance.")
@click.option("--preset", type=click.Choice(["published", "small"]), default="published", show_default=True)
@arch_option
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--time-budget", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds of training.")
@click.option("--encoder", type=click.Path(path_type=Path), metavar="RESNET", help="torchvision's resnet34-*.pth to begin with.")
@click.option("--background", type=click.Choice(["white", "black"]), default="white", show_default=True)
@click.option("--prefix", default="", help="Which lists of a set in NMR's form: softras, gen or new.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; only the budget may change.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option("--dry-run", is_flag=True, help="Print every setting, and train nothing.")
def train(objects: Path | None, out: Path, arch: str, encoder: Path | None, **options: Any) -> None:
    """Train a prior over the set OBJECTS: SRN, DVR or NMR, DTU, or one of `taichi-nerf pixelnerf objects`.

    \b
    Examples:
      taichi-nerf pixelnerf train chairs_and_cars --out runs/prior --preset small --views 1,2 --time-budget 3600
      torchrun --nproc-per-node 4 -m taichi_nerf pixelnerf train NMR_Dataset --out runs/nmr --steps 400000
    """
    from taichi_nerf import runtime
    from taichi_nerf.apps.pixelnerf_steps import configuration
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.apps.train_steps import open_folder
    from taichi_nerf.training.distributed import world
    from taichi_nerf.training.interrupt import StopSignals
    from taichi_nerf.training.settings import describe
    from taichi_nerf.training.train_pixelnerf import train as train_prior

    config = configuration(objects, out, options)
    if options["dry_run"]:
        click.echo("\n".join(describe(config)))
        return
    arch = runtime.choose() if arch == "auto" else arch
    with world("cuda" if arch == "cuda" else "cpu") as ranks:
        threads = max(1, runtime.available_threads() // ranks.size)
        backend = runtime.start(arch, threads if ranks.size > 1 else None)
        say = click.echo if ranks.is_main else lambda text, err=False: None
        say(f"training on {backend.arch} ({backend.device_name})" + (f", {ranks.size} processes" if ranks.size > 1 else ""))
        with open_folder(out, options, ranks) as folder, progress() as report, StopSignals() as stop:
            quiet = report if ranks.is_main else (lambda done, text: None)
            outcome = train_prior(config, folder, ranks.device, resume=options["resume"], encoder=encoder, report=quiet,
                                  stop=lambda: stop.requested, world=ranks)  # fmt: skip
        say(f"{outcome.n_steps} steps in {outcome.seconds:.1f} s of training: {out}")
        if outcome.stopped:
            say(f"stopped and saved; go on with: taichi-nerf pixelnerf train --out {out} --resume", err=True)
            sys.exit(stop.exit_status)
        say(f"how good it is:  taichi-nerf pixelnerf evaluate {out}")
