"""`taichi-nerf generator evaluate`: figures of the turn, with and without the refiner."""

import json
from pathlib import Path

import click

from taichi_nerf.apps.command import Command, arch_option
from taichi_nerf.apps.generator_options import Seeds, hold_stages, model_option, start_backend
from taichi_nerf.apps.json_file import json_option


@click.command(cls=Command)
@model_option
@click.option("--seeds", type=Seeds(), default="500-599", show_default=True, help="Subjects, which no stage was trained on.")
@click.option("--places", type=click.IntRange(min=3), default=9, show_default=True, help="Images of each subject; odd.")
@click.option(
    "--images", help="Real images for FID and KID: a folder, an .npz file, or heads:PERSONS.  [default: heads for builtin]"
)
@click.option("--train-features", type=click.IntRange(min=1), metavar="STEPS", help="First train features on the real images.")
@click.option("--inception", type=click.Path(path_type=Path, dir_okay=False), help="inception-2015-12-05.pt, for FID and KID.")
@click.option(
    "--embedder", type=click.Path(path_type=Path, dir_okay=False), help="TorchScript of images to vectors, for identity."
)
@click.option("--ablation", is_flag=True, help="Also without each of the paper's losses; trains a refiner for each.")
@json_option("Write the figures here.")
@arch_option
def evaluate(model: str, seeds: list[int], places: int, images: str | None, train_features: int | None, inception: Path | None,
             embedder: Path | None, ablation: bool, json_file: Path | None, arch: str) -> None:  # fmt: skip
    """Measure MODEL's turned images against their sources: warp error, SSIM, identity, FID, KID, and how far they turn.

    \b
    Examples:
      taichi-nerf generator evaluate --model models/heads --seeds 500-599 --json figures.json
      taichi-nerf generator evaluate --model models/cats --images photos/cats --train-features 1500
    """
    from taichi_nerf.apps.generator_figures import table
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.generator.evaluation.ablation import ablate
    from taichi_nerf.generator.evaluation.instruments import instruments
    from taichi_nerf.generator.evaluation.report import figures
    from taichi_nerf.generator.evaluation.turned import turn_subjects
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.stages import open_depth_pose, open_refiner, open_turns
    from taichi_nerf.training.json_file import expect_place, write_json

    expect_place(json_file)
    folder, device = ModelFolder(model), start_backend(arch).torch_device
    refiner, reach = open_refiner(folder, device)
    turns, depth_pose = open_turns(folder, device, reach), open_depth_pose(folder, device)
    if train_features is not None:
        hold_stages(folder.may_change())
    with progress() as report:
        tools = instruments(folder, images, inception, embedder, train_features, device, report)
        seeds = list(dict.fromkeys(seeds))  # a subject that is named twice counts once
        both = turn_subjects(turns, depth_pose, refiner, seeds, places, report=report)
        made = {"n_subjects": len(seeds), "places": len(both.gan_space.steps)}  # an odd number, whatever was asked for
        found = {"model": model, "seeds": [min(seeds), max(seeds)], **made, **figures(both, tools)}
        if ablation:
            found["ablation"] = ablate(folder, turns, depth_pose, seeds, places, tools, report)
    click.echo(table(found))
    if json_file:
        write_json(json_file, json.dumps(found, indent=1) + "\n")
        click.echo(json_file)
