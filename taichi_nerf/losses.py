"""What training minimises. All functions give a mean over rays."""

from typing import Literal

import torch
from torch import Tensor, nn

from taichi_nerf.ops import distortion
from taichi_nerf.rays import Samples

Photometric = Literal["mse", "huber", "charbonnier"]
HUBER_DELTA = 0.1  # instant-ngp's
CHARBONNIER_PADDING = 0.001  # mip-NeRF 360's


def photometric(kind: Photometric, color: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared error of colors [n, 3]; or Huber's: quadratic to 0.1, then linear, scaled alike near zero; or Charbonnier's
    (d² + 0.001²)^½, which is |d| but at zero."""
    if kind == "mse":
        errors = (color - truth).square()
    elif kind == "charbonnier":
        errors = ((color - truth).square() + CHARBONNIER_PADDING**2).sqrt()
    else:
        errors = 2 * nn.functional.huber_loss(color, truth, reduction="none", delta=HUBER_DELTA)
    return errors.mean() if weights is None else (errors.mean(-1) * weights).mean()


@torch.no_grad()
def explained(squared: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """[] share of the variance of true colors [n, 3] that squared errors, means over channels [n], leave unexplained, from 1:
    R², 1 for what is rendered without error, 0 for what is no better than one color for all rays."""
    shares = torch.ones_like(squared) if weights is None else weights
    shares = (shares / shares.sum().clamp_min(1e-12))[:, None]
    variance = (shares * (truth - (shares * truth).sum(0)).square()).sum(0).mean()
    return 1 - (shares[:, 0] * squared).sum() / variance.clamp_min(1e-12)


def opacity_entropy(opacity: Tensor) -> Tensor:
    """-o log o - (1 - o) log(1 - o) of opacities [n]: least where rays hit something or nothing."""
    o = opacity.clamp(1e-5, 1 - 1e-5)
    return -(o * o.log() + (1 - o) * (1 - o).log()).mean()


def spread(weights: Tensor, samples: Samples) -> Tensor:
    """mip-NeRF 360's distortion of weights along rays, in s = t / (1 + t), which goes from 0 to 1."""
    starts, ends = (t / (1 + t) for t in (samples.t_starts, samples.t_ends))
    return distortion.distortion_loss(weights, starts, ends, samples.spans).mean()


def depth_error(depth: Tensor, opacity: Tensor, truth: Tensor, is_known: Tensor) -> Tensor:
    """Relative error of the depth along rays [n], where it is known: |Σ w t - opacity·truth| / truth, plus what light passes."""
    errors = (depth - opacity * truth).abs() / truth.clamp_min(1e-6) + (1 - opacity)
    return torch.where(is_known, errors, 0.0).mean()


def interlevel(edges: Tensor, weights: Tensor, proposed_edges: Tensor, proposed_weights: Tensor) -> Tensor:
    """mip-NeRF 360's (Barron et al. 2022, equation 13): Σ max(0, w - bound)² / w, mean over rays.

    The bound of an interval is the weight of all proposed intervals that overlap with it. Gradients flow to the proposed weights
    alone. Edges [n, k + 1] ascend within 0 to 1; weights [n, k].
    """
    weights, zero = weights.detach(), torch.zeros_like(proposed_weights[:, :1])
    sums = torch.cat([zero, proposed_weights.cumsum(-1)], -1)
    last, inner = proposed_edges.shape[1] - 1, proposed_edges.detach().contiguous()
    begin = (torch.searchsorted(inner, edges[:, :-1].contiguous(), right=True) - 1).clamp(0, last)
    end = torch.searchsorted(inner, edges[:, 1:].contiguous()).clamp(0, last)
    bound = sums.gather(1, end) - sums.gather(1, begin)
    errors = ((weights - bound).clamp_min(0).square() / (weights + 1e-7)).sum(-1)
    return errors.mean() if len(errors) else errors.sum()  # of no rays: none that pass the scene by teach anything
