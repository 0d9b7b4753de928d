"""`taichi-nerf evaluate`: how good a run is on views that it was not trained on."""

from pathlib import Path
from typing import Any

import click

from taichi_nerf.apps.command import Command
from taichi_nerf.apps.run_options import open_run, run_options
from taichi_nerf.apps.scene_options import Views


@click.command(cls=Command)
@run_options
@click.option("--split", default="test", show_default=True, help="Which views: test, val, train, as the scene has them.")
@click.option("--views", type=Views(), help="Only these views of the split, such as 3,7 or 0-9.")
@click.option("--save-images", is_flag=True, help="Keep the rendered views beside the figures.")
@click.option("--lpips", type=click.Path(path_type=Path), metavar="WEIGHTS", help="Folder or file of LPIPS' weights.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where figures go.  [default: RUN/eval/SPLIT]")
def evaluate(
    run: Path,
    scene: Path | None,
    arch: str,
    split: str,
    views: list[int] | None,
    save_images: bool,
    lpips: Path | None,
    out: Path | None,
) -> None:
    """Compare RUN with held-out pictures: PSNR, SSIM and, with weights, LPIPS, to RUN/eval/SPLIT/metrics.json.

    \b
    Example:
      taichi-nerf evaluate runs/chair --save-images
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.metrics import SMALLEST, Lpips
    from taichi_nerf.training.evaluate import evaluate as evaluate_run

    loaded = open_run(run, scene, arch)
    network = None if lpips is None else Lpips(lpips, device=loaded.model.box.device)
    with progress() as report:
        found = evaluate_run(loaded, split, views, network, save_images, report, out)
    where = f"{found['n_images']} {split} views" + (", inside their masks" if found["inside_mask"] else "")
    click.echo(f"step {found['step']}, {where}, on {found['background']}, {found['seconds_per_image']:.3f} s a picture")
    for name, unit in (("psnr", " dB"), ("ssim", f" ({found['ssim_variant']})"), ("lpips", f" ({found['lpips_network']})")):
        if found[name] is not None:
            click.echo(f"{name.upper():<6}{found[name]:.{2 if name == 'psnr' else 4}f}{unit}")
    if found["n_equal"]:
        click.echo(f"{found['n_equal']} of the pictures equal the truth: infinite PSNR, which is in no mean")
    if found["average_error"] is not None:
        click.echo(f"average error {found['average_error']:.4f} (geometric mean of MSE, √(1 − SSIM) and LPIPS)")
    if len(found["sizes"]) > 1:
        click.echo("\n".join(map(of_size, found["sizes"])))
    if lpips is not None and any(min(size["width"], size["height"]) < SMALLEST for size in found["sizes"]):
        click.echo(f"warning: LPIPS sees nothing of pictures of less than {SMALLEST} x {SMALLEST} pixels: left out", err=True)
    click.echo((out or loaded.folder.eval_folder(split)) / "metrics.json")


def of_size(row: dict[str, Any]) -> str:
    """The figures of the pictures of one size."""
    formats = {"psnr": "PSNR {:.2f} dB", "ssim": "SSIM {:.4f}", "lpips": "LPIPS {:.4f}"}
    told = [text.format(row[name]) for name, text in formats.items() if row[name] is not None]
    return f"{row['width']} x {row['height']}: {', '.join(told)} ({row['n_images']})"
