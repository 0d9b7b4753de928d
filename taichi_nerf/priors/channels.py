"""What a patch holds: color, and inverse depth, both in [-1, 1].

[r, g, b, n / max(z, n)] · 2 - 1, z in metres along the optical axis. What is nearer than n is at 1, what is nowhere at -1. Of the
variants without color, or without depth, the other channels are all. n is 0.2 m in the published prior; the larger it is, the
more of the channel is left for what is far: between 2 and 4 m inverse depth changes by 0.1 where n is 0.2, by 0.5 where it is 1.
"""

from typing import Literal

import torch
from torch import Tensor

Variant = Literal["rgbd", "rgb", "d"]
NEAREST = 0.2  # metres, as published
N_CHANNELS: dict[str, int] = {"rgbd": 4, "rgb": 3, "d": 1}


def inverse_depth(depth: Tensor, nearest: float = NEAREST) -> Tensor:
    """nearest / max(depth, nearest), from 0 to 1. Depth may be infinite."""
    return nearest / depth.clamp_min(nearest)


def to_channels(color: Tensor, inverse: Tensor, variant: Variant = "rgbd") -> Tensor:
    """Color [..., h, w, 3] and inverse depth [..., h, w], both from 0 to 1, to a patch [..., n_channels, h, w] in [-1, 1]."""
    parts = {"rgb": color, "d": inverse[..., None], "rgbd": torch.cat([color, inverse[..., None]], -1)}
    return parts[variant].movedim(-1, -3) * 2 - 1


def depth_of(patch: Tensor, variant: Variant = "rgbd", nearest: float = NEAREST) -> Tensor:
    """Depth in metres [..., h, w] of a patch [..., n_channels, h, w]; at most 100,000 times the nearest."""
    if variant == "rgb":
        raise ValueError("a patch of colors alone has no depth")
    return nearest / ((patch[..., -1, :, :] + 1) / 2).clamp_min(1e-5)
