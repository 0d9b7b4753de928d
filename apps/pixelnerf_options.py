"""The options of pictures that come without poses."""

from pathlib import Path

import click

from taichi_nerf.apps.command import given_options
from taichi_nerf.apps.scene_options import options_of

TURNTABLE = (
    click.option("--turntable", is_flag=True, help="PICTURES are files without poses, of a full turn where there are several."),
    click.option("--mask", "masks", type=click.Path(path_type=Path), multiple=True, help="Of each picture; may be repeated."),
    click.option("--threshold", type=float, default=0.1, show_default=True, help="Difference from the border, without mask."),
    click.option("--fill", type=float, default=0.75, show_default=True, help="Share of the picture that the thing gets."),
    click.option("--azimuth", type=float, help="Degrees around, 0 is in front.  [default: the one that explains it best]"),
    click.option("--elevation", type=float, default=25.0, show_default=True, help="Degrees above the horizon."),
    click.option("--distance", type=float, default=2.0, show_default=True, help="Of the camera."),
    click.option("--field-of-view", type=float, default=39.6, show_default=True, help="Degrees across."),
    click.option("--reach", type=float, default=0.75, show_default=True, help="Near and far are distance ∓ this."),
    click.option("--size", type=int, default=64, show_default=True, help="Pixels that the model is used to."),
)
PLACE = ("distance", "field_of_view", "elevation", "reach", "fill", "threshold", "size")
OF_TURNTABLE = (*PLACE, "masks", "azimuth")
turntable_options = options_of(TURNTABLE)


def refuse_idle(context: click.Context) -> None:
    """Complain of the first option that what is asked for has no use for."""
    asked = context.params
    for option in given_options(context):
        if option.name == "views" and asked["turntable"]:
            raise click.UsageError("--views is for a folder with poses; with --turntable every picture is a source")
        if option.name in OF_TURNTABLE and not asked["turntable"]:
            raise click.UsageError(f"{option.opts[0]} is for pictures without poses: it goes with --turntable")
        if option.name == "distil_seconds" and asked["distil"] is None:
            raise click.UsageError("--distil-seconds goes with --distil")
