"""A look at what was learned: ground truth | render | error, five times | depth, of a few views that were held out."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.export.colors import color_depth, to_bytes
from taichi_nerf.export.files import write_png
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.model import Model
from taichi_nerf.training.pictures import background_of, file_name, over, picture_of_view, truth_of_view

MOST_VIEWS = 3


def save_previews(model: Model, scene: SceneData, folder: Path) -> list[Path]:
    """PNGs of up to three test views, or of training views where there are no others; the name tells which."""
    split = "test" if len(scene.splits.get("test", ())) else "train"
    views = [int(view) for view in scene.splits[split]]
    chosen = views[:: max(1, len(views) // MOST_VIEWS)][:MOST_VIEWS]
    files = [folder / f"{split}_{file_name(scene, view)}" for view in chosen]
    for view, file in zip(chosen, files, strict=True):
        write_png(file, preview(model, scene, view))
    return files


def preview(model: Model, scene: SceneData, view: int):  # type: ignore[no-untyped-def]
    """[h, 4 w, 3] bytes."""
    picture = picture_of_view(model, view, scene.cameras.sizes[view])
    opacity, depth = picture.opacity.cpu(), picture.depth.cpu()
    height, width = opacity.shape
    background = background_of(model.config.run.background, height, width, view)
    color, alpha, _ = truth_of_view(scene, view, model.config.batch.masks == "alpha")
    truth, render = torch.lerp(background, color, alpha[..., None]), over(picture.color.cpu(), opacity, background)
    parts = [to_bytes(part) for part in (truth, render, 5 * (truth - render).abs())]
    parts.append(color_depth(depth, *limits(depth[opacity > 0.5]), opacity, inverse=scene.bounds.unbounded))
    return torch.cat([torch.from_numpy(part) for part in parts], 1).numpy()


def limits(seen: Tensor) -> tuple[float, float]:
    """Near and far of depths [n]. By NumPy: torch has no quantiles of more than 2^24, which a photograph of 24 megapixels has."""
    near, far = np.quantile(seen.numpy(), [0.02, 0.98]).clip(1e-3).tolist() if len(seen) else (1.0, 2.0)
    return near, max(far, near * 1.01)
