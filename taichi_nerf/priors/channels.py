"""What a patch holds: color, and inverse depth, both in [-1, 1].

[r, g, b, 0.2 / max(z, 0.2)] · 2 - 1, z in metres along the optical axis. What is nearer than 0.2 m is at 1, what is nowhere
at -1. Of the variants without color, or without depth, the other channels are all.
"""

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["rgbd", "rgb", "d"]
NEAREST = 0.2  # metres
N_CHANNELS: dict[str, int] = {"rgbd": 4, "rgb": 3, "d": 1}


def inverse_depth(depth: Tensor) -> Tensor:
    """0.2 / max(depth, 0.2), from 0 to 1. Depth may be infinite."""
    return NEAREST / depth.clamp_min(NEAREST)


def to_channels(color: Tensor, inverse: Tensor, variant: Variant = "rgbd") -> Tensor:
    """Color [..., h, w, 3] and inverse depth [..., h, w], both from 0 to 1, to a patch [..., n_channels, h, w] in [-1, 1]."""
    parts = {"rgb": color, "d": inverse[..., None], "rgbd": torch.cat([color, inverse[..., None]], -1)}
    return parts[variant].movedim(-1, -3) * 2 - 1


def depth_of(patch: Tensor, variant: Variant = "rgbd") -> Tensor:
    """Depth in metres [..., h, w] of a patch [..., n_channels, h, w]; at most 20 km."""
    if variant == "rgb":
        raise ValueError("a patch of colors alone has no depth")
    return NEAREST / ((patch[..., -1, :, :] + 1) / 2).clamp_min(1e-5)
