"""`taichi-nerf generator render`: an object of a generator from many sides, as pictures, a video or a scene."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command, arch_option, given_options, seed_option
from taichi_nerf.apps.generator_options import model_option, start_backend
from taichi_nerf.apps.kinds import Kinds
from taichi_nerf.apps.run_options import fps_option, refuse_idle_rate
from taichi_nerf.quoting import quote

DEFAULT_FPS = 10.0


@click.command(cls=Command)
@model_option
@seed_option(500, "Which object.")
@click.option("--out", type=click.Path(path_type=Path), help="X.mp4, X.gif, a folder for PNGs, or X.png: all in a row.")
@click.option("--to-scene", type=click.Path(path_type=Path, file_okay=False), help="A new folder: the views and their poses.")
@click.option("--n-frames", type=click.IntRange(3, 9999), default=15, show_default=True, help="Over the whole turn; odd.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Of the turn.")
@fps_option("10")
@click.option(
    "--what",
    type=Kinds(("refined", "gan", "depth")),
    default="refined",
    show_default=True,
    help="refined, gan, depth: several in rows, or side by side.",
)
@click.option("--diffusion-steps", type=click.IntRange(min=1), default=1, show_default=True, help="More than one: DDIM.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@arch_option
def render(model: str, seed: int, out: Path | None, to_scene: Path | None, n_frames: int, share: float, fps: float | None,
           what: list[str], diffusion_steps: int, overwrite: bool, arch: str) -> None:  # fmt: skip
    """Turn an object of MODEL.

    \b
    Examples:
      taichi-nerf generator render --model models/heads --seed 3 --out turn.png --what gan,refined,depth
      taichi-nerf generator render --model models/heads --seed 3 --to-scene head
      taichi-nerf train head --out runs/head --time-budget 60
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.export.colors import side_by_side
    from taichi_nerf.export.files import expect_writable
    from taichi_nerf.export.video import expect_frames, frames_in, open_frames, remove_frames
    from taichi_nerf.generator.grids import save_rows
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.render import turn_plainly, turn_seed
    from taichi_nerf.generator.stages import open_depth_pose, open_refiner, open_turns, reach_of
    from taichi_nerf.generator.to_scene import write_scene
    from taichi_nerf.scenes.unfinished import require_free

    if out is None and to_scene is None:
        raise click.UsageError("where to? give --out, --to-scene, or both")
    refuse_idle_rate(out, fps)
    plainly = to_scene is None and set(what) == {"gan"}
    if plainly and "diffusion_steps" in {option.name for option in given_options(click.get_current_context())}:
        raise click.UsageError("--diffusion-steps are of the refiner, which --what gan leaves out")
    rate = DEFAULT_FPS if fps is None else fps
    if out is not None and (out.is_file() or frames_in(out)) and not overwrite:
        raise ValueError(f"{out}: is there already; choose another --out, or add --overwrite")
    if out is not None and out.suffix.lower() == ".png":
        expect_writable(out)
    elif out is not None:
        expect_frames(out, rate)
    if to_scene is not None:
        require_free(to_scene)
        expect_writable(to_scene)
    folder, device = ModelFolder(model), start_backend(arch).torch_device
    refiner, reach = None, reach_of(folder)
    if folder.refiner.exists() or "refined" in what:
        refiner, reach = open_refiner(folder, device)
    turns = open_turns(folder, device, reach)
    if plainly:
        turn, pictures = None, {"gan": turn_plainly(turns, seed, n_frames, share)}
    else:
        with progress() as report:
            turn = turn_seed(turns, open_depth_pose(folder, device), refiner, seed, n_frames, diffusion_steps, share, report)
        pictures = turn.pictures
    if out is not None and out.suffix.lower() == ".png":
        save_rows(out, [pictures[kind] for kind in what])
        click.echo(out)
    elif out is not None:
        remove_frames(out)  # of a former turn, which may have had more
        with open_frames(out, rate) as frames:
            for i in range(len(pictures[what[0]])):
                frames.add(side_by_side([pictures[kind][i] for kind in what]), i)
        click.echo(f"{len(pictures[what[0]])} frames: {out}")
    if to_scene is not None and turn is not None:
        write_scene(to_scene, turn.pictures["refined"], turn.motions, turn.focal)
        run = Path("runs") / to_scene.name
        click.echo(f"{len(turn.motions)} views: {to_scene}")
        click.echo(f"next:  taichi-nerf train {quote(to_scene)} --out {quote(run)}")
