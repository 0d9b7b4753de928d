"""Bilinear lookup in three planes of features, in plain torch (EG3D, Chan et al. 2022)."""

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from taichi_nerf.reference.example import Example, uniform


def sample_tri_planes(
    positions: Tensor,  # [n, 3] x, y, z in [0, 1]
    planes: Tensor,  # [3, height, width, n_channels] spanned by xy, xz, yz
    *,
    reduce: Literal["mean", "sum", "product", "concatenate"] = "mean",
) -> Tensor:
    """The features at positions of the unit cube: [n, n_channels], or [n, 3 * n_channels] side by side."""
    on_planes = torch.stack([positions[:, [0, 1]], positions[:, [0, 2]], positions[:, [1, 2]]])
    images = planes.permute(0, 3, 1, 2)
    samples = grid_sample(images, 2 * on_planes[:, None] - 1, "bilinear", "border", align_corners=True)
    samples = samples[:, :, 0].permute(0, 2, 1)  # [3, n, n_channels]
    if reduce == "concatenate":
        return torch.cat(samples.unbind(), -1)
    if reduce == "product":
        return samples.prod(0)
    return samples.mean(0) if reduce == "mean" else samples.sum(0)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n positions in planes of about n points with EG3D's 32 channels, and small ones with some positions outside."""
    like = torch.empty(0, dtype=dtype)
    size = max(round((n / 4) ** 0.5), 3)
    gradients = ("positions", "planes")
    found = []
    for reduce, n_channels in (("mean", 32), ("sum", 1), ("product", 6), ("concatenate", 4)):
        low, high = (-0.3, 1.3) if reduce == "sum" else (0, 1)
        arguments = {
            "positions": uniform(generator, (n, 3), low, high, like),
            "planes": uniform(generator, (3, size + 1, size, n_channels), 0.5, 1.5, like),
            "reduce": reduce,
        }
        found.append(Example("sample_tri_planes", arguments, gradients, f"{reduce}, {n_channels} channels"))
    return found
