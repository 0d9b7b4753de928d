"""What a prior says about a rendered patch, as a loss whose gradient is minus the weighted score (DiffusioNeRF).

Wynn and Turmukhambetov, CVPR 2023.

    L = -Σ 2e-6 z · s_inv x_inv - Σ 3e-6 / ‖s_rgb‖ · s_rgb x_rgb,     s = -ε(x, t) / √(1 - ᾱ_t)

x: the patch in [-1, 1] (`channels`), to which no noise is added unless `noise` is given (`score_of`); z: its depth in metres.
Scores and factors have no gradient of their own, so dL/dx = -weight · score: minimising L goes up the probability. With the
factor z, and since d(1/z)/dz = -1/z², the gradient in log z does not depend on the scene's size; that of the colors has the same
length whatever the score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from taichi_nerf.priors.channels import to_channels
from taichi_nerf.priors.prior import Prior


@dataclass(frozen=True)
class ScoreWeights:
    """DiffusioNeRF's, of sums over the pixels of a patch."""

    depth: float = 2e-6
    color: float = 3e-6  # the length of the gradient of all colors together
    by_depth: bool = True  # the factor z


def patch_loss(
    prior: Prior,
    color: Tensor,  # [h, w, 3] 0 to 1
    inverse: Tensor,  # [h, w] `channels.inverse_depth`
    depth: Tensor,  # [h, w] metres
    tau: float,  # from 1, all noise, to 0
    weights: ScoreWeights = ScoreWeights(),
    *,
    color_counts: bool = True,  # False: the colors are those of an image, and only the depth is to change
    noise: Tensor | None = None,  # [channels, h, w] added to what the denoiser sees, as DreamFusion does, and its opposite
) -> Tensor:
    """The loss of one patch, a scalar whose value says nothing and whose gradient is the prior's."""
    variant = prior.settings.variant
    patch = to_channels(color, inverse, variant)
    score = score_of(prior, patch.detach(), tau, noise)
    weight = torch.zeros_like(score)
    if variant != "rgb":
        weight[-1] = weights.depth * (depth.detach() if weights.by_depth else 1.0)
    if variant != "d" and color_counts:
        weight[:3] = weights.color / score[:3].norm().clamp_min(1e-12)
    return -(weight * score * patch).sum()


def score_of(prior: Prior, patch: Tensor, tau: float, noise: Tensor | None = None) -> Tensor:  # [channels, h, w] → same
    """∇ log p at the noise level of τ. With noise, what the denoiser sees of it beyond the noise that was added.

    It is asked twice, the second time with the opposite noise: what changes sign with the noise cancels, and such a pair points
    more to what a patch should be than four independent draws.
    """
    t = prior.schedule.time_at(tau)
    if noise is None:
        return prior.score(patch[None], t)[0]
    added = torch.stack([noise, -noise])
    noisy = prior.schedule.noisy(patch.expand_as(added), added, torch.full((2,), t, device=patch.device))
    return (added - prior.noise_in(noisy, t)).mean(0) / float(prior.schedule.noise[t])


def tau_at(progress: float, first: float = 0.1, until: float = 0.25, last: float = 0.0) -> float:
    """τ of a share of the training: from `first` down a straight line to `last` at `until`, and that from there on."""
    return last + (first - last) * max(0.0, 1 - progress / until) if until > 0 else last
