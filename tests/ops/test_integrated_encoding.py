"""Frustum Gaussians and integrated encoding against Monte Carlo, closed forms and 64 bits.

Measured against the reference in float32: forward 2e-7, gradients 7e-7 on cpu and lavapipe.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.frequency_encoding import frequency_encoding
from taichi_nerf.ops.integrated_encoding import cast_frustums, integrated_encoding


def cast(origins, directions, radii, t_edges, shape="cone"):
    """Rays that all have the same row of intervals."""
    n_rays, n = len(origins), len(t_edges) - 1
    rays = torch.arange(n_rays, dtype=torch.int32)
    spans = torch.stack([rays * n, torch.full_like(rays, n)], -1)
    t_starts, t_ends = t_edges[:-1].repeat(n_rays), t_edges[1:].repeat(n_rays)
    return cast_frustums(origins, directions, radii, t_starts, t_ends, rays.repeat_interleave(n), spans, shape=shape)


def inside(direction, radius, t_0, t_1, shape, generator, n=400_000):
    """Points spread evenly over a frustum or a cylinder along `direction` from the origin."""
    u, v, w = torch.rand(3, n, generator=generator, dtype=torch.float64)
    t = (t_0**3 + u * (t_1**3 - t_0**3)) ** (1 / 3) if shape == "cone" else t_0 + u * (t_1 - t_0)
    reach = radius * torch.sqrt(v) * (t if shape == "cone" else 1)
    side = torch.linalg.cross(direction, torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    side = side / side.norm()
    other = torch.linalg.cross(direction / direction.norm(), side, dim=0)
    angle = 2 * math.pi * w
    return t[:, None] * direction + reach[:, None] * (torch.cos(angle)[:, None] * side + torch.sin(angle)[:, None] * other)


@pytest.mark.parametrize("shape", ["cone", "cylinder"])
@pytest.mark.parametrize(("t_0", "t_1"), [(0.0, 1.5), (1.0, 3.0), (2.0, 2.2)])
def test_moments_are_those_of_points_spread_over_the_volume(shape, t_0, t_1, backend, generator):
    direction = torch.tensor([0.6, -1.1, 0.4], dtype=torch.float64)  # not unit: t counts in its length
    points = inside(direction, 0.35, t_0, t_1, shape, generator)
    origin = torch.tensor([[1.0, 2.0, 3.0]])
    means, variances = cast(origin, direction.float()[None], torch.tensor([0.35]), torch.tensor([t_0, t_1]), shape)
    assert_close(means[0], origin[0] + points.mean(0).float(), atol=4e-3, rtol=0)
    assert_close(variances[0], points.var(0).float(), atol=1e-3, rtol=1e-2)


def test_a_whole_cone_has_its_textbook_centroid_and_variances(backend):
    """Apex at 0, height and base radius 1: centroid 3/4, variance 3/80 along and 3/20 · 1 across."""
    means, variances = cast(torch.zeros(1, 3), torch.eye(3)[2:], torch.ones(1), torch.tensor([0.0, 1.0]))
    assert_close(means, torch.tensor([[0, 0, 0.75]]))
    assert_close(variances, torch.tensor([[0.15, 0.15, 3 / 80]]))


def test_thin_frustums_keep_their_digits_in_32_bits(backend):
    """t_mean = 3/4 (t₁⁴ - t₀⁴) / (t₁³ - t₀³), as first written in the paper, is lost to cancellation here."""
    thickness = 2.0**-12
    edges = 4 + thickness * torch.arange(2.0)
    means, variances = cast(torch.zeros(1, 3), torch.eye(3)[2:], torch.tensor([1e-3]), edges)
    assert_close(means[0, 2], edges.mean(), atol=1e-6, rtol=0)
    assert_close(variances[0, 2], torch.tensor(thickness**2 / 12), atol=0, rtol=1e-4)
    assert_close(variances[0, 0], torch.tensor(1e-6 * 16 / 4), atol=0, rtol=1e-3)


def test_empty_intervals_and_degenerate_rays_stay_finite(backend):
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    edges = torch.tensor([0.0, 0.0, 1.0, 1.0])
    means, variances = cast(torch.zeros(2, 3), directions, torch.tensor([0.1, 0.0]), edges)
    (means.sum() + variances.sum()).backward()
    assert torch.isfinite(means).all()
    assert (variances >= 0).all()
    assert torch.isfinite(directions.grad).all()
    assert_close(means[2], torch.tensor([0.0, 0.0, 1.0]))  # [1, 1] is the point t = 1
    assert_close(variances[2, 2], torch.tensor(0.0))


@pytest.mark.parametrize("shape", ["cone", "cylinder"])
def test_splitting_an_interval_keeps_the_moments_of_the_whole(shape, cpu):
    """The law of total variance along the axis, with the parts' volumes as probabilities."""
    edges = torch.tensor([0.5, 0.9, 2.0], dtype=torch.float64)
    origin, direction, radius = torch.zeros(1, 3).double(), torch.eye(3)[2:].double(), torch.tensor([0.4]).double()
    mean, variance = (v[0] for v in cast(origin, direction, radius, edges[[0, 2]], shape))
    means, variances = cast(origin, direction, radius, edges, shape)
    volume = (edges**3 if shape == "cone" else edges).diff()
    p = (volume / volume.sum())[:, None]
    total_mean = (p * means).sum(0)
    assert_close(mean, total_mean, atol=1e-12, rtol=0)
    assert_close(variance, (p * (variances + (means - total_mean) ** 2)).sum(0), atol=1e-12, rtol=0)


def test_scaling_the_direction_and_shrinking_t_changes_nothing(backend):
    directions = torch.tensor([[0.2, 0.5, -0.9]])
    edges = torch.tensor([1.0, 1.5, 2.5])
    plain = cast(torch.ones(1, 3), directions, torch.tensor([0.1]), edges)
    scaled = cast(torch.ones(1, 3), 2 * directions, torch.tensor([0.2]), edges / 2)
    for a, b in zip(plain, scaled, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_samples_of_no_span_get_zero_gradients_and_rays_without_samples_too(backend):
    t_starts = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    origins = torch.zeros(3, 3, requires_grad=True)
    spans = torch.tensor([[0, 1], [1, 1], [0, 0]], dtype=torch.int32)
    ray_indices = torch.tensor([0, 1, 1], dtype=torch.int32)
    means, _ = cast_frustums(origins, torch.ones(3, 3), torch.ones(3), t_starts, torch.full((3,), 4.0), ray_indices, spans)
    means.sum().backward()
    assert torch.equal(origins.grad, torch.tensor([[1.0] * 3, [1.0] * 3, [0.0] * 3]))
    assert t_starts.grad[2] == 0
    assert (t_starts.grad[:2] != 0).all()


def test_without_variance_it_is_the_frequency_encoding(backend, generator):
    x = 2 * torch.rand(100, 3, generator=generator) - 1
    plain = frequency_encoding(x, n_frequencies=16, include_identity=False, order="per_function")
    assert_close(integrated_encoding(x, torch.zeros_like(x)), plain, atol=3e-7, rtol=0)


def test_it_is_the_mean_of_the_encodings_of_gaussian_points(backend, generator):
    mean, variance = torch.tensor([[0.3, -0.8, 1.7]]), torch.tensor([[0.02, 0.1, 0.5]])
    points = mean + variance.sqrt() * torch.randn(400_000, 3, generator=generator)
    angles = points[:, None, :] * 2.0 ** torch.arange(5)[:, None]
    expected = torch.stack([torch.sin(angles), torch.cos(angles)], 1).double().mean(0).flatten()
    assert_close(integrated_encoding(mean, variance, n_frequencies=5)[0].double(), expected, atol=5e-3, rtol=0)


def test_octaves_finer_than_the_gaussian_vanish(backend):
    encoded = integrated_encoding(torch.full((1, 3), 0.4), torch.full((1, 3), 0.01)).view(2, 16, 3)
    assert encoded[:, :3].abs().max() > 0.5
    assert encoded[:, 6:].abs().max() < 2e-8  # e^{-4^6 / 200}
    assert (encoded[:, 9:] == 0).all()


def test_damping_agrees_with_64_bits(backend):
    """The 32-bit exponential is our own polynomial: Vulkan promises only 3 + 2x units in the last place for its."""
    variances = torch.logspace(-12, 2, 3000).repeat(3, 1).T.contiguous()
    means = torch.zeros_like(variances)
    cosines = integrated_encoding(means, variances)[:, 48:].view(-1, 16, 3)
    exact = torch.exp(-(4.0 ** torch.arange(16, dtype=torch.float64))[:, None] * variances.double()[:, None, :] / 2)
    assert_close(cosines.double(), exact, atol=1.5e-7, rtol=0)


def test_the_gradient_of_variance_has_its_closed_form(backend):
    """∂/∂v of cos(0) e^{-4^l v / 2} is -4^l / 2 times the value."""
    variances = torch.full((1, 3), 0.3, requires_grad=True)
    integrated_encoding(torch.zeros(1, 3), variances, n_frequencies=3).sum().backward()
    expected = -sum(4**k / 2 * math.exp(-(4**k) * 0.15) for k in range(3))
    assert_close(variances.grad, torch.full((1, 3), expected))


def test_refuses_what_it_does_not_know(cpu):
    with pytest.raises(ValueError, match="n_frequencies has to be 1 to 16, got 17"):
        integrated_encoding(torch.zeros(1, 3), torch.zeros(1, 3), n_frequencies=17)
    with pytest.raises(ValueError, match="shape has to be one of cone, cylinder, got 'pyramid'"):
        cast(torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1), torch.arange(2.0), "pyramid")
