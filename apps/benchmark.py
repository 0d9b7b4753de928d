"""`taichi-nerf benchmark`: the project's benchmarks, as a table and as JSON."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command


@click.command(cls=Command)
@click.argument("name", type=click.Choice(["kernels"]), default="kernels")
@click.option("--arch", type=click.Choice(["auto", "cpu", "cuda", "vulkan", "metal"]), default="auto", show_default=True)
@click.option("--only", multiple=True, help="A kernel family, such as hash_grid; may be repeated.")
@click.option("--n", type=click.IntRange(min=1), help="Samples a call; without it, training size.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here too.")
def benchmark(name: str, arch: str, only: tuple[str, ...], n: int | None, json_file: Path | None) -> None:
    """Time every kernel, forward and backward, against its plain-torch reference.

    \b
    Example:
      taichi-nerf benchmark kernels --only hash_grid --json hash_grid.json
    """
    from taichi_nerf.benchmarks import kernels
    from taichi_nerf.reference import FAMILIES
    from taichi_nerf.runtime import start

    unknown = [family for family in only if family not in FAMILIES]
    if unknown:
        raise click.BadParameter(f"no kernel family {unknown[0]!r}: there are {', '.join(FAMILIES)}", param_hint="--only")
    if json_file:
        json_file.touch()  # fails now rather than after minutes of measuring
    backend = start(arch)
    rows = kernels.run(list(only or FAMILIES), n, report=lambda text: click.echo(f"measuring {text}", err=True))
    click.echo(kernels.table(rows, backend))
    if json_file:
        json_file.write_text(kernels.as_json(rows, backend))
