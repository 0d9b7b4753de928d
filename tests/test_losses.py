"""Losses against their closed forms."""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf import losses
from taichi_nerf.ops import compositing
from taichi_nerf.rays import Samples

COLOR, TRUTH = torch.tensor([[0.5, 0.2, 1.0], [0.0, 0.0, 0.3]]), torch.tensor([[0.5, 0.0, 0.0], [0.05, 0.0, 0.3]])


def test_squared_error_is_the_mean_of_squares():
    assert losses.photometric("mse", COLOR, TRUTH).item() == pytest.approx((0.04 + 1 + 0.0025) / 6)


def test_hubers_loss_is_squared_up_to_a_tenth_and_linear_beyond():
    """2 (d²/2) below δ, 2 δ (|d| - δ/2) above."""
    expected = (0.2 * (0.2 - 0.05) + 0.2 * (1 - 0.05) + 0.0025) / 6
    assert losses.photometric("huber", COLOR, TRUTH).item() == pytest.approx(expected)


def test_hubers_loss_is_smooth_where_it_changes():
    at = torch.tensor([[0.1 - 1e-5, 0.1 + 1e-5, 0.1]], requires_grad=True)
    losses.photometric("huber", at, torch.zeros(1, 3)).backward()
    assert_close(at.grad, torch.full((1, 3), 0.2 / 3), rtol=1e-3, atol=0)


def test_charbonniers_loss_is_the_distance_but_at_zero_where_it_is_smooth():
    at = torch.tensor([[0.3, -0.4, 0.0]], requires_grad=True)
    loss = losses.photometric("charbonnier", at, torch.zeros(1, 3))
    assert loss.item() == pytest.approx((0.3 + 0.4 + 0.001) / 3, rel=1e-5)
    loss.backward()
    assert_close(at.grad, torch.tensor([[1 / 3, -1 / 3, 0]]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["mse", "huber", "charbonnier"])
def test_weights_count_rays(kind):
    weights = torch.tensor([3.0, 0.0])
    first = losses.photometric(kind, COLOR[:1], TRUTH[:1])
    assert_close(losses.photometric(kind, COLOR, TRUTH, weights), first * 3 / 2)
    assert_close(losses.photometric(kind, COLOR, TRUTH, torch.ones(2)), losses.photometric(kind, COLOR, TRUTH))


def test_entropy_is_greatest_when_undecided_and_finite_when_sure():
    assert losses.opacity_entropy(torch.tensor([0.5])).item() == pytest.approx(math.log(2))
    assert losses.opacity_entropy(torch.tensor([0.0, 1.0])).item() < 2e-4
    assert_close(losses.opacity_entropy(torch.tensor([0.2])), losses.opacity_entropy(torch.tensor([0.8])))
    ends = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    losses.opacity_entropy(ends).backward()
    assert ends.grad.isfinite().all()
    assert ends.grad[2].abs() < 1e-6


def test_what_is_explained_is_the_share_of_the_variance_that_errors_leave(generator):
    truth = torch.rand(50, 3, generator=generator)
    errors = lambda color: (color - truth).square().mean(-1)  # noqa: E731
    assert_close(losses.explained(errors(truth), truth), torch.tensor(1.0))
    assert losses.explained(errors(truth.mean(0)), truth).item() == pytest.approx(0, abs=1e-6)
    halved = (truth + truth.mean(0)) / 2  # errors of half the deviation, a fourth of the variance
    assert losses.explained(errors(halved), truth).item() == pytest.approx(0.75)
    assert losses.explained(errors(1 - truth), truth) < 0
    seen = (torch.arange(50) < 20).float()
    wrong = torch.where(seen[:, None] > 0, halved, torch.zeros(3))
    expected = losses.explained(errors(wrong)[:20], truth[:20])
    assert_close(losses.explained(errors(wrong), truth, seen), expected)


def test_of_pictures_of_one_color_nothing_is_explained_until_it_is_met():
    grey = torch.full((9, 3), 0.5)
    assert losses.explained(torch.full((9,), 0.01), grey) < 0
    assert losses.explained(torch.zeros(9), grey) == 1


def test_spread_is_the_double_sum_of_the_paper(backend, generator):
    """Σ_ij w_i w_j |s_i - s_j| + 1/3 Σ w_i² δ_i over midpoints s in t / (1 + t), in a mean over rays."""
    edges = torch.rand(3, 6, generator=generator).cumsum(-1)
    weights = torch.rand(3, 5, generator=generator)
    s = edges / (1 + edges)
    middle, length = (s[:, 1:] + s[:, :-1]) / 2, s[:, 1:] - s[:, :-1]
    distances = (middle[:, :, None] - middle[:, None]).abs()
    expected = torch.einsum("ri,rj,rij->r", weights, weights, distances) + (weights**2 * length).sum(-1) / 3
    indices = torch.arange(3, dtype=torch.int32).repeat_interleave(5)
    spans = torch.tensor([[0, 5], [5, 5], [10, 5]], dtype=torch.int32)
    samples = Samples(edges[:, :-1].flatten(), edges[:, 1:].flatten(), indices, spans)
    assert_close(losses.spread(weights.flatten(), samples), expected.mean())


def test_depth_is_right_when_all_light_stops_there_and_unknown_depth_says_nothing():
    depth, opacity = torch.tensor([2.0, 1.0, 9.0], requires_grad=True), torch.tensor([1.0, 0.5, 0.1], requires_grad=True)
    truth, known = torch.tensor([2.0, 4.0, 0.0]), torch.tensor([True, True, False])
    error = losses.depth_error(depth, opacity, truth, known)
    assert error.item() == pytest.approx((abs(1 - 0.5 * 4) / 4 + 0.5) / 3)
    error.backward()
    assert depth.grad[2] == opacity.grad[2] == 0
    assert depth.grad.isfinite().all()


def test_a_surface_at_the_known_depth_has_no_depth_error(backend):
    spans = torch.tensor([[0, 3]], dtype=torch.int32)
    density, starts = torch.tensor([0.0, 1e4, 0.0]), torch.tensor([1.0, 1.9, 3.0])
    rendered = compositing.composite_rays(density, torch.zeros(3, 3), starts, starts + 0.2, spans)
    error = losses.depth_error(rendered.depth, rendered.opacity, torch.tensor([2.0]), torch.tensor([True]))
    assert error.item() == pytest.approx(0, abs=1e-5)
