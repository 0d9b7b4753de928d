"""Refined views, taken together, should look like the generator's images: what FID and KID ask of a set.

    L_nat = ‖(E F(ŵ⁺) − E F(w)) / σ‖²     E F(w), σ: mean and deviation of features F over codes w as the generator takes them

Every other loss holds a view against its own source, and sources are not all that the generator makes: they face the camera. What
moving codes there has changed in all of them alike, only a set shows.
"""

import torch
from torch import Generator as Random
from torch import Tensor

from taichi_nerf.generator.turns import Turns

N_CODES, AT_ONCE = 4096, 64
REMEMBERED = 0.97  # share of the running mean that a step leaves: of a few hundred views, where a batch has a few
FLOOR = 0.1  # of the mean deviation: features that hardly ever change say little


class NaturalMean:
    """Holds the running mean of what a refiner makes against the generator's own."""

    def __init__(self, mean: Tensor, deviation: Tensor):
        """Of features, [c, h, w] each."""
        self.mean, self.deviation = mean, deviation + FLOOR * deviation.mean()
        self._running = torch.zeros_like(mean)
        self._n = 0

    @classmethod
    @torch.no_grad()
    def of(cls, turns: Turns, resolution: int, random: Random) -> "NaturalMean":
        """Of the generator's block at `resolution` pixels."""
        generator = turns.generator
        z = torch.randn(N_CODES, generator.settings.z_dim, generator=random).to(generator.mapping.w_avg.device)
        found = []
        for some in z.split(AT_ONCE):
            features = generator.synthesis.with_features(generator.mapping(some, turns.directions.truncation), resolution)[1]
            assert features is not None
            found.append(features)
        features = torch.cat(found)
        return cls(features.mean(0), features.std(0))

    def loss(self, features: Tensor) -> Tensor:
        """L_nat of the running mean, as far as these [n, c, h, w] are a part of it; its gradient is theirs alone."""
        now, remembered = features.mean(0), min(REMEMBERED, self._n / (self._n + 1))
        self._running = torch.lerp(now.detach(), self._running, remembered)
        self._n += 1
        running = self._running + (now - now.detach())
        return ((running - self.mean) / self.deviation).square().mean()
