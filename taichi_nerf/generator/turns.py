"""The object of a seed, turned: codes along the yaw direction, and their images.

    w(x) = w₀ + x v in the chosen layers, −reach ≤ x ≤ reach        (eq. 1 of the paper; v is one standard deviation)

w₀ is the code of the seed, truncated, and moved along v to where the mean looks, so that x = 0 faces the camera.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from taichi_nerf.generator.directions import Directions, centered, moved
from taichi_nerf.generator.stylegan2.generator import Generator, latents_of_seeds

REACH = 3.0


@dataclass(frozen=True)
class Turns:
    """A frozen generator and the direction that turns its objects."""

    generator: Generator
    directions: Directions
    reach: float = REACH

    @property
    def layers(self) -> tuple[int, int]:
        first, last = self.directions.yaw_layers
        return first, min(last, self.generator.settings.n_layers)

    @torch.no_grad()
    def codes(self, seeds: list[int]) -> Tensor:
        """[n, n_layers, w_dim], facing the camera."""
        device = self.generator.mapping.w_avg.device
        z = latents_of_seeds(seeds, self.generator.settings.z_dim).to(device)
        return centered(self.generator.mapping(z, self.directions.truncation), self.directions, self.layers)

    def turned(self, codes: Tensor, steps: Tensor) -> Tensor:
        """The codes moved by `steps` [n] standard deviations."""
        return moved(codes, self.directions.yaw, steps, self.layers)

    @torch.no_grad()
    def images(self, codes: Tensor) -> Tensor:
        """[n, 3, size, size] from −1 to 1."""
        return self.generator.synthesis(codes).clamp(-1, 1)

    def positions(self, n: int) -> Tensor:
        """[n] steps evenly over the reach, or one more: an odd number, so that the middle one faces the camera."""
        return torch.linspace(-self.reach, self.reach, n + 1 - n % 2)
