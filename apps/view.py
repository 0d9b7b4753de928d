"""`taichi-nerf view`: a run or a scene in the browser."""

from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import Command, arch_option
from taichi_nerf.apps.view_options import live_kernels_of, place_of, view_options


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN|SCENE")
@click.option("--scene", type=click.Path(path_type=Path), help="Where the run's scene is now, if it was moved.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Where screenshots and camera paths go.  [default: RUN/viewer; viewer/ for a scene]")  # fmt: skip
@arch_option
@view_options
def view(run: Path, scene: Path | None, out: Path | None, arch: str, **options: Any) -> None:
    """Look at RUN in a browser: fly around, see depths, normals and what rendering costs, record a camera path. A scene
    that was not trained yet shows its cameras and points. Ctrl-C ends it.

    \b
    Examples:
      taichi-nerf view runs/chair
      taichi-nerf view photos/fox
      taichi-nerf view runs/chair --watch-kernels --kernel compositing=my_kernels.py
    """
    from taichi_nerf.training.interrupt import StopSignals
    from taichi_nerf.training.run_folder import RunFolder
    from taichi_nerf.viewer.viewer import Viewer

    is_run = RunFolder(run).config.is_file()
    place = place_of(options, out or (run / "viewer" if is_run else Path("viewer")))
    if is_run:
        from taichi_nerf.apps.run_options import open_run
        from taichi_nerf.training.render_path import LEVELS

        loaded = open_run(run, scene, arch)
        kernels = live_kernels_of(options)
        shown, model, background = loaded.scene, loaded.model, LEVELS[loaded.config.run.background]
    else:
        from taichi_nerf.scenes import load_scene

        if options["own_kernels"] or options["watch_kernels"]:
            raise click.UsageError(f"{run} is no run: there is nothing that kernels render")
        shown, model, background, kernels = load_scene(run), None, 1.0, None
    with Viewer(shown, place, model, background) as viewer, StopSignals() as stop:
        viewer.warm_up()
        click.echo(viewer.url)
        viewer.serve(lambda: stop.requested, kernels)
