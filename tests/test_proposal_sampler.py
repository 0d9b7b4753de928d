"""Proposals: the loss against brute force, spacing, and samples that gather where a density is."""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf import losses
from taichi_nerf.rays import Rays
from taichi_nerf.samplers.proposal_sampler import ProposalSettings, annealed, at_middles, distances, propose


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
