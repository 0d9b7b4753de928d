"""`taichi-nerf view`: a run or a scene in the browser."""

from errno import ENOENT
from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import Command, arch_option, given_options
from taichi_nerf.apps.scene_options import OUTSIDE, PLACE, PROTOCOL, SIZE, VIEWS, open_scene, options_of
from taichi_nerf.apps.view_options import live_kernels_of, place_of, view_options
from taichi_nerf.choices import LEVELS

OF_A_SCENE = {"views", "n_views", "protocol", "downscale", "center", "scale", "axes", "allow_outside"}  # a run has its own


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN|SCENE")
@click.option("--scene", type=click.Path(path_type=Path), help="Where the run's scene is now, if it was moved.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Where screenshots and camera paths go.  [default: RUN/viewer; viewer/ for a scene]")  # fmt: skip
@arch_option
@options_of(VIEWS, PROTOCOL, SIZE, PLACE, OUTSIDE)
@view_options
@click.pass_context
def view(context: click.Context, run: Path, scene: Path | None, out: Path | None, arch: str, **options: Any) -> None:
    """Look at RUN in a browser: fly around, see depths, normals and what rendering costs, record a camera path. A scene
    that was not trained yet shows its cameras and points; --views to --allow-outside say how it is read. Ctrl-C ends it.

    \b
    Examples:
      taichi-nerf view runs/chair
      taichi-nerf view photos/fox
      taichi-nerf view runs/chair --watch-kernels --kernel compositing=my_kernels.py
    """
    from taichi_nerf.training.interrupt import StopSignals
    from taichi_nerf.training.run_folder import RunFolder
    from taichi_nerf.viewer.viewer import Viewer

    if not run.exists():
        raise FileNotFoundError(ENOENT, "no such run or scene", str(run))
    folder = RunFolder(run)
    is_run = folder.config.is_file() or folder.checkpoint.is_file()  # of a copy without its config.json that tells enough
    place = place_of(options, out or (run / "viewer" if is_run else Path("viewer")))
    given = {option.name: option.opts[0] for option in given_options(context)}
    if is_run:
        idle = [option for name, option in given.items() if name in OF_A_SCENE]
        if idle:
            raise click.UsageError(f"{idle[0]} is for a scene: {run} is a run, which has its settings")
        from taichi_nerf.apps.run_options import open_run

        loaded = open_run(run, scene, arch)
        kernels = live_kernels_of(options)
        shown, model, background = loaded.scene, loaded.model, LEVELS[loaded.config.run.background]
    else:
        if scene is not None:
            raise click.UsageError(f"{run} is no run: --scene says where the scene of a run is now")
        if "arch" in given:
            raise click.UsageError(f"{run} is no run: nothing is rendered, on no --arch")
        if options["own_kernels"] or options["watch_kernels"]:
            raise click.UsageError(f"{run} is no run: there is nothing that kernels render")
        shown, model, background, kernels = open_scene(run, options), None, 1.0, None
    if model is not None:
        click.echo("compiling kernels; the address comes when they are ready", err=True)
    with Viewer(shown, place, model, background) as viewer, StopSignals() as stop:
        viewer.warm_up()
        click.echo(viewer.url)
        viewer.serve(lambda: stop.requested, kernels)
