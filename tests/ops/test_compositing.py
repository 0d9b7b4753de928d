"""Compositing against closed forms and the laws of light in a participating medium.

Measured against the reference in float32: forward 2e-7, gradients 1e-6 on cpu and lavapipe.
"""

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.compositing import composite_rays


def one_ray(density, t_edges, color=None, background=None, **options):
    """A ray through a row of intervals."""
    density, t_edges = torch.as_tensor(density), torch.as_tensor(t_edges)
    color = torch.ones(len(density), 3) if color is None else torch.as_tensor(color)
    spans = torch.tensor([[0, len(density)]], dtype=torch.int32)
    return composite_rays(density, color, t_edges[:-1], t_edges[1:], spans, background, **options)


def test_constant_density_has_the_closed_form_opacity(backend):
    sigma, length = 1.7, 2.5
    rendered = one_ray(torch.full((40,), sigma), torch.linspace(0.5, 0.5 + length, 41))
    assert_close(rendered.opacity, 1 - torch.exp(torch.tensor([-sigma * length])), atol=1e-6, rtol=0)


def test_constant_density_has_the_closed_form_depth(backend):
    """∫ σ e^{-σt} t dt over [0, L] = (1 - e^{-σL} (1 + σL)) / σ, as intervals shrink."""
    sigma, length = 0.8, 3.0
    rendered = one_ray(torch.full((4096,), sigma), torch.linspace(0, length, 4097))
    x = torch.tensor(sigma * length)
    assert_close(rendered.depth, ((1 - torch.exp(-x) * (1 + x)) / sigma)[None], atol=1e-4, rtol=0)


def test_splitting_an_interval_changes_nothing(backend):
    whole = one_ray([0.3, 2.0, 0.7], [0.0, 0.5, 1.5, 2.0], color=torch.eye(3))
    halves = one_ray([0.3, 0.3, 2.0, 2.0, 0.7], [0.0, 0.2, 0.5, 1.1, 1.5, 2.0], color=torch.eye(3)[[0, 0, 1, 1, 2]])
    assert_close(whole.color, halves.color, atol=1e-6, rtol=0)
    assert_close(whole.opacity, halves.opacity, atol=1e-6, rtol=0)


def test_tiny_densities_keep_their_digits(backend):
    """1 - exp(-x) computed naively in 32 bits loses a third of x = 1e-7."""
    rendered = one_ray([1e-7], [0.0, 1.0])
    assert_close(rendered.opacity, torch.tensor([1e-7]), rtol=1e-5, atol=0)


def test_an_opaque_sample_hides_all_behind_it_and_nothing_is_nan(backend):
    density = torch.tensor([0.0, 1e10, 5.0], requires_grad=True)
    color = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    rendered = one_ray(density, [0.0, 1.0, 2.0, 3.0], color, background=torch.ones(1, 3))
    assert_close(rendered.color.detach(), torch.tensor([[0.0, 1.0, 0.0]]))
    rendered.color.sum().backward()
    assert torch.isfinite(density.grad).all()


def test_an_endless_opaque_last_sample_has_no_gradient(backend, generator):
    """NeRF's last interval is 1e10 long, and a rounding error times that is no small thing: -2000 it once was."""
    density = (0.1 + 3 * torch.rand(64, generator=generator)).requires_grad_()
    t_edges = torch.cat([torch.linspace(2, 6, 64), torch.tensor([1e10])])
    one_ray(density, t_edges, torch.rand(64, 3, generator=generator)).color.sum().backward()
    assert density.grad[-1] == 0
    assert (density.grad[:-1].abs() < 1).all()


def test_weights_are_at_most_one_and_sum_to_opacity(backend, generator):
    density = 50 * torch.rand(1000, generator=generator)
    t = torch.rand(1000, generator=generator)
    spans = torch.tensor([[0, 400], [400, 0], [400, 600]], dtype=torch.int32)
    rendered = composite_rays(density, torch.rand(1000, 3), t, t + 0.1, spans)
    sums = torch.stack([rendered.weights[:400].sum(), torch.tensor(0.0), rendered.weights[400:].sum()])
    assert (rendered.weights >= 0).all()
    assert (rendered.opacity <= 1 + 1e-6).all()
    assert_close(sums, rendered.opacity, atol=2e-6, rtol=0)


def test_permuting_rays_permutes_the_output(backend, generator):
    density, color = torch.rand(64, generator=generator), torch.rand(64, 3, generator=generator)
    t = torch.linspace(0, 4, 64)
    spans = torch.tensor([[0, 10], [10, 30], [40, 24]], dtype=torch.int32)
    order = torch.tensor([2, 0, 1])
    straight = composite_rays(density, color, t, t + 0.1, spans)
    permuted = composite_rays(density, color, t, t + 0.1, spans[order])
    assert torch.equal(straight.color[order], permuted.color)
    assert torch.equal(straight.weights, permuted.weights)


def test_a_ray_without_samples_is_its_background(backend):
    background = torch.tensor([[0.2, 0.4, 0.6]])
    rendered = composite_rays(
        torch.empty(0),
        torch.empty(0, 3),
        torch.empty(0),
        torch.empty(0),
        torch.zeros(1, 2, dtype=torch.int32),
        background,
    )
    assert_close(rendered.color, background)
    assert rendered.opacity.item() == rendered.depth.item() == 0


def test_weights_behind_an_early_stop_are_zero_not_leftovers(backend):
    """A peer left them uninitialised."""
    rendered = one_ray(torch.full((100,), 10.0), torch.linspace(0, 10, 101), early_stop=1e-2)
    stopped = rendered.weights[5:]  # T after five samples is e^-5 < 0.01
    assert torch.equal(stopped, torch.zeros_like(stopped))
    assert (rendered.weights[:5] > 0).all()


def test_samples_outside_every_span_weigh_nothing(backend):
    spans = torch.tensor([[1, 2]], dtype=torch.int32)
    t = torch.arange(5.0)
    rendered = composite_rays(torch.ones(5), torch.ones(5, 3), t, t + 1, spans)
    assert torch.equal(rendered.weights[[0, 3, 4]], torch.zeros(3))


def test_one_ray_does_not_reach_into_the_next(backend):
    """A peer wrote transmittance to T[s + 1], one past its ray."""
    t = torch.tensor([0.0, 1.0, 0.0, 1.0])
    spans = torch.tensor([[0, 2], [2, 2]], dtype=torch.int32)
    alone = composite_rays(torch.ones(4), torch.ones(4, 3), t, t + 1, spans)
    beside_opaque = composite_rays(torch.tensor([1e9, 1e9, 1, 1]), torch.ones(4, 3), t, t + 1, spans)
    assert torch.equal(alone.weights[2:], beside_opaque.weights[2:])


def test_says_which_argument_has_which_wrong_shape(cpu):
    t = torch.zeros(3)
    with pytest.raises(ValueError, match=r"color has to have shape \[n_samples, n_channels\] with n_samples=3, got \[4, 3\]"):
        composite_rays(t, torch.zeros(4, 3), t, t, torch.zeros(1, 2, dtype=torch.int32))


def test_a_negative_density_follows_the_exponential_too(backend):
    """The series for small optical depths is for small ones of either sign."""
    rendered = one_ray([-5.0], [0.0, 1.0])
    assert_close(rendered.opacity, 1 - torch.exp(torch.tensor([5.0])), rtol=1e-5, atol=0)
