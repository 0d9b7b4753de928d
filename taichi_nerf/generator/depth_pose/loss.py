"""What depth and pose are learned from (Godard et al. 2019): that a neighbour, warped into this view, looks like this view.

    pe(a, b) = 0.85 · (1 − SSIM) / 2 + 0.15 · |a − b|                      SSIM over 3x3 pixels
    L = mean over pixels of min( pe of each warped source, pe of each source as it is )     + smoothness

The smaller of the sources leaves out what one of them does not see. Where a source fits better unmoved (auto-mask), nothing is
learned: what stands still in both images tells nothing of depth.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from taichi_nerf.ops import image_warp

SSIM_SHARE = 0.85
C1, C2 = 0.01**2, 0.03**2
TIE = 1e-5  # noise that breaks ties between equal identity losses


def ssim_distance(a: Tensor, b: Tensor) -> Tensor:
    """[n, 3, h, w] (1 − SSIM) / 2, from 0 to 1."""
    a, b = pad(a, (1, 1, 1, 1), mode="reflect"), pad(b, (1, 1, 1, 1), mode="reflect")
    mean_a, mean_b = avg_pool2d(a, 3, 1), avg_pool2d(b, 3, 1)
    variance_a = avg_pool2d(a * a, 3, 1) - mean_a**2
    variance_b = avg_pool2d(b * b, 3, 1) - mean_b**2
    covariance = avg_pool2d(a * b, 3, 1) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return ((1 - likeness / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))) / 2).clamp(0, 1)


def photometric(a: Tensor, b: Tensor) -> Tensor:
    """[n, h, w] pe of images [n, 3, h, w] from 0 to 1."""
    return SSIM_SHARE * ssim_distance(a, b).mean(1) + (1 - SSIM_SHARE) * (a - b).abs().mean(1)


def smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """|∂ d*| exp(−|∂ I|) in both directions, d* = d / mean d; [n, 1, h, w] and [n, 3, h, w]."""
    disparity = disparity / (disparity.mean((2, 3), keepdim=True) + 1e-7)
    total = disparity.new_zeros(())
    for axis in (2, 3):
        edges = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (disparity.diff(dim=axis).abs() * torch.exp(-edges)).mean()
    return total


def warped(source: Tensor, depth: Tensor, source_from_target: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Source images [n, 3, h, w] as the target sees them, and where that is inside of them [n, h, w]; by the kernel."""
    channels_last = source.permute(0, 2, 3, 1).contiguous()
    found, valid = image_warp.inverse_warp(
        channels_last, depth.contiguous(), source_from_target.contiguous(), intrinsics.contiguous()
    )
    return found.permute(0, 3, 1, 2), valid


def reprojection_loss(target: Tensor, warps: list[Tensor], sources: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The loss, and the share of pixels from which something is learned."""
    moved = torch.stack([photometric(warp, target) for warp in warps])
    unmoved = torch.stack([photometric(source, target) for source in sources])
    unmoved = unmoved + TIE * torch.randn_like(unmoved)
    least = torch.cat([unmoved, moved]).min(0)
    return least.values.mean(), (least.indices >= len(sources)).float().mean()
