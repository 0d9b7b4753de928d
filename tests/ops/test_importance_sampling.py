"""Sampling against its own distribution, the published procedures spelled out, and degenerate histograms.

Measured against the reference in float32: 9e-7 on cpu and lavapipe. The distribution function of a sample, in 64 bits,
gives back its uniform number to 1e-6 with 64 bins whose weights span eight decades.
"""

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.importance_sampling import importance_sample, stratified_samples


def row(*values):
    return torch.tensor([values], dtype=torch.float32)


def histograms(generator, n_rays=40, n_bins=32):
    """Edges of uneven bins and weights, many of them zero."""
    edges = (0.5 + torch.rand(n_rays, n_bins + 1, generator=generator)).cumsum(-1)
    weights = torch.rand(n_rays, n_bins, generator=generator)
    return edges, weights * (torch.rand(n_rays, n_bins, generator=generator) < 0.6)


def probability_below(t, edges, weights):
    """The distribution function of each ray's histogram at t, in 64 bits."""
    t, edges, weights = t.double(), edges.double(), weights.double()
    covered = (t[:, :, None] - edges[:, None, :-1]) / (edges[:, 1:] - edges[:, :-1])[:, None]
    return (covered.clamp(0, 1) * weights[:, None]).sum(-1) / weights.sum(-1, keepdim=True)


def spelled_out(edges, weights, u, padding):
    """NeRF's procedure for one ray and one u, as a program without tricks."""
    padded = [float(w) + padding for w in weights]
    cumulative = [0.0]
    for weight in padded:
        cumulative.append(cumulative[-1] + weight / sum(padded))
    after = 0
    while after < len(cumulative) and cumulative[after] <= u:
        after += 1
    below, above = max(0, after - 1), min(len(cumulative) - 1, after)
    mass = cumulative[above] - cumulative[below]
    fraction = (u - cumulative[below]) / (mass if mass >= 1e-5 else 1)
    return float(edges[below]) + fraction * float(edges[above] - edges[below])


def test_draws_follow_the_histogram(backend, generator):
    """χ² over quarters of bins stays below its 0.9999 quantile (31 degrees of freedom: 66.6)."""
    edges = torch.tensor([0.0, 0.3, 1.0, 1.1, 2.0, 2.5, 4.0, 4.2, 5.0])
    weights = torch.tensor([1.0, 3.0, 0.5, 2.0, 0.2, 1.0, 4.0, 0.7])
    u = torch.rand(512, 64, generator=generator)
    t = importance_sample(edges.expand(512, -1), weights.expand(512, -1), 64, uniforms=u, padding=0.0)
    quarters = torch.cat([torch.lerp(edges[:-1], edges[1:], k / 4)[:, None] for k in range(4)], -1).flatten()
    counts = torch.bincount(torch.searchsorted(quarters, t.flatten(), right=True) - 1, minlength=32)
    expected = (weights / weights.sum() / 4).repeat_interleave(4) * u.numel()
    assert ((counts - expected) ** 2 / expected).sum() < 66.6


def test_equal_weights_and_bins_give_evenly_spaced_samples(backend):
    edges = torch.linspace(2, 6, 17).expand(3, -1)
    samples = importance_sample(edges, torch.ones(3, 16), 50)
    assert_close(samples, torch.linspace(2, 6, 50).expand(3, -1), rtol=1e-6, atol=0)
    centers = importance_sample(edges, torch.ones(3, 16), 50, stratified=True)
    assert_close(centers, (2 + 4 * (torch.arange(50) + 0.5) / 50).expand(3, -1), rtol=1e-6, atol=0)


def test_a_single_spike_draws_all_samples_into_its_bin(backend):
    edges = torch.arange(9.0)[None]
    for spike in range(8):
        weights = torch.zeros(1, 8)
        weights[0, spike] = 1e-3
        assert_close(importance_sample(edges, weights, 5, padding=0.0)[0], spike + torch.linspace(0, 1, 5))


def test_equals_the_procedure_of_nerf(backend, generator):
    edges, weights = torch.rand(4, 12, generator=generator).cumsum(-1), torch.rand(4, 11, generator=generator)
    weights[:, 3] = 0
    weights /= 0.5 + weights.sum(-1, keepdim=True)  # an empty bin then has 2e-5 of the mass
    u = torch.rand(4, 20, generator=generator)
    drawn = importance_sample(edges, weights, 20, uniforms=u)
    even = importance_sample(edges, weights, 20)
    for ray in range(4):
        wanted = sorted(spelled_out(edges[ray], weights[ray], float(v), 1e-5) for v in u[ray])
        assert_close(drawn[ray], torch.tensor(wanted), rtol=2e-6, atol=0)
        wanted = [spelled_out(edges[ray], weights[ray], k / 19, 1e-5) for k in range(19)]
        assert_close(even[ray, :19], torch.tensor(wanted), rtol=2e-6, atol=0)
        assert even[ray, 19] == edges[ray, -1]


def test_equals_the_procedure_of_mip_nerf(backend, generator):
    edges, weights = histograms(generator, n_rays=4, n_bins=9)
    u = torch.rand(4, 10, generator=generator)
    drawn = importance_sample(edges, weights, 10, uniforms=u, stratified=True, padding=0.01, blur=True)
    for ray in range(4):
        w = weights[ray].tolist()
        w = [w[0], *w, w[-1]]
        blurred = [(max(w[j - 1], w[j]) + max(w[j], w[j + 1])) / 2 for j in range(1, 10)]
        wanted = [spelled_out(edges[ray], blurred, (k + float(u[ray, k])) / 10, 0.01) for k in range(10)]
        assert_close(drawn[ray], torch.tensor(wanted), rtol=2e-6, atol=0)


def test_a_single_bin_gives_the_strata_of_pixelnerf(backend, generator):
    u = torch.rand(5, 16, generator=generator)
    t = importance_sample(row(2, 6).expand(5, -1), torch.ones(5, 1), 16, uniforms=u, stratified=True)
    assert_close(t, 2 + 4 * (torch.arange(16) + u) / 16, rtol=1e-6, atol=0)


def test_the_distribution_function_of_a_sample_is_its_uniform_number(backend, generator):
    """The hard case for 32 bits: weights over eight decades, so that in light bins t moves far for little u."""
    edges = torch.arange(65.0).expand(200, -1)
    weights = 10 ** (-8 * torch.rand(200, 64, generator=generator))
    u = torch.rand(200, 64, generator=generator)
    t = importance_sample(edges, weights, 64, uniforms=u, padding=0.0)
    assert_close(probability_below(t, edges, weights), u.sort(-1).values.double(), rtol=0, atol=2e-6)


def test_samples_ascend_and_stay_between_the_edges(backend, generator):
    edges, weights = histograms(generator)
    edges = edges + 1e4 * torch.rand(40, 1, generator=generator)
    u = torch.rand(40, 100, generator=generator)
    u[:, 0], u[:, 1], u[:, 2] = 0, 1 - 2**-24, 1
    for options in ({}, {"stratified": True}, {"uniforms": u}, {"uniforms": u, "stratified": True}):
        for padding in (0.0, 1e-5, 1.0):
            t = importance_sample(edges, weights, 100, padding=padding, **options)
            assert (t[:, 1:] >= t[:, :-1]).all()
            assert (t[:, 0] >= edges[:, 0]).all()
            assert (t[:, -1] <= edges[:, -1]).all()


def test_zero_and_one_are_the_ends_of_the_mass(backend):
    """Not of the bins: a rounded sum must not send u = 1 into an empty bin behind."""
    edges = torch.arange(7.0)[None]
    weights = row(0, 0.1, 0.7, 0, 0.3, 0)
    t = importance_sample(edges, weights, 2, padding=0.0)
    assert t.tolist() == [[1.0, 5.0]]


def test_no_rounding_leads_past_an_edge_or_short_of_it(backend, generator):
    """near + (far - near) misses far by a digit where the two differ much in size."""
    edges = torch.randn(2000, 2, generator=generator) * 10 ** (4 * torch.rand(2000, 2, generator=generator) - 2)
    edges = edges.sort(-1).values
    assert torch.equal(importance_sample(edges, torch.ones(2000, 1), 2), edges)
    short_of_one = torch.full((2000, 1), 1 - 2.0**-24)
    assert (importance_sample(edges, torch.ones(2000, 1), 1, uniforms=short_of_one)[:, 0] <= edges[:, 1]).all()


def test_each_stratum_receives_one_draw(backend, generator):
    edges, weights = histograms(generator)
    u = torch.rand(40, 25, generator=generator)
    t = importance_sample(edges, weights, 25, uniforms=u, stratified=True, padding=0.1)
    stratum = 25 * probability_below(t, edges, weights + 0.1)
    assert (stratum > torch.arange(25) - 1e-4).all()
    assert (stratum < torch.arange(25) + 1 + 1e-4).all()


def test_cutting_a_bin_in_halves_changes_nothing(backend, generator):
    edges, weights = histograms(generator)
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    finer = torch.cat([edges, middles], -1).sort(-1).values
    whole = importance_sample(edges, weights + 0.1, 33, padding=0.0)
    halves = importance_sample(finer, (weights + 0.1).repeat_interleave(2, -1) / 2, 33, padding=0.0)
    assert_close(whole, halves, rtol=1e-5, atol=0)


def test_scaling_the_weights_changes_nothing(backend, generator):
    edges, weights = histograms(generator)
    assert torch.equal(importance_sample(edges, weights, 33), importance_sample(edges, 8 * weights, 33, padding=8e-5))


def test_a_ray_without_mass_samples_all_its_bins_alike(backend):
    edges = row(0, 1, 3, 4, 8)
    nothing = importance_sample(edges, torch.zeros(1, 4), 9, padding=0.0)
    assert_close(nothing, importance_sample(edges, torch.ones(1, 4), 9, padding=0.0))


def test_invalid_weights_count_as_zero_and_nothing_is_nan(backend):
    nan, inf = float("nan"), float("inf")
    edges = torch.arange(5.0)[None]
    for invalid in (nan, -1.0, -inf, 0.0, 1e-45):
        t = importance_sample(edges, row(1, invalid, 2, invalid), 8, stratified=True, padding=0.0)
        assert torch.equal(t, importance_sample(edges, row(1, 0, 2, 0), 8, stratified=True, padding=0.0))
        assert torch.isfinite(importance_sample(edges, torch.full((1, 4), invalid), 8, padding=0.0, blur=True)).all()
    infinite = importance_sample(edges, row(1, inf, 1, 1), 8, stratified=True)
    assert ((infinite >= 1) & (infinite <= 2)).all()


def test_bins_without_width_are_harmless(backend):
    t = importance_sample(row(0, 1, 1, 1, 2), row(1, 2, 0, 1), 9, padding=0.0)
    assert_close(t[0], torch.tensor([0, 0.5, 1, 1, 1, 1, 1, 1.5, 2]))


def test_a_ray_does_not_depend_on_its_neighbours(backend, generator):
    edges, weights = histograms(generator)
    u = torch.rand(40, 16, generator=generator)
    for options in ({}, {"uniforms": u}, {"blur": True}):
        alone = {k: v[7:8] if k == "uniforms" else v for k, v in options.items()}
        together = importance_sample(edges, weights, 16, **options)
        assert torch.equal(together[7:8], importance_sample(edges[7:8], weights[7:8], 16, **alone))


def test_points_without_jitter_are_even_and_include_both_ends(backend, generator):
    near = 0.1 + torch.rand(50, generator=generator)
    far = near + 5 * torch.rand(50, generator=generator)
    t = stratified_samples(near, far, 33)
    assert_close(t[:, 1:] - t[:, :-1], ((far - near) / 32)[:, None].expand(-1, 32), rtol=0, atol=1e-6)
    for spacing in ("linear", "inverse"):
        t = stratified_samples(near, far, 33, spacing=spacing)
        assert torch.equal(t[:, 0], near)
        assert torch.equal(t[:, -1], far)
        assert (t[:, 1:] >= t[:, :-1]).all()


def test_inverse_spacing_is_even_in_disparity(backend):
    t = stratified_samples(torch.tensor([0.5]), torch.tensor([100.0]), 20, spacing="inverse")
    assert_close(1 / t[0], torch.linspace(2, 0.01, 20), rtol=1e-5, atol=0)


@pytest.mark.parametrize("spacing", ["linear", "inverse"])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 16])
def test_jitter_stays_between_the_midpoints_to_the_neighbours(backend, generator, spacing, n_samples):
    near, far = torch.tensor([2.0, 0.3]), torch.tensor([6.0, 50.0])
    even = stratified_samples(near, far, n_samples, spacing=spacing)
    u = torch.rand(2, n_samples, generator=generator)
    drawn = stratified_samples(near, far, n_samples, uniforms=u, spacing=spacing)
    for ray in range(2):
        points = even[ray].tolist()
        for k, t in enumerate(points):
            low = (points[max(k - 1, 0)] + t) / 2
            high = (points[min(k + 1, n_samples - 1)] + t) / 2
            assert drawn[ray, k].item() == pytest.approx(low + (high - low) * u[ray, k].item(), rel=1e-6)


def test_no_gradient_flows_through_the_choice_of_samples(backend, generator):
    edges, weights = (x.requires_grad_() for x in histograms(generator))
    near, far = torch.ones(3, requires_grad=True), torch.full((3,), 2.0, requires_grad=True)
    assert not importance_sample(edges, weights, 8).requires_grad
    u = torch.rand(3, 8, requires_grad=True)
    for uniforms in (None, u):
        assert not stratified_samples(near, far, 8, uniforms=uniforms).requires_grad


def test_says_what_does_not_fit(cpu):
    edges, weights, near = torch.zeros(2, 5), torch.zeros(2, 4), torch.ones(2)
    with pytest.raises(ValueError, match=r"bin_edges has to have shape \[n_rays, 5\] with n_rays=2, got \[2, 4\]"):
        importance_sample(weights, weights, 8)
    with pytest.raises(ValueError, match=r"uniforms has to have shape \[n_rays, 8\]"):
        importance_sample(edges, weights, 8, uniforms=torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"padding=-1"):
        importance_sample(edges, weights, 8, padding=-1.0)
    with pytest.raises(ValueError, match=r"got 0 bins"):
        importance_sample(torch.zeros(2, 1), torch.zeros(2, 0), 8)
    with pytest.raises(ValueError, match=r"linear or inverse.*spacing='log'"):
        stratified_samples(near, near, 8, spacing="log")
    with pytest.raises(ValueError, match=r"uniforms has to have shape \[n_rays, 8\]"):
        stratified_samples(near, near, 8, uniforms=torch.zeros(2, 9))
