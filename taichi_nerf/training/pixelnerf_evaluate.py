"""How good a prior is on objects that it was not trained on, by the published protocols.

Every view that is no source view is a target; pictures are rounded to bytes first, as they would be saved; PSNR and SSIM
(scikit-image's, 7 x 7 windows) are means over an object's views, then over a category's objects, and over all objects alike.
Which views are sources is the same for all (SRN: 64, or 64 and 104; DTU: 22 25 28), or stands in a list: lines of "category
object view …", as in src_dvr.txt.
"""

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.export.colors import to_bytes
from taichi_nerf.export.files import write_png
from taichi_nerf.metrics import Lpips, psnr, ssim
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.training.pixelnerf_model import Prior
from taichi_nerf.training.pixelnerf_objects import ObjectSet, ViewedObject, entries_of
from taichi_nerf.training.run_folder import RunError
from taichi_nerf.training.train_pixelnerf import render_view

FIGURES = ("psnr", "ssim", "lpips")
SourceTable = dict[tuple[str, str], list[int]]


def read_view_list(file: Path) -> SourceTable:
    """Source views by category and object."""
    table: SourceTable = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 3 or not all(word.isdecimal() for word in words[2:]):
            raise RunError(file, f"line {number}: expected category, object and numbers of views, got {line[:60]!r}")
        table[words[0], words[1]] = [int(word) for word in words[2:]]
    return table


def evaluate(
    prior: Prior,
    objects: ObjectSet | list[ViewedObject],
    sources: list[int] | SourceTable,
    device: torch.device,
    *,
    targets: list[int] | None = None,
    without: Iterable[int] = (),
    lpips: Lpips | None = None,
    seed: int | None = None,
    save_to: Path | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Figures of every object, of every category and of all. `without`: views that are neither sources nor targets."""
    found: list[dict[str, Any]] = []
    for i in range(len(objects)):
        item = objects[i]
        views = sources_of(item, sources)
        chosen = targets_of(item, views, targets, without)
        found.append(evaluate_object(prior, item, views, chosen, device, lpips, seed, save_to))
        report((i + 1) / len(objects), f"object {i + 1} of {len(objects)}, {found[-1]['psnr']:.2f} dB")
    categories = sorted({one["category"] for one in found})
    return {
        "n_objects": len(found),
        "n_images": sum(one["n_images"] for one in found),
        **means(found),
        "ssim_variant": "skimage",
        "lpips_network": None if lpips is None else lpips.network,
        "seconds_per_image": float(np.mean([one["seconds_per_image"] for one in found])),
        "categories": {name: means([one for one in found if one["category"] == name]) for name in categories},
        "objects": found,
    }


def trained_on(prior: Prior, objects: ObjectSet) -> int:
    """How many of the objects the prior was trained on, as far as its set is still there: of few objects none are held out."""
    place = prior.config.objects
    if not place.path or not Path(place.path).exists():
        return 0
    try:
        known = {entry.folder.resolve() for entry in entries_of(place, "train")}
    except SceneError:
        return 0
    return sum(entry.folder.resolve() in known for entry in objects.entries)


def sources_of(item: ViewedObject, sources: list[int] | SourceTable) -> list[int]:
    views = sources.get((item.category, item.name)) if isinstance(sources, dict) else sources
    if views is None:
        raise RunError(item.name, f"the list of views does not name {item.category} {item.name}")
    wrong = [view for view in views if not 0 <= view < item.n_views]
    if wrong or not views:
        raise RunError(item.name, f"has views 0 to {item.n_views - 1}; source view {wrong[0] if wrong else 'none'} is not one")
    return list(views)


def targets_of(item: ViewedObject, sources: list[int], targets: list[int] | None, without: Iterable[int]) -> list[int]:
    left_out = {*sources, *without}
    asked = dict.fromkeys(range(item.n_views) if targets is None else targets)  # none counts twice
    found = [view for view in asked if view not in left_out]
    if not found or max(found) >= item.n_views:
        raise RunError(item.name, f"has {item.n_views} views; none of them is left to compare with, or one is not there")
    return found


def evaluate_object(
    prior: Prior,
    item: ViewedObject,
    sources: list[int],
    targets: list[int],
    device: torch.device,
    lpips: Lpips | None = None,
    seed: int | None = None,
    save_to: Path | None = None,
) -> dict[str, Any]:
    """Means over its targets."""
    start = time.perf_counter()
    encoded = prior.encode(item, sources, device)
    figures = []
    for view in targets:
        render = rounded(render_view(prior, item, encoded, view, device, seed))
        figures.append(compare(render, item.pictures[view].float() / 255, lpips))
        if save_to is not None:
            write_png(save_to / item.category / item.name / f"{view:06d}.png", to_bytes(render))
    seconds = (time.perf_counter() - start) / len(targets)
    about = {"category": item.category, "name": item.name, "sources": sources, "n_images": len(targets)}
    return {**about, **means(figures), "seconds_per_image": seconds}


def compare(render: Tensor, truth: Tensor, lpips: Lpips | None) -> dict[str, float | None]:
    return {
        "psnr": min(psnr(render, truth), 100.0),  # equal to the last byte: no error to take the logarithm of
        "ssim": ssim(render, truth) if min(truth.shape[:2]) >= 7 else None,
        "lpips": None if lpips is None else lpips(render, truth),
    }


def rounded(picture: Tensor) -> Tensor:
    """As it would be after saving it with 8 bits."""
    return (picture.clamp(0, 1) * 255).round() / 255


def means(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in FIGURES:
        values = [row[name] for row in rows if row[name] is not None and math.isfinite(row[name])]
        found[name] = float(np.mean(values)) if values else None
    return found


def as_text(found: dict[str, Any]) -> str:
    """A line for every category, and one for all."""
    rows = [*found["categories"].items(), (f"all {found['n_objects']} objects", found)]
    width = max(len(name) for name, _ in rows)
    lines = []
    for name, row in rows:
        parts = [f"{row['psnr']:6.2f} dB"]
        parts += [f"{key.upper()} {row[key]:.4f}" for key in ("ssim", "lpips") if row[key] is not None]
        lines.append(f"{name:<{width}}  {'  '.join(parts)}")
    return "\n".join(lines)


def as_json(found: dict[str, Any]) -> bytes:
    return (json.dumps(found, indent=1, allow_nan=False) + "\n").encode()
