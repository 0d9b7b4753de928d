"""`taichi-nerf train`: a scene to a run."""

from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps import train_steps
from taichi_nerf.apps.command import Command, arch_option, given_options, seed_option
from taichi_nerf.apps.resuming import refuse_both
from taichi_nerf.apps.scene_options import scene_options
from taichi_nerf.apps.view_options import OF_THE_VIEWER, view_options
from taichi_nerf.choices import BACKGROUNDS, METHODS
from taichi_nerf.quoting import quote
from taichi_nerf.report import silent


@click.command(cls=Command)
@click.argument("scene", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option("--method", type=click.Choice(METHODS), default="ngp", show_default=True)
@click.option("--preset", default="default", show_default=True, help="Settings to begin with: one of the method's.")
@arch_option
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--time-budget", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds of training.")
@click.option("--prior", metavar="FOLDER|FILE|builtin",
              help="A diffusion prior over patches, for few views; brings --geometry along.")  # fmt: skip
@click.option("--geometry/--no-geometry", default=None, help="Geometric terms for few views: opacity, frusta, distortion.")
@click.option("--background", type=click.Choice(BACKGROUNDS),
              help="What pictures with alpha, or masks, are evaluated on.  "
              "[default: black for objects with masks, else white]")  # fmt: skip
@seed_option()
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; of all settings only the budget may change.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out, once the new one can begin.")
@click.option("--dry-run", is_flag=True, help="Print every setting and why, or what is in the way; train and write nothing.")
@scene_options
@click.option("--view", "watches", is_flag=True, help="Show the training in a browser while it runs.")
@view_options
@click.pass_context
def train(context: click.Context, scene: Path | None, out: Path, arch: str, **options: Any) -> None:
    """Train a radiance field on SCENE until --steps or --time-budget is spent, whichever comes first.

    The time budget counts training, without compiling. Ctrl-C saves, and --resume goes on.

    \b
    Examples:
      taichi-nerf train scenes/chair --out runs/chair --time-budget 60
      taichi-nerf train scenes/room --out runs/room --n-views 3 --prior builtin
      taichi-nerf train --out runs/chair --resume --time-budget 120
      torchrun --nproc-per-node 2 -m taichi_nerf train scenes/chair --out runs/chair
    """
    from taichi_nerf import runtime
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.training.distributed import world
    from taichi_nerf.training.interrupt import StopSignals
    from taichi_nerf.training.run import train as train_run

    refuse_both(options["resume"], options["overwrite"])
    if scene is None and not options["resume"]:
        raise click.UsageError("Missing argument 'SCENE'.")
    idle = [option.opts[0] for option in given_options(context) if option.name in OF_THE_VIEWER and not options["watches"]]
    if idle:
        raise click.UsageError(f"{idle[0]} is of the viewer: it goes with --view")
    arch = runtime.choose() if arch == "auto" else arch
    with world("cuda" if arch == "cuda" else "cpu") as ranks:
        where, say = train_steps.started(arch, ranks)
        device = ranks.device
        if options["resume"]:
            config, found, notes = train_steps.configuration_to_resume(context, scene, out, options)
        else:
            assert scene is not None
            config, found, notes = train_steps.configuration(scene, out, options, device)
        for note in (*notes, *(f"warning: {warning}" for warning in found.warnings)):
            say(note, err=not options["dry_run"])
        if options["dry_run"]:
            from taichi_nerf.settings import describe
            from taichi_nerf.training.folder_lock import expect_free
            from taichi_nerf.training.run import expect_to_train

            if ranks.is_main:
                expect_free(out)
            expect_to_train(config, found, device, options["resume"])
            say("\n".join(describe(config)))
            return
        say(where)
        with (
            StopSignals() as stop,
            train_steps.onlooker_of(config, out, options, ranks, stop) as onlooker,
            train_steps.open_folder(out, options, ranks) as folder,
            progress() as report,
        ):
            quiet = report if ranks.is_main else silent
            outcome = train_run(config, found, folder, device, resume=options["resume"], report=quiet,
                                stop=lambda: stop.requested, world=ranks, onlooker=onlooker)  # fmt: skip
        train_steps.tell_end(outcome, out, "train", stop, say)
        held_out = len(found.splits.get("test", ()))
        say(f"how good it is:  {f'taichi-nerf evaluate {quote(out)}' if held_out else 'no view was held out to tell by'}")
        say(f"a video:         taichi-nerf render {quote(out)} --out {quote(out / 'orbit.mp4')}")
