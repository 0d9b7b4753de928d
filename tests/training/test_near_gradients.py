"""Gradients that fade near cameras: what is said stays, what is learned does not."""

import torch
from torch.testing import assert_close

from taichi_nerf.training.near_gradients import fading


def test_gradients_fade_with_the_square_of_the_distance_and_values_stay():
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0, 100.0])
    density, color, of_density, of_color = (
        torch.randn(6, *size, generator=generator, dtype=torch.float64) for size in ((), (3,), (), (3,))
    )
    density.requires_grad_()
    color.requires_grad_()
    found = fading(density, color, t, 4.0)
    assert_close(found, (density, color), rtol=0, atol=0)
    grads = torch.autograd.grad((found[0] * of_density).sum() + (found[1] * of_color).sum(), (density, color))
    share = torch.tensor([0, 1 / 64, 1 / 16, 1 / 4, 1, 1], dtype=torch.float64)
    assert_close(grads, (share * of_density, share[:, None] * of_color))
    assert fading(density, color, t, 0.0) == (density, color)  # they themselves
