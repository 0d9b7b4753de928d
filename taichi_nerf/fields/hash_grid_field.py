"""instant-ngp's field (Müller et al. 2022, section 5.4): a hash grid, a density network, a color network.

features(x) → 64 → 16 numbers, the first of which is the logarithm of density
those 16, 16 spherical harmonics of the direction [, an embedding of the image] → 64 → 64 → color

While cameras are corrected, fine levels hide where they should go. `sharpen` lets the levels in one after the other, coarse to
fine, by BARF's weights (Lin et al. 2021, equation 14): level k counts (1 - cos(π min(max(α - k, 0), 1))) / 2.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.fields.field import Field, Glance
from taichi_nerf.fields.mlp import Mlp, MlpSettings, Precision
from taichi_nerf.fields.mlp_choice import chosen
from taichi_nerf.fields.ranges import AT_LEAST_ONE, FEATURES, LAYERS, LEVELS, WIDTHS, check_ranges
from taichi_nerf.fields.space import Contraction, unit_positions
from taichi_nerf.ops import hash_grid, spherical_harmonics

LARGEST_LOG_DENSITY = 12.0
LOG2_TABLE_SIZES, FINEST = (3, 30), 2**20  # what `ops.hash_grid` takes
OF_NO_IMAGE = -1  # in the place of an image's number: the one before the first


@dataclass(frozen=True)
class HashGridSettings:
    n_levels: int = 16
    n_features: int = 2  # of a level
    log2_table_size: int = 19  # rows of a level
    base_resolution: int = 16
    max_resolution: int = 1024
    n_hidden: int = 64
    n_geometry: int = 16  # numbers that the density network gives
    n_color_layers: int = 2
    harmonics: int = 3  # highest degree of those of directions: 16 numbers
    log_density: float = 0.0  # of a new field
    n_appearance: int = 0  # numbers of an image's embedding; 0: none
    precision: Precision = "float32"
    mlp: MlpSettings = MlpSettings()

    def __post_init__(self) -> None:
        check_ranges(
            self, n_levels=LEVELS, n_features=FEATURES, log2_table_size=LOG2_TABLE_SIZES, base_resolution=AT_LEAST_ONE,
            max_resolution=(self.base_resolution, FINEST), n_hidden=WIDTHS, n_geometry=WIDTHS,
            n_color_layers=(0, LAYERS[1]), harmonics=(0, spherical_harmonics.HIGHEST_DEGREE), n_appearance=(0, WIDTHS[1]),
        )  # fmt: skip


class HashGridField(Field):
    box: Tensor  # [2, 3]
    level_weights: Tensor  # [n_levels * n_features], or none at all

    def __init__(
        self, settings: HashGridSettings, box: Tensor, contraction: Contraction, n_images: int, generator: torch.Generator,
        coarse_to_fine: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.settings, self.contraction = settings, contraction
        self.register_buffer("box", box)
        self.layout = layout_of(settings)
        table = hash_grid.initialise_table(**self.layout, n_features=settings.n_features, generator=generator)
        self.table = nn.Parameter(table)
        n_encoded = settings.n_levels * settings.n_features
        self.register_buffer("level_weights", torch.ones(n_encoded * coarse_to_fine))
        self._packed: Tensor | None = None
        self._packed_from: tuple[Tensor, int, int] | None = None  # the table, where it lay, its version; None: not that of today
        self._is_watched = False
        n_hidden = settings.n_hidden
        self.density_mlp = self._network((n_encoded, n_hidden, settings.n_geometry), generator)
        n_seen = settings.n_geometry + (settings.harmonics + 1) ** 2 + settings.n_appearance
        self.color_mlp = self._network((n_seen, *[n_hidden] * settings.n_color_layers, 3), generator)
        self.appearance = nn.Parameter(torch.zeros(n_images if settings.n_appearance else 0, settings.n_appearance))

    def _network(self, widths: tuple[int, ...], generator: torch.Generator) -> Mlp:
        precision = self.settings.precision
        implementation = chosen(self.settings.mlp.implementation, widths, precision)
        return Mlp(widths, generator, precision, implementation=implementation)

    def forward(
        self, positions: Tensor, directions: Tensor, image_ids: Tensor | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        geometry = self.density_mlp(self._weighed(self.encode(positions, features)))
        seen_from = spherical_harmonics.spherical_harmonics(directions, degree=self.settings.harmonics)
        inputs = [geometry, seen_from.to(geometry.dtype)]
        if self.settings.n_appearance:
            inputs.append(self.appearance_of(image_ids, len(positions)).to(geometry.dtype))
        color = torch.sigmoid(self.color_mlp(torch.cat(inputs, -1)).float())
        return self.density_of(geometry), color

    @torch.no_grad()
    def glance(self, positions: Tensor) -> Glance:
        features = self.encode(positions)
        return Glance(self.density_of(self.density_mlp(self._weighed(features))), features)

    def sharpen(self, progress: float) -> None:
        """From the coarsest third of the levels, at 0, to all of them, at 1."""
        n = self.settings.n_levels
        shown = n / 3 + (n - n / 3) * min(max(progress, 0.0), 1.0)  # α
        weights = (1 - torch.cos(math.pi * (shown - torch.arange(n)).clamp(0, 1))) / 2
        self.level_weights.copy_(weights.repeat_interleave(self.settings.n_features), non_blocking=True)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        state.setdefault(f"{prefix}level_weights", torch.ones_like(self.level_weights))  # older than these: of all levels
        super()._load_from_state_dict(state, prefix, *others)

    def _weighed(self, features: Tensor) -> Tensor:
        return features * self.level_weights.to(features.dtype) if len(self.level_weights) else features

    def density_of(self, geometry: Tensor) -> Tensor:
        return TruncatedExp.apply(geometry, self.settings.log_density)

    def encode(self, positions: Tensor, features: Tensor | None = None) -> Tensor:
        """The hash grid's features [n, n_levels * n_features]."""
        unit = unit_positions(positions, self.box, self.contraction)
        return hash_grid.hash_grid(unit, self.table, **self.layout, features=features, packed=self.packed())

    def packed(self) -> Tensor | None:
        """The table in the networks' precision, where that is faster and known to be that of today."""
        can_pack = self.settings.precision == "bfloat16" and hash_grid.can_pack(self.table)
        if not can_pack or (self.training and not self._is_watched):
            return None
        # Others may put another table in its place, which counts its own versions, or other memory under it.
        known, here = self._packed_from, (self.table.data_ptr(), self.table._version)
        if known is None or known[0] is not self.table or known[1:] != here:
            self._packed, self._packed_from = hash_grid.pack(self.table.detach(), self._packed), (self.table, *here)
        return self._packed

    def watch(self, optimiser: torch.optim.Optimizer) -> None:
        """Learn of this optimiser's steps, the only ones to come: fused ones do not count as changes of a tensor."""
        self._is_watched = True
        optimiser.register_step_post_hook(self._forget)

    def _forget(self, *_: Any) -> None:
        self._packed_from = None

    def train(self, mode: bool = True) -> "HashGridField":
        self._forget()
        return super().train(mode)

    def appearance_of(self, image_ids: Tensor | None, n: int) -> Tensor:
        """The embeddings of images [n, n_appearance]; of none in particular: their mean."""
        mean = self.appearance.mean(0, keepdim=True)
        if image_ids is None:
            return mean.expand(n, -1)
        return torch.cat([mean, self.appearance]).index_select(0, image_ids - OF_NO_IMAGE)


def layout_of(settings: Any) -> dict[str, Any]:
    """What `ops.hash_grid` is told of a grid, by the names that it and these settings share."""
    return {name: getattr(settings, name) for name in ("n_levels", "base_resolution", "max_resolution", "log2_table_size")}


class TruncatedExp(torch.autograd.Function):
    """exp of the first column, in float32; where it is cut off, gradients go on as at the border (truncated exponential)."""

    @staticmethod
    def forward(ctx, geometry, shift):  # type: ignore[no-untyped-def]
        density = (geometry[:, 0].float() + shift).clamp_(max=LARGEST_LOG_DENSITY).exp_()
        ctx.save_for_backward(density)
        ctx.like = geometry
        return density

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (density,) = ctx.saved_tensors
        of_geometry = torch.zeros_like(ctx.like)
        of_geometry[:, 0] = grad * density
        return of_geometry, None
