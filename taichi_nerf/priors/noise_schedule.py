"""How much noise a patch holds at each time: x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, t = 0 … T - 1.

cosine    ᾱ_t = f(t + 1) / f(0), f(t) = cos²(π/2 · (t/T + 0.008) / 1.008), each step's β at most 0.999 (Nichol and Dhariwal 2021)
linear    β from 10^-4 to 0.02 over T = 1000 (Ho et al. 2020), at most 0.999 as well

Sums are in 64 bits: 1 - ᾱ is 10^-4 at first, of which 32 bits would leave three digits.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["cosine", "linear"]
OFFSET, LARGEST_BETA = 0.008, 0.999
N_STRIDES = 250  # of the times that sampling and scores use


@dataclass(frozen=True)
class NoiseSchedule:
    kind: Kind
    kept: Tensor  # [T] ᾱ, float64

    @staticmethod
    def of(kind: Kind = "cosine", n_times: int = 1000) -> "NoiseSchedule":
        if kind == "cosine":
            t = torch.linspace(0, 1, n_times + 1, dtype=torch.float64)
            f = torch.cos((t + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2
            betas = (1 - f[1:] / f[:-1]).clamp(0, LARGEST_BETA)
        elif kind == "linear":
            betas = torch.linspace(1e-4, 0.02, n_times, dtype=torch.float64) * (1000 / n_times)
            betas = betas.clamp(max=LARGEST_BETA)
        else:
            raise ValueError(f"unknown noise schedule {kind!r}: expected cosine or linear")
        return NoiseSchedule(kind, torch.cumprod(1 - betas, 0))

    @property
    def n_times(self) -> int:
        return len(self.kept)

    @property
    def signal(self) -> Tensor:
        """√ᾱ [T]."""
        return self.kept.sqrt()

    @property
    def noise(self) -> Tensor:
        """√(1 - ᾱ) [T]."""
        return (1 - self.kept).sqrt()

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:  # [n, c, h, w], same, [n] → [n, c, h, w]
        """x with this noise at times t."""
        signal, level = (part.to(x.device)[t].to(x.dtype)[:, None, None, None] for part in (self.signal, self.noise))
        return signal * x + level * noise

    def strided(self, n: int = N_STRIDES) -> list[int]:
        """n of the times, evenly spaced, from the last down."""
        if not 1 <= n <= self.n_times:
            raise ValueError(f"expected 1 to {self.n_times} times, got {n}")
        return torch.linspace(-1, self.n_times - 1, n + 1).int().flip(0)[:-1].tolist()

    def time_at(self, tau: float) -> int:
        """The time that stands for τ from 1 (all noise) to 0, as DiffusioNeRF has it: τ = 0.1 is t = 99, τ = 0 is t = 3."""
        if not 0 <= tau <= 1:
            raise ValueError(f"tau: expected 0 to 1, got {tau:g}")
        times = self.strided(min(N_STRIDES, self.n_times))
        return times[min(round((1 - tau) * len(times)), len(times) - 1)]
