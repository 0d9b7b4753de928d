"""`taichi-nerf pixelnerf`: a prior over objects, and what it makes of one or a few pictures."""

from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import LARGEST_SEED, Group, arch_option, seed_option
from taichi_nerf.apps.kinds import Kinds
from taichi_nerf.apps.pixelnerf_options import refuse_idle, turntable_options
from taichi_nerf.apps.run_options import MOST_FRAMES, fps_option, refuse_idle_rate, refuse_run_folder, told_frames
from taichi_nerf.apps.scene_options import Views
from taichi_nerf.quoting import quote
from taichi_nerf.report import silent

WHAT = ("color", "depth", "opacity")
HELD_OUT = range(9000, 9006)  # seeds of `objects` that are validated with, and so the end of those that are trained on
SETTINGS = click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE",
                        help="What the authors' files do not say, or another value; may be repeated.")  # fmt: skip


@click.group(cls=Group)
def pixelnerf() -> None:
    """Radiance fields from one or a few pictures, with a prior learned over many objects. Each command takes --debug.

    \b
    Example:
      taichi-nerf pixelnerf render chair.png --turntable --out chair.mp4
    """


@pixelnerf.command()
@click.argument("objects", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option("--views", type=Views(),
              help="How many source views: 1,2 takes either by chance.  [default: published 1, small 1,2]")  # fmt: skip
@click.option("--preset", type=click.Choice(["published", "small"]), help="[default: published on CUDA, small elsewhere]")
@arch_option
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--time-budget", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds of training.")
@click.option("--encoder", type=click.Path(path_type=Path), metavar="RESNET", help="torchvision's resnet34-*.pth to begin with.")
@click.option("--start", metavar="MODEL", help="Begin with the weights of a run, of a file, or of builtin.")
@click.option("--background", type=click.Choice(["white", "black"]), default="white", show_default=True)
@click.option("--prefix", default="", help="Which lists of a set in NMR's form: softras, gen or new.")
@seed_option()
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out; only the budget may change.")
@click.option("--overwrite", is_flag=True, help="Replace the run in --out, once the new one can begin.")
@click.option("--dry-run", is_flag=True, help="Print every setting, or what is in the way; train and write nothing.")
@click.pass_context
def train(context: click.Context, objects: Path | None, out: Path, arch: str, encoder: Path | None, start: str | None,
          **options: Any) -> None:  # fmt: skip
    """Train a prior over the set OBJECTS: SRN, DVR or NMR, DTU, or one of `taichi-nerf pixelnerf objects`.

    \b
    Examples:
      taichi-nerf pixelnerf train chairs_and_cars --out runs/prior --preset small --views 1,2 --time-budget 3600
      taichi-nerf pixelnerf train my_chairs --out runs/mine --preset small --start builtin --views 1,2 --time-budget 1200
      torchrun --nproc-per-node 4 -m taichi_nerf pixelnerf train NMR_Dataset --out runs/nmr --steps 400000
    """
    from taichi_nerf import runtime
    from taichi_nerf.apps.pixelnerf_steps import configuration
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.apps.train_steps import open_folder, started, tell_end
    from taichi_nerf.settings import describe
    from taichi_nerf.training.distributed import world
    from taichi_nerf.training.folder_lock import expect_free
    from taichi_nerf.training.interrupt import StopSignals
    from taichi_nerf.training.pixelnerf_objects import ObjectSet
    from taichi_nerf.training.train_pixelnerf import train as train_prior

    if start is not None and (encoder is not None or options["resume"]):
        raise click.UsageError("--start gives all weights: it goes neither with --encoder nor with --resume")
    arch = runtime.choose() if arch == "auto" else arch
    config, notes = configuration(context, objects, out, arch, options)
    with world("cuda" if arch == "cuda" else "cpu") as ranks:
        if options["dry_run"]:
            ObjectSet(config.objects, "train")
            if ranks.is_main:
                expect_free(out)
                click.echo("\n".join([*notes, *describe(config)]))
            return
        where, say = started(arch, ranks)
        say(where)
        for note in notes:
            say(note, err=True)
        with open_folder(out, options, ranks) as folder, progress() as report, StopSignals() as stop:
            quiet = report if ranks.is_main else silent
            outcome = train_prior(config, folder, ranks.device, resume=options["resume"], encoder=encoder, start=start,
                                  report=quiet, stop=lambda: stop.requested, world=ranks)  # fmt: skip
        tell_end(outcome, out, "pixelnerf train", stop, say)
        say(f"how good it is:  taichi-nerf pixelnerf evaluate {quote(out)}")


@pixelnerf.command()
@click.argument("model", default="builtin")
@click.argument("objects", type=click.Path(path_type=Path), required=False)
@arch_option
@click.option("--split", default="test", show_default=True)
@click.option("--views", type=Views(), default="0", show_default=True, help="Source views: SRN 64 or 64,104; DTU 22,25,28.")
@click.option("--view-list", type=click.Path(path_type=Path), help="Source views object by object: category object view …")
@click.option("--targets", type=Views(), help="Views to compare with.  [default: all but the sources]")
@click.option("--without", type=Views(), help="Views to leave out, such as over-exposed ones of DTU.")
@click.option("--prefix", default="", help="Which lists of a set in NMR's form: softras, gen or new.")
@click.option("--lpips", type=click.Path(path_type=Path), metavar="WEIGHTS", help="Folder or file of LPIPS' weights.")
@SETTINGS
@click.option(
    "--sampling-seed",
    type=click.IntRange(0, LARGEST_SEED),
    help="Draw samples at random, as the published code does.  [default: evenly]",
)
@click.option("--save-images", is_flag=True, help="Keep the rendered views beside the figures.")
@click.option("--out", type=click.Path(path_type=Path), help="Where figures go.  [default: RUN/eval/SPLIT, or ./pixelnerf_eval]")
def evaluate(model: str, objects: Path | None, arch: str, out: Path | None, **options: Any) -> None:
    """Show objects that MODEL never saw from some of their views, and compare: PSNR, SSIM and, with weights, LPIPS.

    MODEL is a run, a file of weights, or builtin; OBJECTS a set, by default the run's own.

    \b
    Example:
      taichi-nerf pixelnerf evaluate runs/cars cars_set --views 64,104
    """
    from taichi_nerf.apps.pixelnerf_steps import evaluation
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.export.files import expect_writable, write_whole
    from taichi_nerf.runtime import start
    from taichi_nerf.training.pixelnerf_evaluate import as_json, as_text, trained_on
    from taichi_nerf.training.pixelnerf_evaluate import evaluate as evaluate_prior

    if out is not None and out.is_file():
        raise ValueError(f"{out}: is a file; figures go into a folder")
    device = start(arch).torch_device
    prior, found, arguments, folder = evaluation(model, objects, out, options, device)
    expect_writable(folder)  # before the work, not after
    known = trained_on(prior, found)
    if known and options["split"] != "train":
        click.echo(
            f"warning: {model} was trained on {known} of these {len(found)} objects; its set holds none of them out", err=True
        )
    with progress() as report:
        figures = evaluate_prior(prior, found, device=device, report=report, **arguments)
    write_whole(folder / "metrics.json", as_json({"model": model, "split": options["split"], "n_trained_on": known, **figures}))
    click.echo(as_text(figures))
    click.echo(f"{figures['n_images']} images, {figures['seconds_per_image']:.3f} s each: {folder / 'metrics.json'}")


@pixelnerf.command()
@click.argument("pictures", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="X.mp4, X.gif, or a folder for PNGs.")
@click.option("--model", default="builtin", show_default=True, help="A run, a file of weights, or builtin.")
@SETTINGS
@arch_option
@click.option("--views", type=Views(), default="0", show_default=True, help="Source views, of a folder that has poses.")
@turntable_options
@click.option("--n-frames", type=click.IntRange(1, MOST_FRAMES), help="[default: 60; all of a file's]")
@fps_option("20, or the file's")
@click.option("--width", type=click.IntRange(8, 4096), help="Of the frames.  [default: that of the pictures, or the file's]")
@click.option("--path", "path", type=click.Path(path_type=Path), metavar="FILE.json", help="Camera path.  [default: an orbit]")
@click.option("--what", type=Kinds(WHAT), default="color", show_default=True, help=f"{','.join(WHAT)}: several side by side.")
@click.option("--refine", type=click.IntRange(min=1), metavar="STEPS", help="Fine-tune to the given pictures first.")
@click.option("--distil", type=click.Path(path_type=Path), metavar="FOLDER", help="Also make a hash grid of it: FOLDER/run.")
@click.option("--distil-seconds", type=click.FloatRange(min=1), default=30, show_default=True)
@seed_option()
@click.pass_context
def render(context: click.Context, pictures: tuple[Path, ...], out: Path, arch: str, n_frames: int | None, fps: float | None,
           width: int | None, what: list[str], **options: Any) -> None:  # fmt: skip
    """A video around a thing, from one or a few PICTURES of it: files with --turntable, or a folder with poses and --views.

    A folder of frames goes on only with the same render.

    \b
    Examples:
      taichi-nerf pixelnerf render chair.png --turntable --out chair.mp4
      taichi-nerf pixelnerf render set/chairs_val/09000 --views 0,1 --out chair.gif --distil chair
    """
    from taichi_nerf.apps.pixelnerf_steps import FPS, about, cameras_for, idle_in_render, refined, viewed
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.camera_path import read_camera_path
    from taichi_nerf.export.files import expect_writable
    from taichi_nerf.export.video import expect_frames, open_frames
    from taichi_nerf.runtime import start
    from taichi_nerf.training.pixelnerf_distil import distil, require_places
    from taichi_nerf.training.pixelnerf_model import load_prior
    from taichi_nerf.training.pixelnerf_render import frames

    refuse_idle(context)
    expect_frames(out, fps or FPS)
    if options["path"] is not None:
        read_camera_path(options["path"])  # what is wrong with it is told before the work
    refuse_idle_rate(out, fps)
    refuse_run_folder(out)
    if options["distil"] is not None:
        require_places(options["distil"])
        expect_writable(options["distil"])
    device = start(arch).torch_device
    prior = load_prior(options["model"], device, options["settings"], idle_in_render(options))
    with progress() as report:
        item, sources = viewed(pictures, prior, options, device, report)
        cameras, usual_fps = cameras_for(item, sources, n_frames, width, options["path"])
        told = about(prior, item, sources, cameras, what, options)
        with open_frames(out, fps or usual_fps, told, report) as target:
            prior = refined(prior, item, sources, options, device, report)
            missing = target.missing(len(cameras))
            for done, (number, frame) in enumerate(frames(prior, item, sources, cameras, missing, device, what), 1):
                target.add(frame, number)
                report(done / len(missing), f"frame {done} of {len(missing)}")
        click.echo(told_frames(out, len(cameras), len(missing)))
        if options["distil"] is not None:
            folder, seconds = options["distil"], options["distil_seconds"]
            distil(prior, item, sources, folder, device, seconds=seconds, width=width, seed=options["seed"], report=report)
            made = folder / "run"
            click.echo(f"a run that renders at once: {made}; its mesh: taichi-nerf export {quote(made)} --out x.glb")


@pixelnerf.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--families", default="chairs,cars", show_default=True)
@click.option("--count", type=click.IntRange(1, HELD_OUT.start), default=300, show_default=True,
              help="Objects of each family, from seed 0.")  # fmt: skip
@click.option("--n-views", type=click.IntRange(2, 10_000), default=12, show_default=True)
@click.option("--size", type=click.IntRange(8, 1024), default=64, show_default=True, help="Pixels a side.")
@arch_option
def objects(out: Path, families: str, count: int, n_views: int, size: int, arch: str) -> None:
    """Make a set of procedural objects in SRN's form: seeds from 0 to train on, 9000 to 9005 to validate with.

    \b
    Example:
      taichi-nerf pixelnerf objects chairs_and_cars --count 1000
    """
    from taichi_nerf.scenes.unfinished import require_free

    require_free(out)  # before a backend is started
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.procedural.object_set import make_object_set
    from taichi_nerf.runtime import start

    start(arch)
    seeds = {"train": range(count), "val": HELD_OUT}
    named = dict.fromkeys(family.strip() for family in families.split(","))
    with progress() as report:

        def tell(done: int, of: int) -> None:
            report(done / of, f"object {done} of {of}")

        make_object_set(named, out, seeds, n_views=n_views, size=size, report=tell)
    click.echo(out)
