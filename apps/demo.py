"""`taichi-nerf demo`: the main job on a built-in scene."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command, arch_option, seed_option


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: demo, or the next free demo-N]",
)
@arch_option
@click.option("--seconds", type=click.FloatRange(min=1), help="Training time.  [default: 60]")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps, in place of a time.")
@seed_option(what="Another seed is another scene.")
@click.option("--overwrite", is_flag=True, help="Use a folder that already has files in it.")
def demo(out: Path | None, arch: str, seconds: float | None, steps: int | None, seed: int, overwrite: bool) -> None:
    """Make a scene, train a radiance field on it, compare it with held-out views, and render it.

    Takes about two minutes on two processor cores; nothing is downloaded.

    \b
    Example:
      taichi-nerf demo --out my_first_nerf
    """
    from taichi_nerf import demo as library
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.runtime import start
    from taichi_nerf.training.folder_lock import LOCK, expect_free

    if seconds is not None and steps is not None:
        raise click.UsageError("give --seconds or --steps")
    seconds = 60.0 if seconds is None and steps is None else seconds
    folder = out or next_free(Path("demo"))
    if folder.exists() and any(file.name != LOCK for file in folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} already has files in it: choose another --out, or add --overwrite")
    expect_free(folder)  # before the training, not after
    backend = start(arch)
    budget = f"{steps} steps" if seconds is None else f"{seconds:.0f} s"
    click.echo(f"training for {budget} on {backend.arch} ({backend.device_name})")
    with progress() as report:
        outcome = library.run(folder, backend.torch_device, seconds, steps, seed, report)
    click.echo(
        f"PSNR {outcome.psnr:.2f} dB, SSIM {outcome.ssim:.3f} on held-out test views "
        f"after {outcome.n_steps} steps in {outcome.seconds:.0f} s"
    )
    width = max(len(str(file)) for file, _ in outcome.files)
    for file, what in outcome.files:
        click.echo(f"{file!s:<{width}}  {what}")


def next_free(folder: Path) -> Path:
    """The folder itself, or the first of folder-2, folder-3, … that is not there yet."""
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate
