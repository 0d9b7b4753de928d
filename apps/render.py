"""`taichi-nerf render`: a run along a camera path, as a video, a GIF or a folder of pictures."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command
from taichi_nerf.apps.kinds import Kinds
from taichi_nerf.apps.run_options import (
    MOST_FRAMES,
    fps_option,
    open_run,
    refuse_idle_rate,
    refuse_run_folder,
    run_options,
    told_frames,
)
from taichi_nerf.choices import PATHS, PICTURES


@click.command(cls=Command)
@run_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="X.mp4, X.gif, or a folder for PNGs.")
@click.option("--path", "path", metavar="|".join((*PATHS, "FILE.json")),
              help="The way of the camera.  [default: orbit; spiral where all views face one way]")  # fmt: skip
@click.option("--n-frames", type=click.IntRange(1, MOST_FRAMES),
              help="[default: 120; all of a file's or of the test views; more repeat some]")  # fmt: skip
@fps_option("30, or the file's")
@click.option("--width", type=click.IntRange(1, 16384), help="[default: that of the views, or the file's]")
@click.option("--height", type=click.IntRange(1, 16384))
@click.option("--what", type=Kinds(PICTURES), default="color", show_default=True,
              help=f"{','.join(PICTURES)}: several side by side.")  # fmt: skip
@click.option("--antialias", type=click.IntRange(1, 8), default=1, show_default=True,
              help="Smooth edges and fine patterns: N x N rays for each pixel, in N² times the time.")  # fmt: skip
def render(
    run: Path, scene: Path | None, arch: str, out: Path, path: str | None, n_frames: int | None, fps: float | None,
    width: int | None, height: int | None, what: list[str], antialias: int,
) -> None:  # fmt: skip
    """Render RUN along a camera path. A folder keeps its frames: what is there already is not rendered again,
    and one with frames of another path, step, --what or --antialias is refused.

    \b
    Examples:
      taichi-nerf render runs/chair --out orbit.mp4 --what color,depth
      torchrun --nproc-per-node 2 -m taichi_nerf render runs/chair --out frames
    """
    from taichi_nerf import runtime
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.export.video import expect_frames, open_frames
    from taichi_nerf.training.distributed import world
    from taichi_nerf.training.render_path import about_frames, cameras_of_path, frames

    expect_frames(out, fps or 30.0)
    refuse_idle_rate(out, fps)
    refuse_run_folder(out)
    arch = runtime.choose() if arch == "auto" else arch
    with world("cuda" if arch == "cuda" else "cpu") as ranks:
        if ranks.size > 1 and out.suffix and not out.is_dir():
            raise ValueError(f"{out}: several processes share the frames of a folder, not of a video; give --out a folder")
        loaded = open_run(run, scene, arch, quiet=not ranks.is_main)
        path = path or ("spiral" if loaded.scene.bounds.forward_facing else "orbit")
        cameras, usual_fps = cameras_of_path(loaded.scene, path, n_frames, width, height)
        about = about_frames(loaded, cameras, what, antialias)
        with progress() as report, open_frames(out, fps or usual_fps, about, report) as target:
            missing = set(target.missing(len(cameras)))
            mine = [number for number in ranks.share(len(cameras)) if number in missing]
            done = 0

            def tell(share: float) -> None:  # of the frame after those that are done
                report((done + share) / len(mine), f"frame {done} of {len(mine)}")

            for number, picture in frames(loaded, cameras, mine, what, antialias, tell):
                target.add(picture, number)
                done += 1
                tell(0.0)
        ranks.barrier()
        if ranks.is_main:
            click.echo(told_frames(out, len(cameras), len(missing)))
