"""A small hash grid that knows density alone: what proposes where to look.

log density = Σ over levels of what the grid holds there; or a small network of that.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taichi_nerf.fields.hash_grid_field import FINEST, LOG2_TABLE_SIZES, TruncatedExp, layout_of
from taichi_nerf.fields.mlp import Mlp, Precision
from taichi_nerf.fields.ranges import AT_LEAST_ONE, FEATURES, LEVELS, WIDTHS, check_ranges
from taichi_nerf.fields.space import Contraction, unit_positions
from taichi_nerf.ops import hash_grid


@dataclass(frozen=True)
class DensitySettings:
    n_levels: int = 3
    n_features: int = 1  # of a level
    log2_table_size: int = 18  # rows of a level
    base_resolution: int = 16
    max_resolution: int = 64
    n_hidden: int = 0  # of a network; 0: none, features are added up
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_ranges(
            self, n_levels=LEVELS, n_features=FEATURES, log2_table_size=LOG2_TABLE_SIZES, base_resolution=AT_LEAST_ONE,
            max_resolution=(self.base_resolution, FINEST), n_hidden=(0, WIDTHS[1]),
        )  # fmt: skip

    @property
    def without_effect(self) -> dict[str, str]:
        return {} if self.n_hidden else {"precision": "without density.n_hidden"}


class DensityField(nn.Module):
    box: Tensor  # [2, 3]

    def __init__(self, settings: DensitySettings, box: Tensor, contraction: Contraction, generator: torch.Generator):
        super().__init__()
        self.contraction = contraction
        self.register_buffer("box", box)
        self.layout = layout_of(settings)
        table = hash_grid.initialise_table(**self.layout, n_features=settings.n_features, generator=generator)
        self.table = nn.Parameter(table)
        widths = (settings.n_levels * settings.n_features, settings.n_hidden, 1)
        self.mlp = Mlp(widths, generator, settings.precision) if settings.n_hidden else None

    def forward(self, positions: Tensor) -> Tensor:  # [n, 3] in scene units → [n]
        features = hash_grid.hash_grid(unit_positions(positions, self.box, self.contraction), self.table, **self.layout)
        return TruncatedExp.apply(features.sum(-1, keepdim=True) if self.mlp is None else self.mlp(features), 0.0)
