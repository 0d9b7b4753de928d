"""D(w, ŵ_t, T, t) → ŵ⁺: from a source code and the noised code of its turned image to a code that is consistent with the source.

A latent code has no order along which a UNet could convolve, so the network is made of residual layers, each modulated (FiLM,
Perez et al. 2018) by the time step and the pose. It predicts x₀ around what is known before learning: if ŵ ~ N(w, σ²), then

    E[ŵ | ŵ_t] = w + k (ŵ_t − √ᾱ w),    k = √ᾱ σ² / (ᾱ σ² + 1 − ᾱ)        (compare the preconditioning of Karras et al. 2022)

and the last layer begins at zero: at t = 0 the refiner begins as ŵ⁺ = ŵ.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

POSE_UNITS = 4.0  # poses are fractions of a radian and of the camera's distance


@dataclass(frozen=True)
class RefinerSettings:
    """Sizes. For 512-dimensional codes: width 1024."""

    w_dim: int = 128
    n_layers: int = 10  # codes of the generator
    width: int = 256
    n_blocks: int = 6
    n_times: int = 1000
    # One code for all layers that the turn changes, or one for each layer of the generator.
    scope: Literal["edited", "all"] = "edited"
    spread: float = 1.0  # σ, in units of the codes' standard deviation
    keep: float = 0.75  # share of the correction along the turn's direction that is left out: 1, it corrects all but the turn

    def __post_init__(self) -> None:
        if self.scope not in ("edited", "all"):
            raise ValueError(f"scope: expected edited or all, got {self.scope!r}")

    @property
    def n_in(self) -> int:
        return self.w_dim * (self.n_layers if self.scope == "all" else 1)


def linear_schedule(n_times: int) -> Tensor:
    """ᾱ [n_times + 1]: 1 at step 0, then products of 1 − β, β from 1e-4 to 0.02 for a thousand steps (Ho et al. 2020)."""
    scale = 1000 / n_times
    betas = torch.linspace(1e-4 * scale, min(0.02 * scale, 0.999), n_times, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]).float()


def time_features(t: Tensor, n: int) -> Tensor:
    """[batch, n] cosines and sines of the time at frequencies from 1 to 1/10000."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(n // 2, device=t.device) / (n // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class Block(nn.Module):
    """x + W₂ silu(scale · W₁ silu(norm x) + shift), scale and shift from the conditions; begins as the identity."""

    def __init__(self, width: int, n_conditions: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.film = nn.Linear(n_conditions, 2 * width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, values: Tensor, conditions: Tensor) -> Tensor:
        scale, shift = self.film(conditions).chunk(2, -1)
        inner = self.first(functional.silu(self.norm(values))) * (1 + scale) + shift
        return values + self.second(functional.silu(inner))


class Refiner(nn.Module):
    """Codes are flat [n, n_in] and normalised: mean 0, standard deviation about 1."""

    alpha_bar: Tensor
    mean: Tensor
    deviation: Tensor
    turn: Tensor

    def __init__(self, settings: RefinerSettings):
        super().__init__()
        self.settings = settings
        width = settings.width
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.pose = nn.Sequential(nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(2 * settings.n_in, width)
        self.blocks = nn.ModuleList(Block(width, width) for _ in range(settings.n_blocks))
        self.leave = nn.Linear(width, settings.n_in)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.register_buffer("alpha_bar", linear_schedule(settings.n_times))
        self.register_buffer("mean", torch.zeros(settings.w_dim))
        self.register_buffer("deviation", torch.ones([]))
        self.register_buffer("turn", torch.zeros(settings.w_dim))  # unit vector that turns objects

    def forward(self, source: Tensor, noised: Tensor, pose: Tensor, t: Tensor) -> Tensor:
        """x₀ [n, n_in] of source and noised codes [n, n_in], poses [n, 6] and times [n] from 0 to n_times."""
        root = self.alpha_bar[t].sqrt()[:, None]
        variance = self.settings.spread**2
        k = root * variance / (root.square() * variance + 1 - root.square()).clamp_min(1e-12)
        known = source + k * (noised - root * source)
        conditions = functional.silu(self.time(time_features(t, 64)) + self.pose(POSE_UNITS * pose))
        values = self.enter(torch.cat([known, source], -1))
        for block in self.blocks:
            values = block(values, conditions)
        correction = self.leave(values).unflatten(-1, (-1, self.settings.w_dim))
        along = (correction @ self.turn)[..., None] * self.turn
        return known + (correction - self.settings.keep * along).flatten(-2)

    def noised(self, codes: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """√ᾱ x₀ + √(1 − ᾱ) ε."""
        alpha = self.alpha_bar[t][:, None]
        return alpha.sqrt() * codes + (1 - alpha).sqrt() * noise

    def flat(self, codes: Tensor, layers: tuple[int, int]) -> Tensor:
        """W+ [n, n_layers, w_dim] to what is refined, normalised."""
        normal = (codes - self.mean) / self.deviation
        return normal[:, layers[0]] if self.settings.scope == "edited" else normal.flatten(1)

    def unflat(self, flat: Tensor, codes: Tensor, layers: tuple[int, int]) -> Tensor:
        """W+ with what was refined in its place; the layers that the turn leaves alone stay those of `codes` (scope edited)."""
        if self.settings.scope == "all":
            return flat.unflatten(1, (-1, self.settings.w_dim)) * self.deviation + self.mean
        inside = torch.arange(codes.shape[1], device=codes.device)
        inside = ((inside >= layers[0]) & (inside < layers[1]))[None, :, None]
        return torch.where(inside, (flat * self.deviation + self.mean)[:, None], codes)


@torch.no_grad()
def refine(
    refiner: Refiner,
    source: Tensor,  # [n, n_layers, w_dim]
    turned: Tensor,  # [n, n_layers, w_dim]
    pose: Tensor,  # [n, 6]
    layers: tuple[int, int],
    n_steps: int = 1,
    start: int | None = None,
) -> Tensor:
    """Refined codes [n, n_layers, w_dim] of source and turned codes.

    One step: from t = 0. More: DDIM (Song et al. 2021, η = 0) from ŵ noised to time `start` (a quarter of all by default). x₀ is
    not clipped: codes have no bounds.
    """
    expect_codes(refiner.settings, turned)
    w, edited = refiner.flat(source, layers), refiner.flat(turned, layers)
    if n_steps == 1:
        time = torch.zeros(len(w), dtype=torch.long, device=w.device)
        return refiner.unflat(refiner(w, edited, pose, time), turned, layers)
    start = refiner.settings.n_times // 4 if start is None else start
    times = torch.linspace(start, 0, n_steps).round().long().tolist()
    noise = torch.randn(edited.shape, generator=torch.Generator().manual_seed(0)).to(edited)
    at = torch.full((len(w),), times[0], dtype=torch.long, device=w.device)
    x = refiner.noised(edited, at, noise)
    for now, after in zip(times, [*times[1:], 0], strict=True):
        at = torch.full_like(at, now)
        clean = refiner(w, x, pose, at)
        alpha, alpha_after = refiner.alpha_bar[now], refiner.alpha_bar[after]
        if now == 0:
            return refiner.unflat(clean, turned, layers)
        epsilon = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        x = alpha_after.sqrt() * clean + (1 - alpha_after).sqrt() * epsilon
    return refiner.unflat(clean, turned, layers)


def expect_codes(settings: RefinerSettings, codes: Tensor) -> None:
    """Refuse codes of another generator, or of this one after it has grown. One code for all layers fits any number of them."""
    n_layers = settings.n_layers if settings.scope == "all" else codes.shape[1]
    if codes.shape[1:] != (n_layers, settings.w_dim):
        learned, given = f"{n_layers} codes of {settings.w_dim} numbers", f"{codes.shape[1]} of {codes.shape[2]}"
        hint = "`taichi-nerf generator refine` learns another"
        raise ValueError(f"the refiner was learned for a generator of {learned}, this one has {given}; {hint}")
