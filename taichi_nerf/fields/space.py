"""From scene units to the unit cube that grids live in.

A bounded scene fills its box. Around an unbounded one goes mip-NeRF 360's contraction (Barron et al. 2022, equation 10), in
half-sizes of the box about its centre: x → x for |x| ≤ 1, (2 - 1/|x|) x/|x| beyond: all of space lies in a ball of radius 2.
"""

from typing import Literal

from torch import Tensor

Contraction = Literal["none", "sphere"]


def unit_positions(positions: Tensor, box: Tensor, contraction: Contraction) -> Tensor:  # [n, 3], [2, 3]
    """[n, 3] in [0, 1]^3, differentiable."""
    if contraction == "none":
        return (positions - box[0]) / (box[1] - box[0])
    scaled = (positions - (box[0] + box[1]) / 2) * (2 / (box[1] - box[0]))
    radius = scaled.norm(dim=-1, keepdim=True).clamp_min(1)
    return scaled * ((2 - 1 / radius) / radius / 4) + 0.5
