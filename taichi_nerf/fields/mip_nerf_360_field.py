"""mip-NeRF 360's networks (Barron et al. 2022): a wide one that knows density and color, a small one that proposes where to look.

Both see Gaussians as `ContractedEncoding` encodes them. density = log(1 + exp(raw - 1)), colors are padded as mip-NeRF's.
With the published sizes the wide one has 8.7 million parameters, the other 0.33 million.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taichi_nerf.fields.contracted_encoding import ContractedEncoding
from taichi_nerf.fields.mip_nerf_field import COLOR_PADDING, density_of
from taichi_nerf.fields.mlp import Mlp, Precision
from taichi_nerf.fields.ranges import LAYERS, WIDTHS, check_ranges
from taichi_nerf.fields.view_mlp import ViewMlp
from taichi_nerf.rays import Rays, Samples


@dataclass(frozen=True)
class WideNetworkSettings:
    n_layers: int = 8
    n_hidden: int = 1024
    skip_after: int = 4  # the layer, counted from 0, whose output the place is put before again
    n_feature: int = 256  # numbers that color is made from
    n_view_hidden: int = 128
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_ranges(self, n_layers=LAYERS, n_hidden=WIDTHS, n_feature=WIDTHS, n_view_hidden=WIDTHS)


@dataclass(frozen=True)
class ProposalNetworkSettings:
    n_layers: int = 4
    n_hidden: int = 256
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_ranges(self, n_layers=LAYERS, n_hidden=WIDTHS)


class MipNerf360Field(nn.Module):
    def __init__(self, encoding: ContractedEncoding, settings: WideNetworkSettings, generator: torch.Generator):
        super().__init__()
        self.encoding = encoding
        self.network = ViewMlp(
            encoding.settings.n_place, encoding.settings.n_view, generator, n_layers=settings.n_layers,
            n_hidden=settings.n_hidden, skip_after=settings.skip_after, n_view_hidden=settings.n_view_hidden,
            n_feature=settings.n_feature, precision=settings.precision,
        )  # fmt: skip

    def forward(self, rays: Rays, samples: Samples) -> tuple[Tensor, Tensor]:
        """Density [n_samples] and color [n_samples, 3] of pieces of cones."""
        views = self.encoding.views(rays.directions).to(self.network.dtype)
        return self._of(self.encoding(rays, samples), views.index_select(0, samples.ray_indices))

    def around(self, positions: Tensor, directions: Tensor, std: float) -> tuple[Tensor, Tensor]:
        """Density [n] and color [n, 3] of round Gaussians about positions [n, 3]."""
        return self._of(self.encoding.around(positions, std), self.encoding.views(directions))

    def _of(self, places: Tensor, seen_from: Tensor) -> tuple[Tensor, Tensor]:
        raw, color = self.network(places, seen_from)
        return density_of(raw), (1 + 2 * COLOR_PADDING) * torch.sigmoid(color) - COLOR_PADDING


class ProposalNetwork(nn.Module):
    def __init__(self, encoding: ContractedEncoding, settings: ProposalNetworkSettings, generator: torch.Generator):
        super().__init__()
        self.encoding = encoding
        widths = (encoding.settings.n_place, *[settings.n_hidden] * settings.n_layers, 1)
        self.mlp = Mlp(widths, generator, settings.precision, biases=True)

    def forward(self, rays: Rays, samples: Samples) -> Tensor:
        """Density [n_samples] of pieces of cones."""
        return density_of(self.mlp(self.encoding(rays, samples))[:, 0].float())
