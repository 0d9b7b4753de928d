"""`taichi-nerf benchmark`: the project's benchmarks, as a table and as JSON."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from taichi_nerf.apps.command import Command, arch_option
from taichi_nerf.apps.json_file import json_option


def budgets(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    """Numbers between commas."""
    try:
        found = None if value is None else [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected seconds such as 30,60, got {value!r}") from None
    if found is not None and not all(0 < number < 1e6 for number in found):
        raise click.BadParameter(f"expected seconds of more than 0, got {value!r}")
    return found


class Asked(NamedTuple):
    """The options, as given."""

    arch: str
    only: tuple[str, ...]
    n: int | None
    scene: Path | None
    seconds: list[float] | None
    preset: str | None
    settings: tuple[str, ...]


TAKES = {
    "kernels": ("only", "n"),
    "training": ("scene", "seconds", "preset", "settings"),
    "quality": ("scene", "seconds", "preset", "settings"),
}
NAMES = ("kernels", "scenes", "training", "quality", "nerf", "scales", "samplers")


@click.command(cls=Command)
@click.argument("name", type=click.Choice(NAMES), default="kernels")
@arch_option
@click.option("--only", multiple=True, help="A kernel family, such as hash_grid; may be repeated.")
@click.option("--n", type=click.IntRange(min=1), help="Samples a call of a kernel; without it, training size.")
@click.option("--scene", type=click.Path(path_type=Path), help="Train on this one, for training and quality.")
@click.option("--seconds", callback=budgets, metavar="S[,S…]", help="Time budgets, for training and quality.")
@click.option("--preset", type=click.Choice(["fast", "default", "quality"]), help="Settings to begin with, for the same.")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="A setting, for the same; may be repeated.")
@json_option("Write the figures here too.")
def benchmark(name: str, json_file: Path | None, **options: Any) -> None:
    """Time the parts of the system.

    `kernels`: every one forward and backward against its plain-torch reference. `scenes`: reading 100 pictures of 800 x 800 and
    building batches of rays from them. `training`: the stages and kernels of a step and what
    crosses between host and device, over 20 seconds on a procedural scene. `quality`: how
    good a scene's test views are after each of some time budgets. `nerf`: a step of NeRF against the same network written
    plainly in torch. `scales`: mip-NeRF against NeRF on thin things at four sizes, two minutes each. `samplers`: the occupancy
    grid against proposals on a scene that goes on, a minute each.

    \b
    Examples:
      taichi-nerf benchmark kernels --only hash_grid --json hash_grid.json
      taichi-nerf benchmark quality --scene scenes/chair --seconds 30,60,120
    """
    from taichi_nerf.training.json_file import expect_place, write_json

    asked = Asked(**options)
    for option, value in asked._asdict().items():
        if option != "arch" and value not in (None, ()) and option not in TAKES.get(name, ()):
            takers = " and ".join(taker for taker, taken in TAKES.items() if option in taken)
            option = "set" if option == "settings" else option
            raise click.UsageError(f"--{option} is for {takers}; `benchmark {name}` does not take it")
    if name == "quality" and asked.scene is None:
        raise click.UsageError("benchmark quality trains on a scene of yours: give --scene")
    expect_place(json_file)
    text, figures = MEASURED[name](asked)
    click.echo(text)
    if json_file:
        write_json(json_file, figures)


def measure_kernels(asked: Asked) -> tuple[str, str]:
    """A table and JSON."""
    from taichi_nerf.benchmarks import kernels
    from taichi_nerf.reference import FAMILIES
    from taichi_nerf.runtime import start

    unknown = [family for family in asked.only if family not in FAMILIES]
    if unknown:
        raise click.BadParameter(f"no kernel family {unknown[0]!r}: there are {', '.join(FAMILIES)}", param_hint="--only")
    backend = start(asked.arch)
    rows = kernels.run(list(asked.only or FAMILIES), asked.n, report=lambda text: click.echo(f"measuring {text}", err=True))
    return kernels.table(rows, backend), kernels.as_json(rows, backend)


def measure_scenes(asked: Asked) -> tuple[str, str]:
    """Text and JSON."""
    import json
    from dataclasses import asdict

    from taichi_nerf.benchmarks import scenes

    found = scenes.run(arch=asked.arch)
    return scenes.as_text(found), json.dumps(asdict(found), indent=1)


def measure_training(asked: Asked) -> tuple[str, str]:
    """A table and JSON."""
    from taichi_nerf.benchmarks import training
    from taichi_nerf.runtime import start

    backend, lasting = start(asked.arch), max(asked.seconds or [20.0])
    click.echo(f"{'making a scene of 100 views, ' if asked.scene is None else ''}training for {lasting:g} s", err=True)
    result = training.run(asked.scene, lasting, list(asked.settings), backend, asked.preset or "default")
    return training.table(result, backend), training.as_json(result, backend)


def measure_quality(asked: Asked) -> tuple[str, str]:
    """A table and JSON."""
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.benchmarks import quality
    from taichi_nerf.runtime import start

    backend, rows = start(asked.arch), []
    assert asked.scene is not None
    for budget in asked.seconds or [30.0, 60.0, 120.0]:
        with progress() as report:
            preset, device = asked.preset or "default", backend.torch_device
            rows.append(quality.measure(asked.scene, budget, preset, asked.settings, device, report))
    told = asked.scene, rows, asked.settings, backend
    return quality.table(*told), quality.as_json(*told)


def measure_nerf(asked: Asked) -> tuple[str, str]:
    """A table and JSON."""
    import json
    from dataclasses import asdict

    from taichi_nerf.benchmarks import nerf
    from taichi_nerf.runtime import start

    backend = start(asked.arch)
    click.echo("making a scene of 20 views, 20 s of steps", err=True)
    result = nerf.run("small", 20.0, 1024, 0, backend)
    return nerf.table(result, backend), json.dumps(asdict(result), indent=1)


def compare_methods(kind: str, seconds: float, asked: Asked) -> tuple[str, str]:
    """A table and JSON."""
    from taichi_nerf.benchmarks import methods
    from taichi_nerf.runtime import start

    backend = start(asked.arch)
    rows = methods.run(kind, seconds, None, None, backend, report=lambda text: click.echo(text, err=True))
    return methods.table(rows, backend), methods.as_json(rows, backend)


MEASURED: dict[str, Callable[[Asked], tuple[str, str]]] = {
    "kernels": measure_kernels,
    "scenes": measure_scenes,
    "training": measure_training,
    "quality": measure_quality,
    "nerf": measure_nerf,
    "scales": partial(compare_methods, "scales", 120.0),
    "samplers": partial(compare_methods, "samplers", 60.0),
}
