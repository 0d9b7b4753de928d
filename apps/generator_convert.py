"""`taichi-nerf generator convert`: published generators to models, models to published forms and to smaller ones."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--half", is_flag=True, help="Store a model in 16 bits.")
def convert(source: Path, target: Path, half: bool) -> None:
    """Read a generator from SOURCE and write it to TARGET; nothing in a file is executed.

    SOURCE: NVIDIA's .pkl (stylegan2-ada-pytorch, stylegan3's StyleGAN2, SDIP), rosinality's .pt, or a model folder.
    TARGET: a new model folder, or a .pt file in rosinality's form. A model that becomes a folder keeps what all stages learned.

    \b
    Examples:
      taichi-nerf generator convert stylegan2-ffhq-512x512.pkl models/ffhq
      taichi-nerf generator convert models/heads heads.pt
      taichi-nerf generator convert models/heads small/heads --half
    """
    from taichi_nerf.generator.copying import copy_model
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.stylegan2.published import read_generator, write_rosinality
    from taichi_nerf.scenes.unfinished import require_free, unfinished_folder

    place = ModelFolder(target).path
    require_free(place)
    if target.suffix not in ("", ".pt"):
        raise click.BadParameter("expected a folder or a name that ends in .pt", param_hint="TARGET")
    known = source.is_dir() or str(source) == "builtin"
    if half and (target.suffix == ".pt" or not known):
        raise click.UsageError("--half is for a model folder that becomes another one")
    generator = ModelFolder(source).load_generator() if known else read_generator(source)
    if target.suffix == ".pt":
        write_rosinality(target, generator)
    else:
        with unfinished_folder(place) as unfinished:
            into = ModelFolder(unfinished)
            if known:
                copy_model(ModelFolder(source), into, half)
            else:
                into.save_generator(generator)
                into.tell_about("train", {"converted_from": source.name})
    sizes = generator.settings
    n = sum(parameter.numel() for parameter in generator.parameters())
    click.echo(f"{sizes.resolution} pixels, codes of {sizes.w_dim}, {n / 1e6:.2f} M parameters: {target}")
