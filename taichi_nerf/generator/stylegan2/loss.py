"""What StyleGAN2 minimises (Karras et al. 2020), each a function of a few lines.

generator        softplus(−D(G(z)))                       non-saturating (Goodfellow et al. 2014)
discriminator    softplus(D(G(z))) + softplus(−D(x))
R1               γ/2 · E ‖∇ₓ D(x)‖²                       on real images x (Mescheder et al. 2018)
path length      E (‖J_wᵀ y‖ − a)², y ~ N(0, I) / √pixels, a the running mean of ‖J_wᵀ y‖
"""

import math

import torch
from torch import Generator as Random
from torch import Tensor
from torch.nn.functional import softplus

PATH_DECAY = 0.01  # of the running mean of path lengths


def generator_loss(fake_logits: Tensor) -> Tensor:
    return softplus(-fake_logits).mean()


def discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    return softplus(fake_logits).mean() + softplus(-real_logits).mean()


def r1_penalty(real_images: Tensor, real_logits: Tensor, gamma: float) -> Tensor:
    """`real_images` require a gradient, and the logits are theirs."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() * (gamma / 2)


def path_lengths(images: Tensor, codes: Tensor, random: Random | None = None) -> Tensor:
    """[n] ‖J_wᵀ y‖ of images [n, 3, h, w] with respect to their codes [n, n_layers, w_dim]: root of the mean over layers."""
    directions = torch.randn(images.shape, generator=random, device=images.device, dtype=images.dtype)
    directions = directions / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * directions).sum(), codes, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_penalty(lengths: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The penalty, and the running mean with these lengths in it."""
    mean = mean.lerp(lengths.detach().mean(), PATH_DECAY)
    return (lengths - mean).square().mean(), mean
