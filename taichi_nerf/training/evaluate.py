"""How good a run is on views of a split: RUN/eval/<split>/metrics.json.

PSNR is the mean over pictures of −10 log10(mean squared error), over the pixels inside of the mask where the scene has masks.
Pictures with alpha, and those with masks, are compared over the run's background. `sizes` has the figures of the pictures of
each size; the average error is the mean of those of the sizes, as mip-NeRF has it.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.export.colors import to_bytes
from taichi_nerf.export.files import expect_writable, write_png, write_whole
from taichi_nerf.metrics import SMALLEST, Lpips, average_error, psnr, ssim
from taichi_nerf.report import Report, silent
from taichi_nerf.training.pictures import background_of, file_name, over, picture_by, picture_of_view, truth_of_view
from taichi_nerf.training.run import Run
from taichi_nerf.training.run_folder import RunError

SMALLEST_FOR_SSIM = 7  # pixels a side
FIGURES = ("psnr", "ssim", "lpips")


class Compared(NamedTuple):
    """One view, rendered and true, [h, w, 3] each."""

    render: Tensor
    truth: Tensor
    inside: Tensor | None  # [h, w] bool
    seconds: float  # of rendering


def evaluate(
    run: Run,
    split: str = "test",
    views: list[int] | None = None,
    lpips: Lpips | None = None,
    save_images: bool = False,
    report: Report = silent,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write and return the figures. `views`: only these of the split, by their numbers in the scene; `out`: the folder of
    figures and pictures, where that is not the run's own."""
    chosen = views_of(run, split, views)
    folder = run.folder.eval_folder(split) if out is None else out
    expect_writable(folder)
    picture_by(run.model, run.scene.cameras[[chosen[0]]].resized([8, 8]), 0)  # compiles what rendering needs
    images: list[dict[str, Any]] = []
    total_seconds, n_equal = 0.0, 0
    for done, view in enumerate(chosen):

        def within(share: float, done: int = done) -> None:
            report((done + share) / len(chosen), f"{split} view {done} of {len(chosen)}")

        compared = compare(run, view, within)
        total_seconds += compared.seconds
        told = figures(compared, lpips)
        n_equal += told["psnr"] == math.inf
        images.append({"name": run.scene.names[view], "view": view, **{name: finite(told[name]) for name in FIGURES}})
        if save_images:
            write_png(folder / file_name(run.scene, view), to_bytes(compared.render))
        report((done + 1) / len(chosen), f"{split} view {done + 1} of {len(chosen)}")
    sizes = by_size(images, run.scene.cameras.sizes[chosen])
    found = {
        "split": split,
        "split_rule": run.scene.split_rule,
        "views": "all" if views is None else chosen,
        "step": run.n_steps,
        "background": run.config.run.background,
        "inside_mask": run.scene.masks is not None,
        "n_images": len(images),
        "n_equal": n_equal,  # to their truths; infinite PSNR is null in JSON, and in no mean
        **{name: mean(image[name] for image in images) for name in FIGURES},
        "average_error": mean(size["average_error"] for size in sizes),
        "sizes": sizes,
        "ssim_variant": "skimage",
        "lpips_network": None if lpips is None else lpips.network,
        "seconds_per_image": total_seconds / len(images),
        "images": images,
    }
    write_whole(folder / "metrics.json", (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    return found


def views_of(run: Run, split: str, views: list[int] | None) -> list[int]:
    """The views of a split, or those of them that are asked for."""
    splits = {name: [int(view) for view in index] for name, index in run.scene.splits.items() if len(index)}
    if split not in splits:
        raise RunError(run.scene.folder, f"has no split {split!r}; it has {', '.join(splits)}")
    if views is None:
        return splits[split]
    others = [view for view in views if view not in splits[split]]
    if others or not views:
        told = ", ".join(map(str, splits[split][:12])) + (", …" if len(splits[split]) > 12 else "")
        raise RunError(run.scene.folder, f"view {others[0] if others else 'list'} is not of split {split!r}, which has {told}")
    return list(dict.fromkeys(views))  # none counts twice


def compare(run: Run, view: int, report: Callable[[float], None] = lambda done: None) -> Compared:
    """Render a view and put its truth beside it. `report` is told what share of the picture is done."""
    scene, config = run.scene, run.config
    start = time.perf_counter()
    picture = picture_of_view(run.model, view, scene.cameras.sizes[view], report)
    color, opacity = picture.color.cpu(), picture.opacity.cpu()
    seconds = time.perf_counter() - start
    height, width = opacity.shape
    background = background_of(config.run.background, height, width, view)
    truth, alpha, inside = truth_of_view(scene, view, config.batch.masks == "alpha")
    return Compared(over(color, opacity, background), torch.lerp(background, truth, alpha[..., None]), inside, seconds)


def figures(compared: Compared, lpips: Callable[[Tensor, Tensor], float] | None) -> dict[str, float | None]:
    """Outside of the mask both pictures are made alike for SSIM and LPIPS, which look at neighbourhoods."""
    render, truth, inside, _ = compared
    if inside is not None and not bool(inside.any()):
        return {"psnr": None, "ssim": None, "lpips": None}
    shown = render if inside is None else torch.where(inside[..., None], render, truth)
    side = min(truth.shape[:2])
    return {
        "psnr": psnr(render, truth, inside),  # infinite where they are equal
        "ssim": ssim(shown, truth) if side >= SMALLEST_FOR_SSIM else None,
        "lpips": lpips(shown, truth) if lpips is not None and side >= SMALLEST else None,
    }


def by_size(images: list[dict[str, Any]], sizes: Any) -> list[dict[str, Any]]:  # [n_images, 2] width, height
    """The mean figures of the pictures of each size, the largest first."""
    rows = []
    for width, height in sorted({(int(w), int(h)) for w, h in sizes}, key=lambda size: (-size[0] * size[1], size)):
        same = [image for image, size in zip(images, sizes, strict=True) if tuple(size) == (width, height)]
        figures = {name: mean(image[name] for image in same) for name in FIGURES}
        known = [figure for figure in figures.values() if figure is not None]
        error = average_error(*known) if len(known) == len(FIGURES) else None
        rows.append({"width": width, "height": height, "n_images": len(same), **figures, "average_error": error})
    return rows


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def mean(values: Any) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
