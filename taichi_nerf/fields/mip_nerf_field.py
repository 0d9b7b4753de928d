"""mip-NeRF's field (Barron et al. 2021): the expected sines and cosines of a Gaussian, and NeRF's network on top.

Octaves finer than the Gaussian fade by themselves, so one network shows what is near and what is far without aliasing.
density = log(1 + exp(raw - 1)); color = (1 + 2ε) sigmoid(raw) - ε, ε = 0.001, which reaches black and white.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taichi_nerf.fields.field import Field, Glance
from taichi_nerf.fields.mlp import Precision
from taichi_nerf.fields.ranges import LAYERS, WIDTHS, check_ranges
from taichi_nerf.fields.view_mlp import ViewMlp
from taichi_nerf.ops import frequency_encoding, integrated_encoding

COLOR_PADDING = 0.001


@dataclass(frozen=True)
class MipNetworkSettings:
    n_frequencies: int = 16  # of places
    n_view_frequencies: int = 4
    n_layers: int = 8
    n_hidden: int = 256
    skip_after: int = 4  # the layer, counted from 0, whose output the place is put before again
    n_view_hidden: int = 128
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        octaves = {
            "n_frequencies": (1, integrated_encoding.MOST_FREQUENCIES),
            "n_view_frequencies": (1, frequency_encoding.MOST_FREQUENCIES),
        }
        check_ranges(self, **octaves, n_layers=LAYERS, n_hidden=WIDTHS, n_view_hidden=WIDTHS)


class MipNerfField(Field):
    def __init__(self, settings: MipNetworkSettings, generator: torch.Generator):
        super().__init__()
        self.settings = settings
        n_position, n_view = 6 * settings.n_frequencies, 6 * settings.n_view_frequencies + 3
        self.network = ViewMlp(
            n_position, n_view, generator, n_layers=settings.n_layers, n_hidden=settings.n_hidden,
            skip_after=settings.skip_after, n_view_hidden=settings.n_view_hidden, precision=settings.precision,
        )  # fmt: skip

    def forward(
        self, positions: Tensor, directions: Tensor, image_ids: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of places without extent."""
        return self.look(positions, torch.zeros_like(positions), self.encode_views(directions))

    def look(
        self, means: Tensor, variances: Tensor, seen_from: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:  # [n, 3], [n, 3] diagonals, [n, n_view], [n] added to raw density
        raw, color = self.network(self._encode(means, variances), seen_from)
        color = (1 + 2 * COLOR_PADDING) * torch.sigmoid(color) - COLOR_PADDING
        return density_of(raw if noise is None else raw + noise), color

    @torch.no_grad()
    def glance(self, positions: Tensor) -> Glance:
        return Glance(density_of(self.network.densities(self._encode(positions, torch.zeros_like(positions)))), None)

    def encode_views(self, directions: Tensor) -> Tensor:
        n = self.settings.n_view_frequencies
        return frequency_encoding.frequency_encoding(directions, n_frequencies=n, order="per_function")

    def _encode(self, means: Tensor, variances: Tensor) -> Tensor:
        return integrated_encoding.integrated_encoding(means, variances, n_frequencies=self.settings.n_frequencies)


def density_of(raw: Tensor) -> Tensor:
    return nn.functional.softplus(raw - 1)
