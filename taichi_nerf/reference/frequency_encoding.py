"""Positional encoding by sines and cosines of octaves, in plain torch (Mildenhall et al. 2020, equation 4).

The angle base_frequency · x is rounded once; its octaves 2^k are exact.
"""

import math

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def frequency_encoding(
    x: Tensor,  # [n_points, n_dimensions]
    *,
    n_frequencies: int,
    base_frequency: float = 1.0,
    include_identity: bool = True,
    order: str = "per_frequency",
    window: Tensor | None = None,  # [n_frequencies]
) -> Tensor:  # [n_points, 2 * n_frequencies * n_dimensions (+ n_dimensions)]
    """[x, w_k sin(2^k φ), w_k cos(2^k φ)] of φ = base_frequency · x, with the columns in the given order."""
    octaves = 2.0 ** torch.arange(n_frequencies, dtype=x.dtype, device=x.device)
    angles = octaves[:, None] * (base_frequency * x)[:, None, :]  # [n_points, n_frequencies, n_dimensions]
    axis = {"per_frequency": 2, "per_function": 1}[order]
    waves = torch.stack([torch.sin(angles), torch.cos(angles)], dim=axis)
    if window is not None:
        waves = waves * window.view(-1, 1, 1) if order == "per_frequency" else waves * window.view(-1, 1)
    waves = waves.flatten(1)
    return torch.cat([x, waves], dim=-1) if include_identity else waves


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """NeRF's positions and viewing directions, jaxnerf's order, pixelNeRF's base, BARF's window half open."""
    like = torch.empty(0, dtype=dtype)
    x = uniform(generator, (n, 3), -1, 1, like)
    window = torch.tensor([1, 1, 1, 0.75, 0.1, 0], dtype=dtype)
    barf = {"x": x, "n_frequencies": 6, "base_frequency": math.pi, "window": window}
    jaxnerf = {"x": x, "n_frequencies": 10, "order": "per_function"}
    other = {"x": uniform(generator, (n, 2), -3, 3, like), "n_frequencies": 5, "include_identity": False}
    return [
        Example("frequency_encoding", {"x": x, "n_frequencies": 10}, ("x",), "positions"),
        Example("frequency_encoding", {"x": x, "n_frequencies": 4}, ("x",), "directions"),
        Example("frequency_encoding", jaxnerf, ("x",), "per function"),
        Example("frequency_encoding", {"x": x, "n_frequencies": 6, "base_frequency": 1.5}, ("x",), "base 1.5"),
        Example("frequency_encoding", barf, ("x",), "windowed"),
        Example("frequency_encoding", {**barf, "order": "per_function"}, ("x",), "windowed, per function"),
        Example("frequency_encoding", other, ("x",), "two dimensions, no identity"),
    ]
