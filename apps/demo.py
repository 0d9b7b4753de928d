"""`taichi-nerf demo`: the main job on the built-in scene."""

from pathlib import Path
from tempfile import TemporaryFile

import click

from taichi_nerf.apps.command import Command, arch_option


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: demo, or the next free demo-N]",
)
@arch_option
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Training time.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Use a folder that already has files in it.")
def demo(out: Path | None, arch: str, seconds: float, seed: int, overwrite: bool) -> None:
    """Train a radiance field on a built-in scene, compare it with held-out views, and render it.

    Takes about two minutes on two processor cores; nothing is downloaded.

    \b
    Example:
      taichi-nerf demo --out my_first_nerf
    """
    from taichi_nerf import demo as library
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.runtime import start

    folder = out or next_free(Path("demo"))
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} already has files in it: choose another --out, or add --overwrite")
    backend = start(arch)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass  # that it can be written to is found out before the training, not after
    click.echo(f"training for {seconds:.0f} s on {backend.arch} ({backend.device_name})")
    with progress() as report:
        outcome = library.run(folder, backend.torch_device, seconds, seed, report)
    click.echo(f"PSNR {outcome.psnr:.2f} dB on held-out test views after {outcome.n_steps} steps")
    for file in outcome.files:
        click.echo(file)


def next_free(folder: Path) -> Path:
    """The folder itself, or the first of folder-2, folder-3, … that is not there yet."""
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate
