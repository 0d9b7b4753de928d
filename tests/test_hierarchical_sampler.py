"""NeRF's samples: where they lie, what each stands for, and what the second half of them is good for."""

import torch
from torch.testing import assert_close

from taichi_nerf.ops import compositing
from taichi_nerf.samplers.hierarchical_sampler import ENDLESS, coarse_points, fine_points, from_edges, from_points


def weights_of(t, t_end, density):
    samples = from_points(t, t_end)
    color = torch.zeros(t.numel(), 1)
    return compositing.composite_rays(density(t).reshape(-1), color, *samples[:2], samples.spans).weights.view_as(t)


def test_fine_points_keep_the_coarse_ones_and_go_where_the_weight_is(cpu, generator):
    t = coarse_points(torch.zeros(50), torch.ones(50), 33, uniforms=torch.rand(50, 33, generator=generator))
    weights = torch.zeros(50, 33)
    weights[:, 20] = 1
    both = fine_points(t, weights, 16, uniforms=torch.rand(50, 16, generator=generator))
    assert both.shape == (50, 49)
    assert (both.diff() >= 0).all()
    assert all(set(some.tolist()) <= set(row.tolist()) for some, row in zip(t, both, strict=True))
    within = (both >= (t[:, 19:20] + t[:, 20:21]) / 2 - 1e-6) & (both <= (t[:, 20:21] + t[:, 21:22]) / 2 + 1e-6)
    assert (within.sum(-1) >= 16).all()


def test_each_point_stands_for_what_lies_before_the_next(cpu):
    t = torch.tensor([[1.0, 2, 4], [0, 1, 5]])
    endless, ended = from_points(t, None), from_points(t, torch.tensor([6.0, 3]))
    assert_close((endless.t_ends - endless.t_starts).view(2, 3), torch.tensor([[1, 2, ENDLESS], [1, 4, ENDLESS]]))
    assert_close((ended.t_ends - ended.t_starts).view(2, 3), torch.tensor([[1.0, 2, 2], [1, 4, 0]]))
    assert endless.spans.tolist() == [[0, 3], [3, 3]]
    assert endless.ray_indices.tolist() == [0, 0, 0, 1, 1, 1]
    edges = from_edges(torch.tensor([[0.0, 1, 3]]))
    assert (edges.t_starts.tolist(), edges.t_ends.tolist(), edges.spans.tolist()) == ([0, 1], [1, 3], [[0, 2]])


def test_all_draws_together_follow_the_weights(cpu, generator):
    """χ² of a hundred thousand draws, in twenty bins, at four sigma."""
    t = torch.linspace(0, 1, 23).expand(2000, -1).contiguous()
    weights = torch.rand(1, 23, generator=generator).expand(2000, -1).contiguous() + 0.05
    both = fine_points(t, weights, 50, uniforms=torch.rand(2000, 50, generator=generator))
    own = torch.isin(both, t[0])
    edges = (t[0, 1:] + t[0, :-1]) / 2
    counts = torch.histogram(both[~own], edges)[0]
    expected = weights[0, 1:-1] / weights[0, 1:-1].sum() * counts.sum()
    n_bins = len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < n_bins + 4 * (2 * n_bins) ** 0.5


def test_on_a_thin_shell_half_the_samples_placed_by_the_other_half_beat_all_of_them_even(cpu, generator):
    """Where rays meet a thin opaque shell, at 64 samples each; the truth has 20,000. Measured: errors of 0.005 and 0.021."""
    n = 400
    offset = torch.rand(n, 1, generator=generator) * 0.4

    def density(t):
        radius = (offset**2 + (t - 2) ** 2).sqrt()
        return 300 * torch.exp(-(((radius - 0.5) / 0.03) ** 2))

    def seen(t):
        weights = weights_of(t, far, density)
        middles = torch.cat([t[:, :-1] + t.diff() / 2, t[:, -1:]], -1)
        return (weights * middles).sum(-1) / weights.sum(-1).clamp_min(1e-9)

    near, far = torch.full((n,), 1.0), torch.full((n,), 3.0)
    truth = seen(coarse_points(near, far, 20_000))
    draw = lambda m: torch.rand(n, m, generator=generator)  # noqa: E731
    even = coarse_points(near, far, 64, uniforms=draw(64))
    coarse = coarse_points(near, far, 32, uniforms=draw(32))
    fine = fine_points(coarse, weights_of(coarse, far, density), 32, uniforms=draw(32))
    error = {name: (seen(t) - truth).abs().mean().item() for name, t in (("even", even), ("fine", fine))}
    assert error["fine"] < error["even"] / 2, error
