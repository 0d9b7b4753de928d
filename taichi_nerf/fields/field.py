"""What rendering asks of a radiance field."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Glance(NamedTuple):
    """A first look at some places, without gradients: enough to tell which of them a picture can show."""

    density: Tensor  # [n]
    features: Tensor | None  # [n, n_features] what a second look at the same places may start from


class Field(nn.Module, ABC):
    """Density and color of every place of a scene, in scene units, seen along unit directions."""

    @abstractmethod
    def forward(
        self,
        positions: Tensor,  # [n, 3]
        directions: Tensor,  # [n, 3]
        image_ids: Tensor | None = None,  # [n] int32: whose appearance; None is the mean of all
        features: Tensor | None = None,  # [n, n_features] of an earlier glance at the same positions
    ) -> tuple[Tensor, Tensor]:
        """Density [n] and color [n, 3]."""

    @abstractmethod
    def glance(self, positions: Tensor) -> Glance:
        """Density, and what was computed on the way to it. No gradients."""
