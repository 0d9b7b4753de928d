"""How well a prior knows patches, by the noise that it finds in them."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf import random_numbers
from taichi_nerf.priors.prior import Prior
from taichi_nerf.report import Report, silent
from taichi_nerf.training.prior_run import PatchSettings, PriorConfig, patch_set, pictures_of

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4)  # τ
N_DRAWN = 12  # patches of a sheet
DRAWN_AT = 0.1  # τ


def score_patches(
    prior: Prior, source: str, n: int, metric_scale: float, seed: int, report: Report = silent
) -> tuple[list[dict[str, Any]], Tensor]:
    """Rows by noise level, and patches to draw: as many clean as noisy as denoised ones [n, channels, h, w]."""
    pictures, held_out = pictures_of(PatchSettings((source,), metric_scale, seed=seed), report)
    config = PriorConfig(prior.settings, PatchSettings((source,), metric_scale))
    generator = torch.Generator().manual_seed(seed)
    device = next(prior.denoiser.parameters()).device
    patches = patch_set(config, [*pictures, *held_out]).draw(n, generator).to(device)
    noise = random_numbers.normal(*patches.shape, generator=generator, device=device)
    rows = [_row(prior, patches, noise, tau) for tau in LEVELS]
    t = prior.schedule.time_at(DRAWN_AT)
    noisy, clean = denoised(prior, patches[:N_DRAWN], noise[:N_DRAWN], t)
    return rows, torch.cat([patches[:N_DRAWN], noisy, clean]).cpu()


def denoised(prior: Prior, patches: Tensor, noise: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Patches with noise, and what the prior takes the clean ones for."""
    noisy = prior.schedule.noisy(patches, noise, torch.full((len(patches),), t, device=patches.device))
    signal, level = float(prior.schedule.signal[t]), float(prior.schedule.noise[t])
    return noisy, ((noisy - level * prior.noise_in(noisy, t)) / signal).clamp(-1, 1)


def _row(prior: Prior, patches: Tensor, noise: Tensor, tau: float) -> dict[str, Any]:
    t = prior.schedule.time_at(tau)
    noisy = prior.schedule.noisy(patches, noise, torch.full((len(patches),), t, device=patches.device))
    errors = (prior.noise_in(noisy, t) - noise).abs().mean((0, 2, 3))
    variant = prior.settings.variant
    return {
        "tau": tau,
        "t": t,
        "noise": float(prior.schedule.noise[t]),
        "color_error": float(errors[:3].mean()) if variant != "d" else None,
        "depth_error": float(errors[-1]) if variant != "rgb" else None,
        "score": float(prior.score(patches, t).square().mean().sqrt()),
    }
