"""What the refiner minimises (eqs. 3 to 8 of the paper).

    L = L_warp + λ_reg (L_latent + λ_feat L_feat) + λ_turn L_turn + λ_nat L_nat
    L_warp   = ‖Warp(G(ŵ⁺), d_w, T_{w→ŵ}) − G(w)‖²       over the pixels whose point both views see
    L_latent = ‖ŵ⁺ − w‖²,   L_feat = ‖F(ŵ⁺) − F(w)‖²      F: features of the generator at one resolution
    L_turn   = ‖ω(G(ŵ), G(ŵ⁺))‖²                         ours: ω is the rotation that the pose network sees between the two
    L_nat                                                ours: of the views as a set (`natural.py`)

Norms are means, so that weights mean the same for every size. What the warp is compared over is decided before, by frozen
networks and the unrefined image: a refiner that turned everything out of the picture would otherwise be without error.
"""

import torch
from torch import Tensor

from taichi_nerf.generator.depth_pose.loss import photometric, warped
from taichi_nerf.generator.depth_pose.model import DepthPose

AGREE = 0.04  # depths that differ by less than this share are of one surface


def visible_in_both(
    model: DepthPose, source: Tensor, turned: Tensor, source_depth: Tensor, turned_depth: Tensor, motion: Tensor
) -> Tensor:
    """[n, h, w] which pixels of the source [n, 3, h, w] have a point that the turned view sees, and that moves.

    Inside of the turned image, at the depth that the turned view has there (else something hides it), and better explained by the
    warp than by standing still (auto-mask); images from −1 to 1.
    """
    n, _, size, _ = source.shape
    intrinsics = model.intrinsics(size, n)
    with_depth = torch.cat([turned, turned_depth[:, None]], 1)
    found, valid = warped(with_depth, source_depth, motion, intrinsics)
    at = torch.arange(size, device=source.device) + 0.5
    fx, fy, cx, cy = (k[:, None, None] for k in intrinsics.unbind(-1))
    x, y = (at - cx) / fx * source_depth, (at[:, None] - cy) / fy * source_depth
    points = torch.stack([x, y, source_depth], -1)
    depth = torch.einsum("nhwk,nk->nhw", points, motion[:, 2, :3]) + motion[:, 2, 3, None, None]
    same_surface = (found[:, 3] - depth).abs() < AGREE * depth
    moves = photometric((found[:, :3] + 1) / 2, (source + 1) / 2) < photometric((turned + 1) / 2, (source + 1) / 2) + 1e-4
    return valid & same_surface & moves


def warp_loss(warp: Tensor, source: Tensor, mask: Tensor, coverage: float) -> Tensor:
    """Mean over the mask's pixels of each image, then over the images whose mask covers at least this share."""
    squared = ((warp - source).square().mean(1) * mask).sum((1, 2))
    count = mask.sum((1, 2))
    counted = (count >= coverage * mask[0].numel()).to(squared)
    return (squared / count.clamp_min(1) * counted).sum() / counted.sum().clamp_min(1)


def turn_loss(model: DepthPose, turned: Tensor, refined: Tensor) -> Tensor:
    """Mean squared radians between images as the networks see them (`DepthPose.seen`) and the same refined.

    Turning less is the easiest way to agree with the source. The network, which has only learned pairs that turn, is asked in
    both orders: what it says of two equal images cancels.
    """
    rotation = (model.six(turned, refined) - model.six(refined, turned))[:, :3] / 2
    return rotation.square().sum(-1).mean()
