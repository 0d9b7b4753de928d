"""Subjects turned by the direction alone and with the refiner, and what networks tell of both: what all figures are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from taichi_nerf.generator.depth_pose.geometry import axis_angle_of, six_of
from taichi_nerf.generator.depth_pose.loss import warped
from taichi_nerf.generator.depth_pose.model import DepthPose
from taichi_nerf.generator.refiner.network import Refiner, refine
from taichi_nerf.generator.refiner.training import make_pairs
from taichi_nerf.generator.turns import Turns
from taichi_nerf.report import Report, silent


@dataclass(frozen=True)
class Views:
    """n subjects, k places of their turn; the middle one is the source."""

    steps: Tensor  # [k] standard deviations
    images: Tensor  # [n, k, 3, h, w] from −1 to 1
    warp_errors: Tensor  # [n, k] mean |Warp − source| / 2 over what both views see; NaN where that is too little
    turns: Tensor  # [n, k] radians about the vertical, by the pose network along these images

    @property
    def middle(self) -> int:
        return len(self.steps) // 2


@dataclass(frozen=True)
class Both:
    gan_space: Views
    refined: Views | None


@torch.no_grad()
def turn_subjects(
    turns: Turns, model: DepthPose, refiner: Refiner | None, seeds: list[int], n_places: int,
    report: Report = silent,
) -> Both:  # fmt: skip
    """Each seed at an odd number of places over the reach. Masks and poses are those of the unrefined images, for both."""
    pairs = make_pairs(turns, model, seeds, n_places, lambda done, text: report(done / 2, text))
    n, k = pairs.masks.shape[:2]
    found: list[list[tuple[Tensor, ...]]] = [[], []]  # without and with the refiner: of each seed what `Views` has of it
    for i in range(n):
        codes = pairs.source_codes[i : i + 1].expand(k, -1, -1)
        turned = turns.turned(codes, pairs.steps.to(codes))
        variants = [turned]
        if refiner is not None:
            pose = six_of(pairs.motions[i], model.settings.pivot)
            variants.append(refine(refiner, codes, turned, pose, turns.layers))
        for j, variant in enumerate(variants):
            images = turns.images(variant)
            source = pairs.source_images[i : i + 1]
            size = images.shape[-1]
            warp = warped(images, pairs.source_depths[i].expand(k, size, size), pairs.motions[i], model.intrinsics(size, k))[0]
            mask = pairs.masks[i]
            error = ((warp - source).abs().mean(1) / 2 * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)
            error[mask.float().mean((1, 2)) < 0.05] = torch.nan
            spun = axis_angle_of(model.motions_along(images, k // 2)[:, :, :3])[:, 1]
            found[j].append((images.cpu(), error.cpu(), spun.cpu()))
        report(0.5 + (i + 1) / n / 2, f"subject {seeds[i]}")
    plain, refined = (Views(pairs.steps, *map(torch.stack, zip(*each, strict=True))) if each else None for each in found)
    assert plain is not None
    return Both(plain, refined)
