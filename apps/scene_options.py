"""The options of every command that opens a scene: which views, which size, where and how large it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from taichi_nerf.choices import AXES, PROTOCOLS

Function = TypeVar("Function", bound=Callable[..., Any])


class Views(click.ParamType):
    """22,25,28 or 0-9, or both mixed."""

    name = "list"
    EXPECTED = "numbers of views such as 22,25,28 or 0-9"
    LARGEST = 10**6

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        views: list[int] = []
        for part in value.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()) or max(len(first), len(last)) > 7:
                self.fail(f"expected {self.EXPECTED}, got {part.strip()!r}", param, ctx)
            if last and int(last) < int(first):
                self.fail(f"{part.strip()} goes backwards: write {last}-{first}", param, ctx)
            views.extend(range(int(first), min(int(last or first), self.LARGEST) + 1))
        return views


class Place(click.ParamType):
    """x,y,z"""

    name = "x,y,z"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3 or not all(abs(number) < 1e9 for number in numbers):
            self.fail(f"expected three numbers such as 0,0.5,-1, got {value!r}", param, ctx)
        return numbers


VIEWS = (
    click.option("--views", type=Views(), help="Train on these views only, such as 22,25,28 or 0-9."),
    click.option("--n-views", type=click.IntRange(min=1), help="Train on so many views, spread far apart."),
)
PROTOCOL = (
    click.option("--protocol", type=click.Choice(PROTOCOLS), default="spread", show_default=True,
                 help="Which views --n-views takes: far apart, evenly by number, or DTU's usual ones."),
)  # fmt: skip
SIZE = (click.option("--downscale", type=click.FloatRange(1, 64), default=1.0, help="Shrink the pictures.", show_default=True),)
PLACE = (
    click.option("--center", type=Place(), help="The middle of the scene, in the file's coordinates."),
    click.option("--scale", type=click.FloatRange(1e-9, 1e9), help="Scene units per length of the file."),
    click.option("--axes", type=click.Choice(AXES), default="auto", show_default=True, help="How the box is turned."),
)
DEPTH = (
    click.option("--near", type=click.FloatRange(min=0, max=1e9), help="Where rays begin, in scene units."),
    click.option("--far", type=click.FloatRange(min=0, min_open=True, max=1e9), help="Where rays end, in scene units."),
)
OUTSIDE = (click.option("--allow-outside", is_flag=True, help="Read files outside the scene's folder, if it names some."),)


def options_of(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[Function], Function]:
    """A decorator that adds groups of options, in the order in which `--help` shows them."""

    def add(function: Function) -> Function:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return add


scene_options = options_of(VIEWS, PROTOCOL, SIZE, PLACE, DEPTH, OUTSIDE)


def open_scene(scene: Path, options: dict[str, Any]) -> Any:
    """The `SceneData` that the options of `scene_options` ask for."""
    from taichi_nerf.scenes import load_scene

    arguments = {name: options[name] for name in ("views", "n_views", "protocol", "downscale", "allow_outside")}
    return load_scene(scene, overrides=overrides_of(options), **arguments)


def overrides_of(options: dict[str, Any]) -> Any:
    from taichi_nerf.scenes import Overrides

    near, far = options.get("near"), options.get("far")
    if near is not None and far is not None and near >= far:
        raise click.UsageError(f"--near {near:g} has to be less than --far {far:g}")
    return Overrides(options["center"], options["scale"], near, far, axes=options["axes"])
