"""Gradients near cameras (Philip and Deschaintre 2023, "Floaters No More: Radiance Field Gradient Scaling").

What lies at distance t of a camera is seen by its rays 1 / t² as densely as what lies at distance one, and learns as much faster:
a field that explains pictures by fog before each camera is found first, and never left. So gradients of what a field says of a
sample are scaled by min(1, (t / d)²).
"""

from typing import Any

import torch
from torch import Tensor


def fading(density: Tensor, color: Tensor, t: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """Density [n] and color [n, 3] of samples at t [n] as they are, whose gradients fade within a distance of the camera."""
    return _Fading.apply(density, color, (t / distance).square().clamp_max(1)) if distance else (density, color)


class _Fading(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, color: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(share)
        return density.view_as(density), color.view_as(color)

    @staticmethod
    def backward(ctx: Any, of_density: Tensor, of_color: Tensor) -> tuple[Tensor, Tensor, None]:
        (share,) = ctx.saved_tensors
        return share * of_density, share[:, None] * of_color, None
