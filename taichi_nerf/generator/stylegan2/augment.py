"""Augmentation of what the discriminator sees, for small sets: as strong as its overfitting asks (after Karras et al. 2020a).

With probability p each, independently: the image moves by up to an eighth, is mirrored, changes brightness, contrast and
saturation, loses a square of half its side. All of it is linear in the image and differentiable twice, as R1 needs it. p grows
while the discriminator tells more than `target` of the real images apart with the right sign, and shrinks otherwise.
"""

import torch
from torch import Generator as Random
from torch import Tensor

SHIFT, CUT = 1 / 8, 1 / 2  # of the side
LUMA = (0.299, 0.587, 0.114)


def augmented(images: Tensor, p: float, random: Random | None = None, mirror: bool = False) -> Tensor:  # [n, 3, h, w]
    """`mirror`: whether mirrored objects are objects of the set."""
    if p <= 0:
        return images
    n, _, size, _ = images.shape

    def drawn(low: float, high: float, otherwise: float) -> Tensor:
        """[n, 1, 1, 1] uniform where it happens."""
        values = torch.rand(n, 2, generator=random, device=images.device)
        found = torch.where(values[:, 0] < p, low + (high - low) * values[:, 1], otherwise)
        return found.view(n, 1, 1, 1).to(images.dtype)

    if mirror:
        images = torch.where(drawn(0, 1, 0.0) > 0.5, images.flip(3), images)
    images = _moved(images, drawn(-SHIFT, SHIFT, 0.0), drawn(-SHIFT, SHIFT, 0.0))
    images = images + drawn(-0.4, 0.4, 0.0)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * drawn(0.6, 1.5, 1.0) + mean
    grey = (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    images = (images - grey) * drawn(0.0, 2.0, 1.0) + grey
    at = torch.arange(size, device=images.device, dtype=images.dtype) + 0.5
    row, column = drawn(0, size, -size).view(n, 1, 1), drawn(0, size, -size).view(n, 1, 1)
    inside = ((at.view(1, -1, 1) - row).abs() < CUT * size / 2) & ((at.view(1, 1, -1) - column).abs() < CUT * size / 2)
    return images * (~inside)[:, None].to(images.dtype)


def _moved(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """By whole pixels; the border goes on as it ends."""
    n, c, size, _ = images.shape
    at = torch.arange(size, device=images.device)
    for shift, axis in ((right, 3), (down, 2)):
        offset = (shift.view(n, 1) * size).round().long()
        index = (at - offset).clamp(0, size - 1).view(n, 1, 1, size)
        index = index if axis == 3 else index.transpose(2, 3)
        images = images.gather(axis, index.expand(n, c, size, size))
    return images


class Strength:
    """p, moved after each step by the signs of the logits of real images; it crosses from 0 to 1 in `images` images."""

    def __init__(self, target: float | None, images: float = 100_000.0):
        self.target, self.images, self.p = target, images, 0.0

    def update(self, real_logits: Tensor) -> None:
        if self.target is None:
            return
        excess = float(real_logits.detach().sign().mean()) - self.target
        self.p = min(1.0, max(0.0, self.p + (1 if excess > 0 else -1) * len(real_logits) / self.images))
