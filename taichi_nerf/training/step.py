"""How a step of training went."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Told(NamedTuple):
    """What is known of a step when it is through."""

    loss: float
    error: float  # mean squared error of the batch's colors; NaN where none of its pixels counts
    n_samples: int


@dataclass(frozen=True)
class Step:
    """What a GPU has still to tell is waited for when it is read."""

    step: int
    seconds: float  # of training so far
    n_rays: int
    told: Callable[[], Told]

    @property
    def loss(self) -> float:
        return self.told().loss

    @property
    def psnr(self) -> float:
        """Of the batch; NaN where none of its pixels counts."""
        return -10 * math.log10(max(self.told().error, 1e-10))

    @property
    def n_samples(self) -> int:
        return self.told().n_samples
