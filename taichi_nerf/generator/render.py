"""An object of a model, turned in small steps: images with and without the refiner, depths, and poses for a scene."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.generator.depth_pose.geometry import six_of
from taichi_nerf.generator.depth_pose.model import DepthPose
from taichi_nerf.generator.refiner.network import Refiner, refine
from taichi_nerf.generator.refiner.training import depths_of, make_pairs
from taichi_nerf.generator.stages import depth_pictures
from taichi_nerf.generator.stylegan2.generator import as_bytes
from taichi_nerf.generator.turns import Turns
from taichi_nerf.report import Report, silent


class Turn(NamedTuple):
    """k images in the order of the turn."""

    pictures: dict[str, NDArray[np.uint8]]  # refined, gan, depth → [k, size, size, 3]
    motions: Tensor  # [k, 3, 4] from the source's camera to each image's
    focal: float  # in units of the images' width


@torch.no_grad()
def turn_seed(
    turns: Turns, model: DepthPose, refiner: Refiner | None, seed: int, n_frames: int, n_steps: int = 1, share: float = 1.0,
    report: Report = silent,
) -> Turn:  # fmt: skip
    """The object of a seed over a share of the reach; `n_steps` of the refiner (1: from t = 0)."""
    near = Turns(turns.generator, turns.directions, turns.reach * share)
    report(0.0, "poses")
    pairs = make_pairs(near, model, [seed], n_frames)
    report(0.4, "turned images")
    codes = pairs.source_codes.expand(len(pairs.steps), -1, -1)
    turned = near.turned(codes, pairs.steps.to(codes))
    plain = near.images(turned)
    images = plain
    if refiner is not None:
        report(0.6, "refined images")
        images = near.images(refine(refiner, codes, turned, six_of(pairs.motions[0], model.settings.pivot), near.layers, n_steps))
    report(0.8, "depths")
    pictures = {
        "refined": as_bytes(images).cpu().numpy(),
        "gan": as_bytes(plain).cpu().numpy(),
        "depth": depth_pictures(depths_of(model, images), model.settings),
    }
    return Turn(pictures, pairs.motions[0].cpu(), float(model.root_of_focal.detach().square()))


@torch.no_grad()
def turn_plainly(turns: Turns, seed: int, n_frames: int, share: float = 1.0) -> NDArray[np.uint8]:
    """[k, size, size, 3] what `turn_seed` calls "gan": that takes the directions, but neither depth, pose nor refiner."""
    near = Turns(turns.generator, turns.directions, turns.reach * share)
    steps = near.positions(n_frames)
    codes = near.codes([seed]).expand(len(steps), -1, -1)
    return as_bytes(near.images(near.turned(codes, steps.to(codes)))).cpu().numpy()
