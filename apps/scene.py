"""`taichi-nerf scene`: what a folder holds and how it is read, as text, as a picture, as a procedural scene, as another form."""

import json
from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import Group, arch_option, seed_option
from taichi_nerf.apps.scene_options import OUTSIDE, PLACE, VIEWS, open_scene, options_of, overrides_of, scene_options

SCENE = click.argument("scene", type=click.Path(path_type=Path))
FAMILIES = ("objects", "rooms", "category", "chairs", "cars", "heads", "dynamic", "unbounded", "thin", "facing")


@click.group(cls=Group)
def scene() -> None:
    """Look at a scene, make one, or write it in another form. Each command takes --debug.

    \b
    Example:
      taichi-nerf scene info photos/fox
    """


@scene.command()
@SCENE
@scene_options
@click.option("--check", is_flag=True, help="Measure how well cameras, points and depth maps agree; decode every file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def info(scene: Path, check: bool, as_json: bool, **options: Any) -> None:
    """Tell what a scene is: its form and why it is read so, views, lenses, splits, bounds, and all that was decided.

    \b
    Example:
      taichi-nerf scene info photos/fox --check
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.scenes.check import check_files, check_scene
    from taichi_nerf.scenes.describe import as_text, describe

    found, figures = open_scene(scene, options), None
    if check:
        with progress() as report:
            figures = [*check_scene(found), *check_files(found, report)]
    told = describe(found, figures)
    click.echo(json.dumps(told, indent=1, allow_nan=False) if as_json else as_text(told))


@scene.command()
@SCENE
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The picture.  [default: SCENE's name, _preview.png]"
)
@scene_options
def preview(scene: Path, out: Path | None, **options: Any) -> None:
    """Draw a scene as one picture: some of its views, its cameras, points and box in space, and its near and far.

    \b
    Example:
      taichi-nerf scene preview photos/fox --out fox.png
    """
    from taichi_nerf.export.files import expect_writable
    from taichi_nerf.export.plots import save_scene_preview

    out = out or Path(f"{scene.resolve().stem}_preview.png")
    if out.suffix.lower() != ".png":
        raise click.BadParameter(f"expected a name that ends in .png, got {out.name!r}", param_hint="--out")
    expect_writable(out)
    save_scene_preview(open_scene(scene, options), out)
    click.echo(out)


@scene.command()
@click.argument("family", type=click.Choice(FAMILIES), metavar="FAMILY")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new or empty folder.")
@click.option("--n-views", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Training views.")
@click.option("--size", type=click.IntRange(8, 4096), default=200, show_default=True, help="Width and height in pixels.")
@seed_option()
@arch_option
def make(family: str, out: Path, n_views: int, size: int, seed: int, arch: str) -> None:
    """Make a procedural scene with exact colors, depths, normals, masks and poses.

    FAMILY is objects, rooms, category, chairs, cars, heads, dynamic, unbounded, thin or facing (rooms whose cameras stand
    side by side).

    \b
    Example:
      taichi-nerf scene make objects --out objects_1 --seed 1
    """
    from taichi_nerf.scenes.unfinished import require_free

    require_free(out)  # before a backend is started
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.procedural.make import make_scene
    from taichi_nerf.runtime import start

    start(arch)
    with progress() as report:

        def tell(done: int, of: int) -> None:
            report(done / of, f"picture {done} of {of}")

        make_scene(family, out, seed=seed, n_views=n_views, size=size, report=tell)
    click.echo(out)


@scene.command()
@SCENE
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Hard links to the pictures instead of copies.")
@click.option(
    "--scales", type=click.IntRange(1, 8), help="mip-NeRF's multiscale form instead: so many sizes, each half the last."
)
@options_of(VIEWS, PLACE, OUTSIDE)
def convert(scene: Path, out: Path, link: bool, scales: int | None, **options: Any) -> None:
    """Write any scene as a transforms.json, the form of instant-ngp and nerfstudio, into the new folder OUT.

    Cameras stay in the file's own coordinates and keep their lens distortion. With --scales, every picture is written at
    full, half, quarter, … size, as mip-NeRF trains on them.

    \b
    Example:
      taichi-nerf scene convert photos/colmap photos/for_ngp --link
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.scenes import Overrides, read_source
    from taichi_nerf.scenes.write import write_transforms
    from taichi_nerf.scenes.write_multiscale import write_multiscale

    source = read_source(scene, options["allow_outside"])
    views, overrides = {name: options[name] for name in ("views", "n_views")}, overrides_of(options)
    if scales is not None and (link or any(value is not None for value in views.values()) or overrides != Overrides()):
        raise click.UsageError(
            "--scales writes all views, as new pictures, where they are; it goes with no other option but --allow-outside"
        )
    with progress() as report:
        if scales is None:
            lost = write_transforms(source, out, link=link, overrides=overrides, report=report, **views)
        else:
            lost = write_multiscale(source, out, scales, report)
    click.echo(out / ("transforms.json" if scales is None else "metadata.json"))
    for warning in source.warnings:
        click.echo(f"warning: {warning}", err=True)
    for what in lost:
        click.echo(f"not kept, as the form has no place for it: {what}", err=True)
