"""A field of which only what lies in a box is there."""

import torch
from torch import Tensor

from taichi_nerf.fields.field import Field, Glance


class CroppedField(Field):
    """No density outside of `box` [2, 3]."""

    def __init__(self, field: Field, box: Tensor):
        super().__init__()
        self.field, self.box = field, box

    def forward(
        self,
        positions: Tensor,
        directions: Tensor,
        image_ids: Tensor | None = None,
        features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        density, color = self.field(positions, directions, image_ids, features)
        return self._cut(density, positions), color

    def glance(self, positions: Tensor) -> Glance:
        density, features = self.field.glance(positions)
        return Glance(self._cut(density, positions), features)

    def _cut(self, density: Tensor, positions: Tensor) -> Tensor:
        inside = ((positions >= self.box[0]) & (positions <= self.box[1])).all(-1)
        return torch.where(inside, density, 0.0)
