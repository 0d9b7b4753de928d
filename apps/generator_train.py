"""`taichi-nerf generator train`: pictures to a StyleGAN2."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taichi_nerf.apps.command import Command, arch_option, seed_option
from taichi_nerf.apps.generator_options import hold_generator, start_backend
from taichi_nerf.quoting import quote

if TYPE_CHECKING:
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.stylegan2.run import GanRun


@click.command(cls=Command)
@click.argument("images", required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the model.")
@click.option("--size", type=click.IntRange(8, 1024), help="Pixels a side, a power of two.  [default: as the pictures have]")
@click.option("--kimg", type=click.FloatRange(0, 1e9, min_open=True), help="Stop after so many thousand images shown.")
@click.option("--time-budget", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds.")
@click.option("--channels", type=click.IntRange(64, 2**20), default=1024, show_default=True,
              help="Channels are this divided by the resolution; 16384 is the published width at 256 pixels.")  # fmt: skip
@click.option(
    "--most-channels", type=click.IntRange(8, 8192), default=128, show_default=True, help="But at most so many, as in w."
)
@click.option("--batch", type=click.IntRange(2, 4096), default=16, show_default=True)
@click.option("--r1", type=click.FloatRange(min=0), help="γ of the gradient penalty.  [default: 0.0008 size² / batch]")
@click.option(
    "--grow-at", type=click.FloatRange(0, 1e9), default=0, show_default=True, help="Half the resolution up to here (kimg)."
)
@click.option("--augment", is_flag=True, help="Augment adaptively, for sets of fewer than some thousand pictures.")
@click.option("--mirror", is_flag=True, help="A mirrored picture belongs to the set as well.")
@click.option("--noise/--no-noise", default=True, show_default=True, help="Without, no detail sticks to the screen in a turn.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@seed_option()
@click.option("--resume", is_flag=True, help="Go on with the training in --out; of all settings only the budget may change.")
@arch_option
@click.pass_context
def train(context: click.Context, images: str | None, out: Path, kimg: float | None, time_budget: float | None, resume: bool,
          arch: str, **options: Any) -> None:  # fmt: skip
    """Train a StyleGAN2 on IMAGES: a folder of pictures, an .npz file, or heads[:PERSONS], which are rendered first.

    Ctrl-C saves, and --resume goes on as if nothing had happened.

    \b
    Examples:
      taichi-nerf generator train heads --out models/heads --size 64 --time-budget 3600
      taichi-nerf generator train photos/cats --out models/cats --size 128 --augment --mirror
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.generator.heads import pictures_of
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.stylegan2.run import train_generator
    from taichi_nerf.training.interrupt import StopSignals

    if images is None:
        raise click.UsageError("Missing argument 'IMAGES'.")
    if kimg is None and time_budget is None:
        raise click.UsageError("how long? give --kimg or --time-budget")
    folder = ModelFolder(out) if resume else ModelFolder(out).may_begin()
    kept = run_to_resume(context, folder, options) if resume else None
    if not resume and options["size"]:
        run_of(options, options["size"])  # complains of sizes before pictures are rendered, which takes minutes
    hold_generator(folder)
    backend = start_backend(arch)
    with progress() as report:
        size = kept.networks.resolution if kept else options["size"]
        keep = not (resume and folder.images.exists())  # those that the training began with stay, should these be others
        pictures = pictures_of(images, size, folder.images, keep, report)
    run = kept or run_of(options, pictures.size)
    click.echo(f"{len(pictures)} pictures of {pictures.size} pixels, on {backend.arch} ({backend.device_name})")
    with progress(30.0) as report, StopSignals() as stop:
        done = train_generator(folder, pictures, run, backend.torch_device, seconds=time_budget, resume=resume,
                               n_images=None if kimg is None else max(1, int(1000 * kimg)),
                               report=report, stop=lambda: stop.requested)  # fmt: skip
    click.echo(f"{done.n_images} images shown: {out}")
    if done.networks != run.networks:
        click.echo(f"warning: it stands at {done.networks.resolution} pixels; {run.networks.resolution} come after --grow-at "
                   f"{run.grow_at / 1000:g}, which --resume with a larger --kimg goes on to", err=True)  # fmt: skip
    if stop.requested:
        click.echo(f"stopped and saved; go on with the same command and --resume: {out}", err=True)
        sys.exit(stop.exit_status)
    click.echo(f"next:  taichi-nerf generator directions --model {quote(out)}")


def run_of(options: dict[str, Any], size: int) -> "GanRun":
    """What a new training is made of."""
    from taichi_nerf.generator.stylegan2.generator import GeneratorSettings
    from taichi_nerf.generator.stylegan2.run import GanRun
    from taichi_nerf.generator.stylegan2.training import GanSettings

    wide = options["most_channels"]
    networks = GeneratorSettings(size, wide, wide, 4 if wide < 512 else 8, options["channels"], wide)
    gamma = 0.0008 * size**2 / options["batch"] if options["r1"] is None else options["r1"]
    gan = GanSettings(batch=options["batch"], r1_gamma=gamma, mirror=options["mirror"], noise=options["noise"],
                      augment_target=0.6 if options["augment"] else None)  # fmt: skip
    return GanRun(networks, gan, int(1000 * options["grow_at"]), options["precision"], options["seed"])


def run_to_resume(context: click.Context, folder: "ModelFolder", options: dict[str, Any]) -> "GanRun":
    """That of the folder. The command it was started with may be repeated, so options with the same values are none too many."""
    from taichi_nerf.apps.resuming import refuse_changes
    from taichi_nerf.generator.stylegan2.run import begun

    kept = begun(folder)
    before, asked = told_by_options(kept), told_by_options(run_of(options, options["size"] or kept.networks.resolution))
    refuse_changes(context, {"kimg"}, {name for name, value in asked.items() if before[name] == value})
    return kept


def told_by_options(run: "GanRun") -> dict[str, Any]:
    """What each option has become of a training."""
    return {
        "size": run.networks.resolution,
        "channels": run.networks.channel_base,
        "most_channels": run.networks.channel_max,
        "batch": run.gan.batch,
        "r1": run.gan.r1_gamma,
        "grow_at": run.grow_at,
        "augment": run.gan.augment_target,
        "mirror": run.gan.mirror,
        "noise": run.gan.noise,
        "precision": run.precision,
        "seed": run.seed,
    }
