"""A look at what was learned: ground truth | render | error, five times | depth, of a few views that were held out.

A photo of 12 megapixels would take minutes on a processor: larger ones are shrunk. `evaluate --save-images` renders all pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.export.colors import color_depth, side_by_side
from taichi_nerf.export.files import write_png
from taichi_nerf.scenes import SceneData
from taichi_nerf.scenes.images import Array, Images
from taichi_nerf.training.model import Model
from taichi_nerf.training.pictures import background_of, file_name, over, picture_by, truth_of_view

MOST_VIEWS = 3
LONGEST = 1024  # pixels of a side


def save_previews(
    model: Model, scene: SceneData, folder: Path, report: Callable[[int, int], None] = lambda number, n: None
) -> list[Path]:
    """PNGs of up to three test views, or of training views where there are no others; the name tells which."""
    split = "test" if len(scene.splits.get("test", ())) else "train"
    views = [int(view) for view in scene.splits[split]]
    chosen = views[:: max(1, len(views) // MOST_VIEWS)][:MOST_VIEWS]
    files = [folder / f"{split}_{file_name(scene, view)}" for view in chosen]
    for number, (view, file) in enumerate(zip(chosen, files, strict=True), 1):
        report(number, len(files))
        write_png(file, preview(model, scene, view))
    return files


def preview(model: Model, scene: SceneData, view: int) -> Array:
    """[h, 4 w, 3] bytes."""
    scene = _small(replace(scene, cameras=model.rig.corrected(scene.cameras)))
    picture = picture_by(model, scene.cameras, view)
    opacity, depth = picture.opacity.cpu(), picture.depth.cpu()
    height, width = opacity.shape
    background = background_of(model.config.run.background, height, width, view)
    color, alpha, _ = truth_of_view(scene, view, model.config.batch.masks == "alpha")
    truth, render = torch.lerp(background, color, alpha[..., None]), over(picture.color.cpu(), opacity, background)
    colored = color_depth(depth, *limits(depth[opacity > 0.5]), opacity, inverse=scene.bounds.unbounded)
    return side_by_side([truth, render, 5 * (truth - render).abs(), colored])


def _small(scene: SceneData) -> SceneData:
    """Its pictures and masks no larger than previews are."""
    sizes = scene.cameras.sizes
    small = np.maximum(np.rint(sizes * np.minimum(1, LONGEST / sizes.max(-1, keepdims=True))), 1).astype(np.int64)
    images, masks = (
        None if of is None else Images(of.files, small, 0, of.arrays, of.turns) for of in (scene.images, scene.masks)
    )
    assert images is not None
    return replace(scene, cameras=scene.cameras.resized(small), images=images, masks=masks)


def limits(seen: Tensor) -> tuple[float, float]:
    """Near and far of depths [n]. By NumPy: torch has no quantiles of more than 2^24, which a photograph of 24 megapixels has."""
    near, far = np.quantile(seen.numpy(), [0.02, 0.98]).clip(1e-3).tolist() if len(seen) else (1.0, 2.0)
    return near, max(far, near * 1.01)
