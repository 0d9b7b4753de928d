"""`taichi-nerf benchmark`: the project's benchmarks, as a table and as JSON."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command, arch_option


@click.command(cls=Command)
@click.argument("name", type=click.Choice(["kernels", "scenes", "training", "nerf", "scales", "samplers"]), default="kernels")
@arch_option
@click.option("--only", multiple=True, help="A kernel family, such as hash_grid; may be repeated.")
@click.option("--n", type=click.IntRange(min=1), help="Samples a call; without it, training size.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here too.")
def benchmark(name: str, arch: str, only: tuple[str, ...], n: int | None, json_file: Path | None) -> None:
    """Time the parts of the system.

    `kernels`: every one forward and backward against its plain-torch reference. `scenes`: reading 100 pictures of 800 x 800 and
    building batches of rays from them. `training`: the stages of a step, over 20 seconds on a procedural scene.
    `nerf`: a step of NeRF against the same network written plainly in torch. `scales`: mip-NeRF against NeRF on thin things at
    four sizes, two minutes each. `samplers`: the occupancy grid against proposals on a scene that goes on, a minute each.

    \b
    Example:
      taichi-nerf benchmark kernels --only hash_grid --json hash_grid.json
    """
    if name != "kernels" and (only or n):
        raise click.UsageError(f"--only and --n choose kernels; `benchmark {name}` takes neither")
    if json_file and not json_file.parent.is_dir():  # said now rather than after minutes of measuring
        raise FileNotFoundError(2, "No such file or directory", str(json_file.parent))
    text, figures = MEASURED[name](arch, only, n)
    click.echo(text)
    if json_file:
        json_file.write_text(figures)


def measure_kernels(arch: str, only: tuple[str, ...], n: int | None) -> tuple[str, str]:
    """A table and JSON."""
    from taichi_nerf.benchmarks import kernels
    from taichi_nerf.reference import FAMILIES
    from taichi_nerf.runtime import start

    unknown = [family for family in only if family not in FAMILIES]
    if unknown:
        raise click.BadParameter(f"no kernel family {unknown[0]!r}: there are {', '.join(FAMILIES)}", param_hint="--only")
    backend = start(arch)
    rows = kernels.run(list(only or FAMILIES), n, report=lambda text: click.echo(f"measuring {text}", err=True))
    return kernels.table(rows, backend), kernels.as_json(rows, backend)


def measure_scenes(arch: str, only: tuple[str, ...], n: int | None) -> tuple[str, str]:
    """Text and JSON."""
    import json
    from dataclasses import asdict

    from taichi_nerf.benchmarks import scenes

    found = scenes.run(arch=arch)
    return scenes.as_text(found), json.dumps(asdict(found), indent=1)


def measure_training(arch: str, only: tuple[str, ...], n: int | None) -> tuple[str, str]:
    """A table and JSON."""
    from taichi_nerf.benchmarks import training
    from taichi_nerf.runtime import start

    backend = start(arch)
    click.echo("making a scene of 100 views, training for 20 s", err=True)
    result = training.run(None, 20.0, [], backend)
    return training.table(result, backend), training.as_json(result, backend)


def measure_nerf(arch: str, only: tuple[str, ...], n: int | None) -> tuple[str, str]:
    """A table and JSON."""
    import json
    from dataclasses import asdict

    from taichi_nerf.benchmarks import nerf
    from taichi_nerf.runtime import start

    backend = start(arch)
    click.echo("making a scene of 20 views, 20 s of steps", err=True)
    result = nerf.run("small", 20.0, 1024, 0, backend)
    return nerf.table(result, backend), json.dumps(asdict(result), indent=1)


def measure_scales(arch: str, only: tuple[str, ...], n: int | None) -> tuple[str, str]:
    """A table and JSON."""
    return _compare_methods("scales", 120.0, arch)


def measure_samplers(arch: str, only: tuple[str, ...], n: int | None) -> tuple[str, str]:
    """A table and JSON."""
    return _compare_methods("samplers", 60.0, arch)


def _compare_methods(kind: str, seconds: float, arch: str) -> tuple[str, str]:
    from taichi_nerf.benchmarks import methods
    from taichi_nerf.runtime import start

    backend = start(arch)
    rows = methods.run(kind, seconds, None, None, backend, report=lambda text: click.echo(text, err=True))
    return methods.table(rows, backend), methods.as_json(rows, backend)


MEASURED = {
    "kernels": measure_kernels,
    "scenes": measure_scenes,
    "training": measure_training,
    "nerf": measure_nerf,
    "scales": measure_scales,
    "samplers": measure_samplers,
}
