"""The distortion loss against its definition, its integral, and its symmetries.

Measured on cpu and lavapipe. Against the definition in 64 bits, rays of 2000 samples in 32 bits: loss 7e-7, gradients 9e-7,
the same 1e4 away from the origin. Against the reference in float32: forward 2e-7, gradients 3e-7.
"""

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.distortion import distortion_loss


def spans_of(*counts):
    count = torch.tensor(counts)
    return torch.stack([count.cumsum(0) - count, count], -1).int()


def one_ray(weights, t_edges):
    """The loss of a ray through a row of adjacent intervals."""
    weights, t_edges = torch.as_tensor(weights), torch.as_tensor(t_edges)
    return distortion_loss(weights, t_edges[:-1], t_edges[1:], spans_of(len(weights)))[0]


def by_definition(weights, t_starts, t_ends):
    """All pairs, in 64 bits."""
    weights, t_starts, t_ends = (x.double() for x in (weights, t_starts, t_ends))
    midpoints = (t_starts + t_ends) / 2
    between = weights[:, None] * weights * (midpoints[:, None] - midpoints).abs()
    return between.sum() + (weights**2 * (t_ends - t_starts)).sum() / 3


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_long_ray_near_or_far_equals_the_sum_over_all_pairs(backend, generator, offset):
    """At t = 1e4, the form m_i W_i - Σ w_j m_j summed in 32 bits is off by a thousandth."""
    steps = 0.005 + 0.02 * torch.rand(2000, generator=generator)
    t_starts = (offset + steps.cumsum(0) - steps).float()
    t_ends = t_starts + 0.6 * steps
    weights = torch.rand(2000, generator=generator) / 1000
    ours = [x.clone().requires_grad_() for x in (weights, t_starts, t_ends)]
    truth = [x.double().requires_grad_() for x in (weights, t_starts, t_ends)]
    loss, wanted = distortion_loss(*ours, spans_of(2000))[0], by_definition(*truth)
    assert_close(loss.double(), wanted, rtol=2e-6, atol=0)
    loss.backward()
    wanted.backward()
    for mine, theirs in zip(ours, truth, strict=True):
        assert (mine.grad - theirs.grad).abs().max() < 5e-6 * theirs.grad.abs().max()


def test_midpoints_need_not_be_representable(backend):
    """Halfway between neighbours among the 32-bit numbers: rounded midpoints would double this distance."""
    step = 2.0**-10  # the spacing of 32-bit numbers from 8192 on
    assert_close(one_ray([1.0, 1.0], [8192.0, 8192.0 + step, 8192.0 + 2 * step]), torch.tensor(step * (2 + 2 / 3)))


def test_one_interval_has_a_third_of_its_width_times_its_weight_squared(backend):
    assert_close(one_ray([0.7], [2.0, 2.3]), torch.tensor(0.7**2 * 0.3 / 3))


def test_two_spikes_have_twice_the_product_of_their_weights_times_their_distance(backend):
    thin = 1e-6
    loss = distortion_loss(torch.tensor([0.3, 0.5]), torch.tensor([0.0, 2.0]), torch.tensor([thin, 2.0 + thin]), spans_of(2))
    assert_close(loss, torch.tensor([2 * 0.3 * 0.5 * 2.0]), rtol=1e-5, atol=0)


def test_a_constant_weight_over_a_length_has_the_closed_form(backend):
    """∬ |u - v| du dv over [0, L]² is L³ / 3: a total weight of 1 spread over L costs L / 3, however it is cut."""
    length = 1.7
    for n in (1, 2, 7, 300):
        loss = one_ray(torch.full((n,), 1 / n), torch.linspace(1, 1 + length, n + 1))
        assert_close(loss, torch.tensor(length / 3), rtol=1e-5, atol=0)


def test_cutting_an_interval_changes_nothing(backend):
    whole = one_ray([0.3, 0.6, 0.1], [0.0, 0.5, 1.5, 2.0])
    cut = one_ray([0.3, 0.2, 0.4, 0.1], [0.0, 0.5, 0.5 + 1 / 3, 1.5, 2.0])
    assert_close(whole, cut, rtol=1e-6, atol=0)


def test_moving_the_ray_along_t_changes_nothing(backend, generator):
    """To the last digit, where t itself moves without rounding."""
    edges = torch.randint(1, 9, (65,), generator=generator).cumsum(0) / 64
    weights = torch.rand(64, generator=generator)
    assert torch.equal(one_ray(weights, edges), one_ray(weights, edges + 4096))


def test_scales_with_t_and_with_the_square_of_the_weights(backend, generator):
    edges = torch.rand(65, generator=generator).cumsum(0)
    weights = torch.rand(64, generator=generator)
    loss = one_ray(weights, edges)
    assert torch.equal(one_ray(weights, 8 * edges), 8 * loss)
    assert torch.equal(one_ray(4 * weights, edges), 16 * loss)


def test_looking_from_the_other_end_changes_nothing(backend, generator):
    edges = torch.rand(65, generator=generator).cumsum(0)
    weights = torch.rand(64, generator=generator)
    assert_close(one_ray(weights.flip(0), -edges.flip(0)), one_ray(weights, edges), rtol=1e-6, atol=0)


def test_gathering_the_weights_lowers_it(backend):
    edges = torch.linspace(0, 1, 6)
    spread = one_ray([0.2, 0.2, 0.2, 0.2, 0.2], edges)
    bulge = one_ray([0.0, 0.3, 0.4, 0.3, 0.0], edges)
    peak = one_ray([0.0, 0.0, 1.0, 0.0, 0.0], edges)
    assert spread > bulge > peak > 0


def test_descending_its_gradient_gathers_the_weights(backend):
    logits = torch.tensor([0.0, 0.1, 0.2, 0.1, 0.0], requires_grad=True)
    edges = torch.linspace(0, 1, 6)
    for _ in range(100):
        one_ray(torch.softmax(logits, 0), edges).backward()
        with torch.no_grad():
            logits -= 10 * logits.grad
            logits.grad = None
    assert torch.softmax(logits, 0)[2] > 0.9


def test_permuting_rays_permutes_the_output(backend, generator):
    t = torch.linspace(0, 4, 64)
    spans = spans_of(10, 30, 24)
    order = torch.tensor([2, 0, 1])
    weights = torch.rand(64, generator=generator)
    assert torch.equal(distortion_loss(weights, t, t + 0.05, spans)[order], distortion_loss(weights, t, t + 0.05, spans[order]))


def test_one_ray_does_not_reach_into_the_next(backend, generator):
    """Alone, a ray has the loss and the gradients that it has between two others."""
    weights, t = torch.rand(9, generator=generator), torch.rand(9, generator=generator).sort().values
    together = [x.clone().requires_grad_() for x in (weights, t, t + 0.1)]
    alone = [x[3:7].clone().requires_grad_() for x in (weights, t, t + 0.1)]
    losses = distortion_loss(*together, spans_of(3, 4, 2))
    loss = distortion_loss(*alone, spans_of(4))
    assert torch.equal(losses[1], loss[0])
    losses.sum().backward()
    loss.sum().backward()
    assert all(torch.equal(x.grad[3:7], y.grad) for x, y in zip(together, alone, strict=True))


def test_samples_outside_every_span_and_empty_rays_count_for_nothing(backend):
    t = torch.arange(5.0)
    leaves = [x.clone().requires_grad_() for x in (torch.ones(5), t, t + 1)]
    spans = torch.tensor([[1, 2], [3, 0], [5, 0]], dtype=torch.int32)
    loss = distortion_loss(*leaves, spans)
    assert_close(loss.detach(), torch.tensor([2 + 2 / 3, 0.0, 0.0]))
    loss.sum().backward()
    for leaf in leaves:
        assert torch.equal(leaf.grad[[0, 3, 4]], torch.zeros(3))
        assert (leaf.grad[1:3] != 0).all()


def test_says_which_argument_has_which_wrong_shape(cpu):
    t = torch.zeros(3)
    with pytest.raises(ValueError, match=r"t_ends has to have shape \[n_samples\] with n_samples=3, got \[4\]"):
        distortion_loss(t, t, torch.zeros(4), spans_of(3))
