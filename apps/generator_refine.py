"""`taichi-nerf generator refine`: the latent refiner."""

from typing import Literal

import click

from taichi_nerf.apps.command import Command, arch_option, seed_option
from taichi_nerf.apps.generator_options import ended, hold_stages, model_option, start_backend
from taichi_nerf.quoting import quote


@click.command(cls=Command)
@model_option
@click.option("--steps", type=click.IntRange(min=1), default=1500, show_default=True)
@click.option("--batch", type=click.IntRange(min=2), default=16, show_default=True)
@click.option("--subjects", type=click.IntRange(min=1), default=400, show_default=True)
@click.option("--pairs", type=click.IntRange(min=2), default=13, show_default=True, help="Turned images of each subject.")
@click.option("--reach", type=click.FloatRange(min=0.1), help="How far they turn.  [default: as for depth-pose]")
@click.option("--width", type=click.IntRange(min=8), default=256, show_default=True)
@click.option("--scope", type=click.Choice(["edited", "all"]), default="edited", show_default=True,
              help="One code for all layers that the turn changes, or one for each layer of the generator.")  # fmt: skip
@click.option("--keep", type=click.FloatRange(0, 1), default=0.75, show_default=True,
              help="Share of the turn that is out of the refiner's reach.")  # fmt: skip
@click.option("--warp", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Weight of the warp loss.")
@click.option("--latent", type=click.FloatRange(min=0), default=0.01, show_default=True, help="λ_reg, of the codes' distance.")
@click.option("--feature", type=click.FloatRange(min=0), default=1.0, show_default=True, help="λ_feat, within λ_reg.")
@click.option("--turn", type=click.FloatRange(min=0), default=3.5, show_default=True, help="λ_turn, of turning as far as before.")
@click.option("--natural", type=click.FloatRange(min=0), default=0.4, show_default=True,
              help="λ_nat, of looking like the generator's images, all views together.")  # fmt: skip
@seed_option()
@arch_option
def refine(model: str, steps: int, batch: int, subjects: int, pairs: int, reach: float | None, width: int,
           scope: Literal["edited", "all"], keep: float, warp: float, latent: float, feature: float, turn: float,
           natural: float, seed: int, arch: str) -> None:  # fmt: skip
    """Train MODEL's refiner: turned codes to codes whose images, warped back, agree with the source.

    \b
    Example:
      taichi-nerf generator refine --model models/heads
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.refiner.network import RefinerSettings
    from taichi_nerf.generator.refiner.training import RefinerTraining
    from taichi_nerf.generator.stages import make_refiner, reach_of
    from taichi_nerf.training.interrupt import StopSignals

    folder, device = ModelFolder(model).may_change(), start_backend(arch).torch_device
    sizes = folder.load_generator().settings
    hold_stages(folder)
    settings = RefinerSettings(sizes.w_dim, sizes.n_layers, width, scope=scope, keep=keep)
    training = RefinerTraining(steps, batch, n_subjects=subjects, n_pairs=pairs, warp=warp, latent=latent, feature=feature,
                               turn=turn, natural=natural)  # fmt: skip
    reach = reach or reach_of(folder)
    with progress() as report, StopSignals() as stop:
        told = make_refiner(folder, settings, training, device, seed, reach, report, lambda: stop.requested)
    losses = ", ".join(f"{name} {value:.4f}" for name, value in told.items() if name != "steps")
    click.echo(f"{told['steps']} steps: {losses}")
    click.echo(f"look at {folder.pictures / 'refined.png'}")
    ended(stop)
    click.echo(f"next:  taichi-nerf generator evaluate --model {quote(model)} --seeds 500-599")
