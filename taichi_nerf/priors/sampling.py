"""Patches out of noise: denoising implicit sampling (Song et al. 2021), a few of the schedule's times from the last down.

x_0 = (x_t - √(1-ᾱ_t) ε) / √ᾱ_t within [-1, 1];   x_s = √ᾱ_s x_0 + √(1 - ᾱ_s - σ²) ε + σ z,
σ² = η² (1 - ᾱ_s)/(1 - ᾱ_t) (1 - ᾱ_t/ᾱ_s): η = 0 adds no noise on the way, η = 1 is Ho et al.'s sampling.
"""

import torch
from torch import Tensor

from taichi_nerf.priors.prior import Prior
from taichi_nerf.report import Report, silent


def sample_of_seed(prior: Prior, n: int, seed: int, n_steps: int = 50, eta: float = 0.0, report: Report = silent) -> Tensor:
    """n patches on the CPU, the same for a seed."""
    return sample(prior, n, torch.Generator().manual_seed(seed), n_steps, eta, report).cpu()


@torch.no_grad()
def sample(
    prior: Prior,
    n: int,
    generator: torch.Generator,
    n_steps: int = 50,
    eta: float = 0.0,
    report: Report = silent,
) -> Tensor:
    """n patches [n, channels, size, size] in [-1, 1], on the CPU generator's numbers."""
    settings, kept = prior.settings, prior.schedule.kept
    device = next(prior.denoiser.parameters()).device
    x = torch.randn(n, settings.denoiser.channels, settings.size, settings.size, generator=generator).to(device)
    times = prior.schedule.strided(n_steps)
    for done, (t, s) in enumerate(zip(times, [*times[1:], -1], strict=True), 1):
        now, then = float(kept[t]), float(kept[s]) if s >= 0 else 1.0
        noise = prior.noise_in(x, t)
        clean = ((x - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-1, 1)
        noise = (x - now**0.5 * clean) / (1 - now) ** 0.5  # that fits to the clipped patch
        variance = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
        x = then**0.5 * clean + max(1 - then - variance, 0.0) ** 0.5 * noise
        if variance > 0:
            x = x + variance**0.5 * torch.randn(x.shape, generator=generator).to(device)
        report(done / len(times), f"step {done} of {len(times)}")
    return x
