"""NeRF's field (Mildenhall et al. 2020): sines and cosines of a place and of a direction, and a network on top.

γ(x) = (x, sin(2^0 x), cos(2^0 x), …, sin(2^(L-1) x), cos(2^(L-1) x)),  L = 10 for places, 4 for directions. The paper has π x in
place of x and leaves the identity out; the published code does as written here, and JaxNeRF lists all sines before all cosines.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from taichi_nerf.fields.field import Field, Glance
from taichi_nerf.fields.mlp import Precision
from taichi_nerf.fields.ranges import LAYERS, WIDTHS, check_ranges
from taichi_nerf.fields.view_mlp import ViewMlp
from taichi_nerf.ops import frequency_encoding

Activation = Literal["relu", "softplus"]


@dataclass(frozen=True)
class EncodingSettings:
    n_frequencies: int = 10  # of places; 0: places as they are
    n_view_frequencies: int = 4  # of directions; 0: directions as they are
    identity: bool = True  # the place itself, too
    times_pi: bool = False  # as in the paper
    order: Literal["per_frequency", "per_function"] = "per_frequency"

    def __post_init__(self) -> None:
        octaves = (0, frequency_encoding.MOST_FREQUENCIES)
        check_ranges(self, n_frequencies=octaves, n_view_frequencies=octaves)
        if not (self.identity or (self.n_frequencies and self.n_view_frequencies)):
            raise ValueError("without identity, n_frequencies and n_view_frequencies have to be more than 0")


@dataclass(frozen=True)
class NetworkSettings:
    n_layers: int = 8
    n_hidden: int = 256
    skip_after: int = 4  # the layer, counted from 0, whose output the place is put before again
    n_view_hidden: int = 128
    density: Activation = "relu"  # of what the network says
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_ranges(self, n_layers=LAYERS, n_hidden=WIDTHS, n_view_hidden=WIDTHS)

    def network(self, n_position: int, n_view: int, generator: torch.Generator) -> ViewMlp:
        widths = {"n_layers": self.n_layers, "n_hidden": self.n_hidden, "n_view_hidden": self.n_view_hidden}
        return ViewMlp(n_position, n_view, generator, skip_after=self.skip_after, precision=self.precision, **widths)


class NerfField(Field):
    def __init__(self, encoding: EncodingSettings, settings: NetworkSettings, generator: torch.Generator):
        super().__init__()
        self.encoding, self.settings = encoding, settings
        n_position, n_view = (n_encoded(encoding, n) for n in (encoding.n_frequencies, encoding.n_view_frequencies))
        self.network = settings.network(n_position, n_view, generator)

    def forward(
        self, positions: Tensor, directions: Tensor, image_ids: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.look(positions, self.encode_views(directions))

    def look(self, positions: Tensor, seen_from: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Density and color, with directions encoded already; `noise` [n] is added to what the network says of density."""
        raw, color = self.network(self.encode(positions), seen_from)
        return self.density_of(raw if noise is None else raw + noise), torch.sigmoid(color)

    @torch.no_grad()
    def glance(self, positions: Tensor) -> Glance:
        return Glance(self.density_of(self.network.densities(self.encode(positions))), None)

    def density_of(self, raw: Tensor) -> Tensor:
        return torch.relu(raw) if self.settings.density == "relu" else nn.functional.softplus(raw - 1)

    def encode(self, positions: Tensor) -> Tensor:
        return self._encoded(positions, self.encoding.n_frequencies)

    def encode_views(self, directions: Tensor) -> Tensor:
        return self._encoded(directions, self.encoding.n_view_frequencies)

    def _encoded(self, x: Tensor, n: int) -> Tensor:
        if n == 0:
            return x
        options: dict[str, Any] = {"include_identity": self.encoding.identity, "order": self.encoding.order}
        base = math.pi if self.encoding.times_pi else 1.0
        return frequency_encoding.frequency_encoding(x, n_frequencies=n, base_frequency=base, **options)


def n_encoded(encoding: EncodingSettings, n_frequencies: int) -> int:
    """Numbers that encode three."""
    return 6 * n_frequencies + 3 * (encoding.identity or n_frequencies == 0)
