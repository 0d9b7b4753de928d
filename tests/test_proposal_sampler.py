"""Proposals: the loss against brute force, spacing, and samples that gather where a density is."""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf import losses
from taichi_nerf.fields.density_field import DensityField, DensitySettings
from taichi_nerf.ops import compositing
from taichi_nerf.rays import Rays
from taichi_nerf.reference import hash_grid
from taichi_nerf.samplers.hierarchical_sampler import from_edges
from taichi_nerf.samplers.proposal_sampler import ProposalSettings, annealed, at_middles, distances, propose, weights_of


def histogram(n_rays, n, generator):
    edges = torch.cat([torch.zeros(n_rays, 1), torch.rand(n_rays, n - 1, generator=generator), torch.ones(n_rays, 1)], -1)
    weights = torch.rand(n_rays, n, generator=generator)
    return edges.sort(-1).values, weights / weights.sum(-1, keepdim=True)


def bound_by_hand(edges, proposed_edges, proposed_weights):
    """Of each interval: the weights of all that overlap with it, one by one."""
    found = torch.zeros(len(edges), edges.shape[1] - 1)
    for ray in range(len(edges)):
        for i in range(edges.shape[1] - 1):
            for k in range(proposed_edges.shape[1] - 1):
                if proposed_edges[ray, k] < edges[ray, i + 1] and proposed_edges[ray, k + 1] > edges[ray, i]:
                    found[ray, i] += proposed_weights[ray, k]
    return found


def test_the_loss_is_what_exceeds_the_bound(generator):
    edges, weights = histogram(6, 9, generator)
    proposed_edges, proposed = histogram(6, 5, generator)
    bound = bound_by_hand(edges, proposed_edges, 0.2 * proposed)
    expected = ((weights - bound).clamp_min(0) ** 2 / (weights + 1e-7)).sum(-1).mean()
    assert expected > 0.01
    assert_close(losses.interlevel(edges, weights, proposed_edges, 0.2 * proposed), expected)


def test_a_coarser_histogram_of_the_same_mass_costs_nothing(generator):
    """Any histogram bounds itself, and its bins may be merged."""
    edges, weights = histogram(4, 8, generator)
    assert losses.interlevel(edges, weights, edges, weights) == pytest.approx(0, abs=1e-10)
    merged = weights.view(4, 4, 2).sum(-1)
    assert losses.interlevel(edges, weights, edges[:, ::2], merged) == pytest.approx(0, abs=1e-10)
    assert losses.interlevel(edges[:, ::2], merged, edges, 0.5 * weights) > 0


def test_only_proposals_learn(generator):
    edges, weights = (x.requires_grad_() for x in histogram(4, 8, generator))
    proposed_edges, proposed = (x.requires_grad_() for x in histogram(4, 5, generator))
    losses.interlevel(edges, weights, proposed_edges, 0.1 * proposed).backward()
    assert edges.grad is weights.grad is proposed_edges.grad is None
    assert proposed.grad.abs().max() > 0


def test_annealing_goes_from_even_to_the_weights_themselves():
    assert [annealed(p) for p in (-1, 0, 1, 2)] == [0, 0, 1, 1]
    assert annealed(0.1) == pytest.approx(1 / 1.9)


def test_s_is_even_in_distance_in_disparity_or_in_one_and_then_the_other():
    s, near, far = torch.tensor([[0.0, 0.5, 1]]), torch.tensor([2.0]), torch.tensor([6.0])
    assert_close(distances(s, near, far, math.inf), torch.tensor([[2.0, 4, 6]]))
    assert_close(distances(s, near, far, 0.0), torch.tensor([[2.0, 3, 6]]))
    assert_close(distances(s, near, far, 100.0), torch.tensor([[2.0, 4, 6]]))
    # g(2) = 1/2, g(4) = 1, g(16) = 7/4: thirds lie at 11/12 and 4/3
    s, far = torch.tensor([[0.0, 0.4, 2 / 3, 1]]), torch.tensor([16.0])
    assert_close(distances(s, near, far, 4.0), torch.tensor([[2.0, 4, 6, 16]]))


@pytest.mark.parametrize("even_until", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("far", [6.0, 1e4, 1e6, 1e10])
def test_a_ray_ends_where_it_is_said_to_however_far_that_is(far, even_until):
    s, near = torch.linspace(0, 1, 101)[None], torch.tensor([0.5])
    t = distances(s, near, torch.tensor([far]), even_until)
    assert_close(t[:, [0, -1]], torch.tensor([[0.5, far]]))
    assert (t.diff() > 0).all()


@pytest.mark.parametrize("even_until", [math.inf, 0.0, 2.0])
def test_samples_gather_where_a_proposal_has_its_density(cpu, generator, even_until):
    """A wall at z = 3, three tenths thick: nearly all that the field sees is there."""
    rays = Rays(torch.zeros(20, 3), torch.tensor([[0.0, 0, 1]]).expand(20, 3).contiguous(), torch.zeros(20))
    wall = at_middles(lambda at: 30 * ((at[:, 2] > 3) & (at[:, 2] < 3.3)).float())
    near, far = torch.full((20,), 1.0), torch.full((20,), 9.0)
    settings = ProposalSettings((64, 32), 16, padding=1e-4)
    found = propose([wall, wall], settings, rays, near, far, even_until=even_until, generator=generator)
    middles = (found.samples.t_starts + found.samples.t_ends) / 2
    assert ((middles > 2.7) & (middles < 3.5)).float().mean() > 0.9
    assert [tuple(proposal.weights.shape) for proposal in found.proposals] == [(20, 64), (20, 32)]
    assert (found.edges.diff() >= 0).all()
    early = propose([wall, wall], settings, rays, near, far, even_until=even_until, generator=generator, progress=0.0)
    assert_close(early.edges.diff().mean(0), torch.full((16,), 1 / 16), atol=0.03, rtol=0)


@pytest.mark.parametrize("endless", [False, True])
def test_weights_are_those_of_compositing(cpu, generator, endless):
    edges = torch.rand(30, 9, generator=generator).sort(-1).values
    samples = from_edges(edges)
    density = 40 * torch.rand(30 * 8, generator=generator) ** 4
    found = weights_of(density, samples, endless)
    lasting = samples.t_ends.view(30, 8).clone()
    lasting[:, -1] += 1e10 * endless
    color = torch.zeros(len(density), 1)
    expected = compositing.composite_rays(density, color, samples.t_starts, lasting.view(-1), samples.spans)
    assert_close(found, expected.weights, atol=1e-6, rtol=1e-5)
    if endless:
        assert_close(found.view(30, 8).sum(-1), torch.ones(30))


def half_empty(n_rays):
    """Rays along z, every second of which meets a wall, and the density."""
    origins = torch.zeros(n_rays, 3)
    origins[1::2, 0] = 5.0
    rays = Rays(origins, torch.tensor([[0.0, 0, 1]]).expand(n_rays, 3).contiguous(), torch.zeros(n_rays))
    return rays, at_middles(lambda at: 30.0 * ((at[:, 2] > 3) & (at[:, 2] < 3.3) & (at[:, 0] < 1)).float())


def test_rays_on_which_nothing_is_proposed_are_left_out_and_others_stay_as_they_are(cpu):
    rays, wall = half_empty(40)
    near, far = torch.full((40,), 1.0), torch.full((40,), 9.0)
    whole = propose([wall], ProposalSettings((64,), 16), rays, near, far)
    some = propose([wall], ProposalSettings((64,), 16), rays, near, far, least_opacity=0.01)
    assert whole.which is None
    assert some.which.tolist() == list(range(0, 40, 2))
    assert_close(some.edges, whole.edges[::2])
    assert_close(some.samples.t_starts.view(20, 16), whole.samples.t_starts.view(40, 16)[::2])
    assert_close(some.proposals[0].weights, whole.proposals[0].weights[::2])


def test_where_nothing_is_left_there_are_no_samples(cpu, generator):
    rays, wall = half_empty(4)
    near, far = torch.full((4,), 5.0), torch.full((4,), 9.0)  # behind the wall
    found = propose([wall], ProposalSettings((64,), 16), rays, near, far, least_opacity=0.01)
    assert len(found.which) == len(found.samples.t_starts) == len(found.samples.spans) == 0
    none = Rays(*(part[:0] for part in rays))
    assert propose([wall, wall], ProposalSettings(), none, near[:0], far[:0], generator=generator).edges.shape == (0, 33)


def test_some_of_the_empty_rays_are_looked_at_in_training(cpu, generator):
    """A tenth of 1000: within four standard deviations."""
    rays, wall = half_empty(2000)
    near, far = torch.full((2000,), 1.0), torch.full((2000,), 9.0)
    settings = ProposalSettings((64,), 4)
    found = propose([wall], settings, rays, near, far, generator=generator, least_opacity=0.01, chance=0.1)
    assert (found.which % 2 == 0).sum() == 1000
    assert abs((found.which % 2 == 1).sum() - 100) < 38


def test_without_a_network_the_features_of_all_levels_add_up_to_the_logarithm_of_density(cpu, generator):
    settings = DensitySettings(n_levels=3, n_features=1, log2_table_size=10, base_resolution=4, max_resolution=16, n_hidden=0)
    field = DensityField(settings, torch.tensor([[-1.0, -1, -1], [1, 1, 1]]), "none", generator)
    field.table.data.normal_(generator=generator)
    positions = 2 * torch.rand(50, 3, generator=generator) - 1
    features = hash_grid.hash_grid((positions + 1) / 2, field.table, **field.layout)
    assert_close(field(positions), features.sum(-1).exp(), atol=1e-5, rtol=1e-5)
