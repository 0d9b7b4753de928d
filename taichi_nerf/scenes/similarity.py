"""A map between two coordinate systems that keeps angles."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Similarity:
    """x → scale · rotation x + translation."""

    scale: float
    rotation: Array  # [3, 3]
    translation: Array  # [3]

    @staticmethod
    def identity() -> "Similarity":
        return Similarity(1.0, np.eye(3), np.zeros(3))

    def __call__(self, points: Array) -> Array:
        return self.scale * points @ self.rotation.T + self.translation

    def inverse(self) -> "Similarity":
        rotation = self.rotation.T
        return Similarity(1 / self.scale, rotation, -rotation @ self.translation / self.scale)
