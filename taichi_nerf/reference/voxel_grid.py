"""Trilinear lookup in a dense grid of features, in plain torch: the weighted sum of the eight grid points around a position."""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def sample_voxel_grid(
    positions: Tensor,  # [n, 3] x, y, z in [0, 1]
    grid: Tensor,  # [depth, height, width, n_channels]
) -> Tensor:
    """The features at positions of the unit cube: [n, n_channels]. Grid points lie on its corners."""
    depth, height, width, n_channels = grid.shape
    last = torch.tensor([width - 1, height - 1, depth - 1], device=positions.device)
    index = torch.minimum((positions * last).clamp_min(0), last.to(positions.dtype))
    lower = torch.minimum(index.detach().long(), (last - 1).clamp_min(0))
    fraction = index - lower
    upper = torch.minimum(lower + 1, last)

    rows = grid.reshape(-1, n_channels)
    sample = positions.new_zeros(len(positions), n_channels)
    for z, weight_z in ((lower[:, 2], 1 - fraction[:, 2]), (upper[:, 2], fraction[:, 2])):
        for y, weight_y in ((lower[:, 1], 1 - fraction[:, 1]), (upper[:, 1], fraction[:, 1])):
            for x, weight_x in ((lower[:, 0], 1 - fraction[:, 0]), (upper[:, 0], fraction[:, 0])):
                row = (z * height + y) * width + x
                sample = sample + (weight_z * weight_y * weight_x)[:, None] * rows[row]
    return sample


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n positions in a grid of about n points with DVGO's twelve channels, and a small odd one with some outside."""
    like = torch.empty(0, dtype=dtype)
    size = max(round(n ** (1 / 3)), 2)
    arguments = {
        "positions": uniform(generator, (n, 3), 0, 1, like),
        "grid": uniform(generator, (size, size + 1, size + 2, 12), -1, 1, like),
    }
    density = {
        "positions": uniform(generator, (n, 3), -0.3, 1.3, like),
        "grid": uniform(generator, (size, 3, 1, 1), -1, 1, like),
    }
    return [
        Example("sample_voxel_grid", arguments, ("positions", "grid"), "twelve channels"),
        Example("sample_voxel_grid", density, ("positions", "grid"), "one channel, partly outside"),
    ]
