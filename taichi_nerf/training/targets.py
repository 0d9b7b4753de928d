"""What the pixels of a scene should look like: colors over a background, masks, depths, drawn at random."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.report import Report, silent
from taichi_nerf.scenes import SceneData
from taichi_nerf.scenes.images import Images
from taichi_nerf.training.pixel_batches import PixelTable, pack_pictures, pixels_at


class Batch(NamedTuple):
    rows: Tensor  # [n] of the table
    positions: Tensor  # [n, 2] pixels
    views: Tensor  # [n] int32
    color: Tensor  # [n, 3]
    alpha: Tensor | None  # [n] how much of the pixel is filled; None: all
    counts: Tensor | None  # [n] how much its error matters; None: one
    chances: Tensor | None  # [n] how much likelier than evenly it was drawn; None: as likely
    depth: Tensor | None  # [n] 0 where unknown; of the kind that the scene has

    @property
    def weight(self) -> Tensor | None:
        """[n] of its error in the loss; None: one."""
        if self.chances is None:
            return self.counts
        return 1 / self.chances if self.counts is None else self.counts / self.chances


@dataclass
class Targets:
    """The pixels of some views of a scene in memory, as they are on disk."""

    colors: PixelTable
    masks: PixelTable | None
    depths: Tensor | None  # [n_pixels]
    masks_are_alpha: bool
    weights: Tensor | None = None  # [n_views of the scene] of a pixel's error, 1 on average over the pixels

    @staticmethod
    def of(
        scene: SceneData, views: list[int], masks_are_alpha: bool, with_depth: bool, device: torch.device,
        report: Report = silent,
    ) -> "Targets":  # fmt: skip
        def read(n_read: int) -> None:
            report(0.0, f"reading picture {n_read} of {len(views)}")

        sizes = scene.cameras.sizes
        # Unkept: the tables hold them from here on.
        masks = None if scene.masks is None else pack_pictures(scene.masks.unkept(), sizes, views, device)
        if masks is not None and not masks.values.view(torch.uint8).any():  # there would be no error, whatever is learned
            raise ValueError(
                f"{scene.folder}: its masks hide every pixel of the views that are trained on; what is not black is looked at"
            )
        depths = torch.from_numpy(depths_of(scene, views)).to(device) if with_depth and scene.depths is not None else None
        weights = _weights(scene, views).to(device) if scene.weights is not None else None
        colors = pack_pictures(scene.images.unkept(), sizes, views, device, report=read)
        return Targets(colors, masks, depths, masks_are_alpha, weights)

    def __len__(self) -> int:
        return len(self.colors.values)

    def at(self, index: Tensor, chances: Tensor | None = None) -> Batch:
        """The pixels in these rows of the table. `chances` [n]: how much likelier than evenly each was drawn."""
        index = index.to(self.colors.starts.dtype)
        pixels = pixels_at(self.colors, index)
        color = pixels.colors if pixels.colors.shape[1] >= 3 else pixels.colors.expand(-1, 3)
        alpha = color[:, 3] if color.shape[1] == 4 else None
        counts = None if self.weights is None else self.weights.index_select(0, pixels.views)
        depth = None if self.depths is None else self.depths[index]
        if self.masks is not None:
            inside = pixels_at(self.masks, index).colors[:, 0]
            if self.masks_are_alpha:
                alpha = inside if alpha is None else alpha * inside
            else:
                counts = inside if counts is None else counts * inside
            depth = None if depth is None else depth * (inside > 0.5)  # what a mask hides may lie at any distance
        return Batch(index, pixels.positions, pixels.views, color[:, :3], alpha, counts, chances, depth)


def _weights(scene: SceneData, views: list[int]) -> Tensor:
    """What the scene says that a pixel of each view counts [n_views of the scene], over its mean among the pixels of these."""
    assert scene.weights is not None
    n_pixels = scene.cameras.sizes[views].prod(-1)
    return torch.from_numpy(scene.weights * n_pixels.sum() / (scene.weights[views] * n_pixels).sum()).float()


def depths_of(scene: SceneData, views: list[int]) -> np.ndarray:
    """Depths of all pixels [n_pixels], in scene units, 0 where unknown. Maps of another size: the nearest of their pixels."""
    assert scene.depths is not None
    maps: Images = scene.depths.images.unkept()
    ends = scene.cameras.sizes[views].prod(-1).cumsum()
    rows = np.zeros(int(ends[-1]), np.float32)
    for view, end in zip(views, ends, strict=True):
        width, height = (int(x) for x in scene.cameras.sizes[view])
        if scene.depths.missing[view]:
            continue
        stored = np.asarray(maps[view])[..., 0]
        y = (np.arange(height) + 0.5) * stored.shape[0] / height
        x = (np.arange(width) + 0.5) * stored.shape[1] / width
        picked = stored[y.astype(int)[:, None], x.astype(int)[None]]
        known = np.isfinite(picked.astype(np.float64)) & (picked != scene.depths.invalid) & (picked > 0)
        stated = np.where(known, picked, 1) * scene.depths.unit
        depth = 1 / stated if scene.depths.kind == "inverse" else stated
        rows[end - width * height : end] = np.where(known, depth, 0).ravel()
    return rows
