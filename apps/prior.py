"""`taichi-nerf prior`: what small pictures with depth look like, as a denoising diffusion model knows it."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taichi_nerf.apps.command import Group, arch_option, seed_option
from taichi_nerf.apps.resuming import refuse_both, refuse_changes
from taichi_nerf.quoting import quote

if TYPE_CHECKING:
    from taichi_nerf.training.prior_run import PriorConfig

PRIOR = click.argument("prior", default="builtin")
PRESETS = ("small", "published")
SMALL_ANGLE, SMALL_NEAREST = 53.13, 1.0  # degrees (24 pixels at a focal length of 24), metres


@click.group(cls=Group)
def prior() -> None:
    """Train, ask and show priors over RGBD patches, for training on few views (DiffusioNeRF). Each command takes --debug.

    \b
    Example:
      taichi-nerf train scenes/room --out runs/room --n-views 3 --prior builtin
    """


@prior.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the training.")
@click.option("--data", multiple=True, metavar="FAMILY[:N]|SCENE",
              help="N pictures of procedural rooms, objects, …, or a scene with depth maps; may be repeated.")  # fmt: skip
@click.option("--metric-scale", type=click.FloatRange(1e-9, 1e9), default=1.0, show_default=True,
              help="Metres per unit of length in the scenes' files.")  # fmt: skip
@click.option("--preset", type=click.Choice(PRESETS), default="small", show_default=True,
              help="small: 24 pixels, 0.7 M parameters, a wide angle; published: 48 pixels, 36 M, a narrow one.")  # fmt: skip
@click.option("--size", type=click.IntRange(8, 256), help="Pixels of a patch.")
@click.option("--angle", type=click.FloatRange(1, 120), help="Degrees that a patch is wide.  [default: 53, published 15.6]")
@click.option("--nearest", type=click.FloatRange(1e-9, 1e9),
              help="Metres that depths are cut off at; inverse depth is 1 there.  [default: 1, published 0.2]")  # fmt: skip
@click.option("--variant", type=click.Choice(["rgbd", "rgb", "d"]), default="rgbd", show_default=True)
@click.option("--schedule", type=click.Choice(["cosine", "linear"]), default="cosine", show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0, 100, min_open=True), help="[default: the preset's]")
@click.option("--steps", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--time-budget", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds of training.")
@click.option("--half", is_flag=True, help="Numbers of 16 bits in prior.safetensors.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use; all if not given.")
@seed_option()
@click.option("--resume", is_flag=True, help="Go on with the training in --out; only the budget may change.")
@click.option("--overwrite", is_flag=True, help="Replace the training in --out, once the new one can begin.")
@arch_option
@click.pass_context
def train(context: click.Context, out: Path, resume: bool, overwrite: bool, arch: str, threads: int | None,
          **options: Any) -> None:  # fmt: skip
    """Train a prior: OUT, or OUT/prior.safetensors, is what `taichi-nerf train --prior` takes.

    \b
    Examples:
      taichi-nerf prior train --data rooms:1600 --data objects:400 --time-budget 3600 --out priors/small
      taichi-nerf prior train --preset published --data hypersim/ai_001_001 --steps 650000 --out priors/hypersim
    """
    from taichi_nerf import runtime
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.training import prior_run
    from taichi_nerf.training.interrupt import StopSignals

    refuse_both(resume, overwrite)
    if resume:
        refuse_changes(context, {"threads"})
        config = prior_run.read_config(out, options["steps"], options["time_budget"])
    else:
        config = configuration(options)
        prior_run.require_free(out, overwrite)
    backend = runtime.start(arch, threads)
    with progress() as report, StopSignals() as stop:
        stopped, trainer = prior_run.run(config, out, backend.torch_device, resume=resume, threads=threads, report=report,
                                         stop=lambda: stop.requested)  # fmt: skip
    click.echo(f"{trainer.n_steps} steps in {trainer.stopwatch.seconds:.0f} s of training: {out / 'prior.safetensors'}")
    if stopped:
        click.echo(f"stopped and saved; go on with: taichi-nerf prior train --out {quote(out)} --resume", err=True)
        sys.exit(stop.exit_status)


def configuration(options: dict[str, Any]) -> "PriorConfig":
    from taichi_nerf.priors.channels import N_CHANNELS, NEAREST
    from taichi_nerf.priors.denoiser import DenoiserSettings
    from taichi_nerf.priors.patch_cameras import PatchLens
    from taichi_nerf.priors.prior import PriorSettings
    from taichi_nerf.training.prior_run import PatchSettings, PriorConfig, placed
    from taichi_nerf.training.train_prior import PriorTraining

    if options["steps"] is None and options["time_budget"] is None:
        raise click.UsageError("how long? give --steps or --time-budget")
    small = options["preset"] == "small"
    channels, size = N_CHANNELS[options["variant"]], options["size"] or (24 if small else 48)
    denoiser = DenoiserSettings(16, (1, 2, 4), channels) if small else DenoiserSettings(channels=channels)
    angle = options["angle"] or (SMALL_ANGLE if small else None)
    reach = PatchLens().reach if angle is None else 2 * math.tan(math.radians(angle / 2))
    prior = PriorSettings(
        denoiser,
        options["schedule"],
        size=size,
        focal=size / reach,
        nearest=options["nearest"] or (SMALL_NEAREST if small else NEAREST),
        variant=options["variant"],
    )
    rate = options["learning_rate"] or (1e-3 if small else 1e-4)
    average = 0.995 if small else 0.995 ** (1 / 10)  # published: at every tenth step
    training = PriorTraining(options["steps"], options["time_budget"], options["batch"], rate, average,
                             late_share=0.5 if small else 0.0, late_until=0.4, seed=options["seed"])  # fmt: skip
    sources = tuple(map(placed, options["data"])) or PatchSettings.sources
    # Small priors' patches are as wide as pictures, also of longer lenses.
    farthest = 2.0 if small else PatchSettings.farthest
    patches = PatchSettings(sources, options["metric_scale"], farthest=farthest, seed=options["seed"])
    return PriorConfig(prior, patches, training, options["half"])


@prior.command()
@PRIOR
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="patches.png", show_default=True)
@click.option("--n", type=click.IntRange(1, 256), default=24, show_default=True)
@click.option("--steps", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--eta", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Noise added on the way.")
@seed_option()
@arch_option
def sample(prior: str, out: Path, n: int, steps: int, eta: float, seed: int, arch: str) -> None:
    """Make patches out of noise and draw them: colors above depths.

    \b
    Example:
      taichi-nerf prior sample builtin --out patches.png
    """
    from taichi_nerf import runtime
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.export.files import expect_suffix, expect_writable, write_png
    from taichi_nerf.export.prior_sheets import sheet
    from taichi_nerf.priors.prior import load_prior
    from taichi_nerf.priors.sampling import sample_of_seed

    expect_suffix(out, (".png",))
    expect_writable(out)
    loaded = load_prior(prior)
    if steps > loaded.settings.n_times:
        raise click.BadParameter(f"the prior has {loaded.settings.n_times} times", param_hint="--steps")
    loaded.to(runtime.start(arch).torch_device)
    with progress() as report:
        drawn = sample_of_seed(loaded, n, seed, steps, eta, report)
    write_png(out, sheet(drawn, loaded.settings.variant, loaded.settings.nearest))
    click.echo(out)


@prior.command()
@PRIOR
@click.argument("data", metavar="FAMILY[:N]|SCENE")
@click.option("--n", type=click.IntRange(1, 4096), default=64, show_default=True, help="Patches.")
@click.option("--metric-scale", type=click.FloatRange(1e-9, 1e9), default=1.0, show_default=True,
              help="Metres per unit of length in the scene's files.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Draw patches, noisy ones, and what they were denoised to."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@seed_option()
@arch_option
def score(prior: str, data: str, n: int, metric_scale: float, out: Path | None, as_json: bool, seed: int, arch: str) -> None:
    """Tell how well a prior knows patches: how much of the noise in them it finds, at five noise levels.

    The patches are of pictures of procedural rooms, objects, … or of a scene with depth maps. An error of 0.8 is that of a prior
    that knows nothing. Score is the length of the gradient of log p for clean patches, per number.

    \b
    Example:
      taichi-nerf prior score builtin rooms:20
    """
    import json

    from taichi_nerf import runtime
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.export.files import expect_suffix, expect_writable, write_png
    from taichi_nerf.export.prior_sheets import sheet
    from taichi_nerf.priors.prior import load_prior
    from taichi_nerf.training.prior_score import score_patches

    if out is not None:
        expect_suffix(out, (".png",))
        expect_writable(out)
    loaded = load_prior(prior)
    loaded.to(runtime.start(arch).torch_device)
    with progress() as report:
        rows, shown = score_patches(loaded, data, n, metric_scale, seed, report)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo("  tau    t   noise   error of color   error of depth      score")
        for row in rows:
            errors = "".join(
                f"{row[name]:17.4f}" if row[name] is not None else f"{'-':>17}" for name in ("color_error", "depth_error")
            )
            click.echo(f"{row['tau']:5.2f} {row['t']:4d} {row['noise']:7.4f}{errors}{row['score']:11.3f}")
    if out is not None:
        write_png(out, sheet(shown, loaded.settings.variant, loaded.settings.nearest, len(shown) // 3))
        click.echo(out)
