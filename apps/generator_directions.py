"""`taichi-nerf generator directions`: what varies in a generator's codes, and which direction turns its objects."""

from dataclasses import replace
from pathlib import Path

import click

from taichi_nerf.apps.command import Command, arch_option, given_options, seed_option
from taichi_nerf.apps.generator_options import LayerRange, hold_stages, model_option, start_backend
from taichi_nerf.quoting import quote

IDLE = {  # which options have no use for which ways to find directions
    "method": ("--file",),
    "samples": ("--file", "--method factorised", "--method labels", "--method label-means"),
    "components": ("--file", "--method labels", "--method label-means"),
}


@click.command(cls=Command)
@model_option
@click.option("--method", type=click.Choice(["pca", "factorised", "labels", "label-means"]), default="pca", show_default=True,
              help="GANSpace, SeFa, the normal of a linear fit to labels of codes, or how codes change with them.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1000), default=200_000, show_default=True, help="Codes for the components.")
@click.option("--components", type=click.IntRange(min=1), default=80, show_default=True)
@click.option("--file", "own_file", type=click.Path(path_type=Path, dir_okay=False), metavar="NPZ",
              help="Components that GANSpace found, or this program, instead of finding them.")  # fmt: skip
@click.option("--labels", type=click.Path(path_type=Path, dir_okay=False), help="Of seeds: a seed and a number a line.")
@click.option(
    "--images", help="Or as features tell that are trained on these, with known yaws: a turntable folder, heads:PERSONS."
)
@click.option("--train-features", type=click.IntRange(min=1), metavar="STEPS", help="Train these features first.")
@click.option(
    "--yaw", type=click.IntRange(min=0), help="The component that turns the object, instead of the one that is measured to."
)
@click.option("--layers", type=LayerRange(), help="Codes that the turn changes, such as 0-4.  [default: measured]")
@click.option("--truncation", type=click.FloatRange(0, 1), default=0.8, show_default=True,
              help="How far codes that are turned keep from their mean: 1, as various as the generator's images.")  # fmt: skip
@click.option("--sign", type=click.Choice(["1", "-1"]), help="Which way is to the right.  [default: measured]")
@seed_option()
@arch_option
def directions(model: str, method: str, samples: int, components: int, own_file: Path | None, labels: Path | None,
               images: str | None, train_features: int | None, yaw: int | None, layers: tuple[int, int] | None,
               truncation: float, sign: str | None, seed: int, arch: str) -> None:  # fmt: skip
    """Find directions in MODEL's codes, and choose the one that moves most sideways for the least change of what is seen.

    \b
    Examples:
      taichi-nerf generator directions --model models/heads
      taichi-nerf generator directions --model models/cats --yaw 2 --layers 0-6
      taichi-nerf generator directions --model models/ffhq --file stylegan2-ffhq_style_ipca_c80.npz --yaw 1 --layers 0-2
      taichi-nerf generator directions --model models/heads --method labels --images heads:500 --train-features 1500
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.generator.directions import factorised, from_labels, load_directions, pca
    from taichi_nerf.generator.evaluation.instruments import instruments
    from taichi_nerf.generator.labels import read_labels, told_labels
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.stages import keep_directions
    from taichi_nerf.generator.stylegan2.generator import latents_of_seeds
    from taichi_nerf.generator.yaw_choice import choose_yaw

    by_labels, along_means = method in ("labels", "label-means"), method == "label-means"
    if not by_labels and (labels or images or train_features):
        raise click.UsageError("--labels, --images and --train-features are for --method labels and label-means")
    how = f"--method {method}" if own_file is None else "--file"
    for option in given_options(click.get_current_context()):
        if how in IDLE.get(option.name or "", ()):
            raise click.UsageError(f"{option.opts[0]} says nothing with {how}; leave it out")
    if labels and (images or train_features):
        raise click.UsageError("labels are either read (--labels) or told by features (--images, --train-features)")
    folder, device = ModelFolder(model).may_change(), start_backend(arch).torch_device
    generator = folder.load_generator().to(device)
    hold_stages(folder)
    if layers is not None and layers[0] >= generator.settings.n_layers:
        raise click.BadParameter(f"the generator has codes 0 to {generator.settings.n_layers - 1}", param_hint="--layers")
    with progress() as report:
        if labels is not None:
            seeds, values = read_labels(labels)
            codes = generator.mapping.w(latents_of_seeds(seeds, generator.settings.z_dim).to(device)).cpu()
            found = from_labels(generator, codes, values, seed, along_means=along_means)
        elif by_labels:
            tell = instruments(folder, images, None, None, train_features, device, report).yaws
            if tell is None:
                raise click.UsageError(f"--method {method} needs --labels FILE, or features that know yaws: "
                                       "--images heads:500 --train-features 1500")  # fmt: skip
            found = from_labels(generator, *told_labels(generator, tell, report), seed, along_means=along_means)
        elif own_file is not None:
            found = load_directions(own_file, generator.settings.w_dim)
        elif method == "pca":
            found = pca(generator, samples, components, seed, report)
        else:
            found = factorised(generator, layers, components, seed)
        found = replace(found, truncation=truncation)
        if yaw is not None and yaw >= len(found.components):
            raise click.BadParameter(f"there are components 0 to {len(found.components) - 1}", param_hint="--yaw")
        found, candidates = choose_yaw(generator, found, ranges=None if layers is None else [layers], also=yaw, report=report)
    if yaw is not None:
        wanted = next(c for c in candidates if c.component == yaw)
        found = replace(found, yaw_component=yaw, yaw_layers=wanted.layers, yaw_sign=wanted.sign)
    if sign is not None:
        found = replace(found, yaw_sign=float(sign))
    method = method if own_file is None else f"file {own_file.name}"
    about = {"method": method, "seed": seed, "truncation": truncation} | ({"samples": samples} if method == "pca" else {})
    keep_directions(folder, found, about, generator)
    click.echo("component  layers  parallax px  drift   score")
    for c in candidates[:6]:
        click.echo(f"{c.component:>9}  {c.layers[0]:>2}-{c.layers[1] - 1:<3}  {c.parallax:>11.3f}  {c.drift:.4f}  {c.score:.1f}")
    click.echo(f"the yaw is component {found.yaw_component}; look at {folder.pictures / 'directions_yaw.png'}")
    click.echo(f"next:  taichi-nerf generator depth-pose --model {quote(model)}")
