"""From scene units to the unit cube that grids live in.

A bounded scene fills its box. Around an unbounded one goes mip-NeRF 360's contraction (Barron et al. 2022, equation 10), in
half-sizes of the box about its centre: x → x for |x| ≤ 1, (2 - 1/|x|) x/|x| beyond: all of space lies in a ball of radius 2.
"""

from typing import Literal

import torch
from torch import Tensor

Contraction = Literal["none", "sphere"]


def unit_positions(positions: Tensor, box: Tensor, contraction: Contraction) -> Tensor:  # [n, 3], [2, 3]
    """[n, 3] in [0, 1]^3, differentiable. In few passes: over rows of three, torch's are slow."""
    low, high = box[0], box[1]
    if contraction == "none":
        return torch.addcmul(low / (low - high), positions, 1 / (high - low))
    scaled = torch.addcmul((low + high) / (low - high), positions, 2 / (high - low))
    x, y, z = scaled.unbind(-1)
    closeness = (x * x + y * y + z * z).clamp_min(1).rsqrt()  # 1 / radius
    shrinking = closeness * (0.5 - closeness / 4)  # a quarter of (2 - 1 / radius) / radius: so all of space fits into the cube
    return scaled * shrinking[:, None] + 0.5
