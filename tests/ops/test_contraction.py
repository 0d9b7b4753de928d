"""Contracted Gaussians against sampling, against uncontracted ones, and at infinity.

Measured on cpu and lavapipe against the reference in float32: forward 4e-7, gradients 1e-6.
"""

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.contraction import contract_gaussians, icosahedron
from taichi_nerf.ops.integrated_encoding import cast_frustums
from taichi_nerf.reference.contraction import contract

AXES = torch.eye(3)


def unit(n, generator):
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)


def test_small_gaussians_are_carried_as_their_samples_are(cpu, generator):
    """Monte Carlo: 100,000 draws of each, mapped one by one."""
    n, draws = 8, 100_000
    means = torch.linspace(0.3, 6, n)[:, None] * unit(n, generator)
    directions, spreads = unit(n, generator), torch.tensor([[4e-4, 1e-4]]).expand(n, 2).contiguous()
    basis = icosahedron(2).float()
    found_means, found_variances = contract_gaussians(means, directions, spreads, basis)
    noise = torch.randn(draws, n, 3, generator=generator)
    along = (noise * directions).sum(-1, keepdim=True) * directions
    at = means + spreads[0, 0].sqrt() * along + spreads[0, 1].sqrt() * (noise - along)
    projected = contract(at) @ basis.T
    assert_close(projected.mean(0), found_means, atol=1e-3, rtol=0)
    # 1 % is two and a half deviations of the estimate; curvature adds a little near the sphere
    assert (projected.var(0) / found_variances - 1).abs().max() < 0.03


def test_within_the_ball_nothing_changes(backend, generator):
    """Along the axes, the op gives the diagonals that mip-NeRF's frustums have."""
    n = 50
    origins, directions = 0.1 * unit(n, generator), unit(n, generator)
    radii, t_starts = 0.01 + 0.05 * torch.rand(n, generator=generator), 0.7 * torch.rand(n, generator=generator)
    first = torch.arange(n, dtype=torch.int32)
    spans = torch.stack([first, torch.ones_like(first)], -1)
    intervals = [x.to(backend.torch_device) for x in (radii, t_starts, t_starts + 0.05, first, spans)]
    origins, directions = origins.to(backend.torch_device), directions.to(backend.torch_device)
    means, variances = cast_frustums(origins, directions, *intervals)
    ahead = torch.tensor([[1.0, 0, 0]], device=means.device).expand(n, 3).contiguous()
    spreads = cast_frustums(torch.zeros_like(origins), ahead, *intervals)[1][:, :2]
    got = contract_gaussians(means, directions, spreads, AXES.to(means.device))
    assert_close(got[0], means, atol=1e-6, rtol=0)
    assert_close(got[1], variances, atol=1e-7, rtol=1e-4)


def test_all_of_space_lies_within_radius_two(cpu, generator):
    directions = unit(20, generator)
    means, variances = contract_gaussians(1e6 * directions, directions, torch.full((20, 2), 1e4), AXES)
    assert_close(means.norm(dim=-1), torch.full((20,), 2.0), atol=1e-5, rtol=0)
    assert variances.max() < 1e-6


def test_along_the_ray_from_the_middle_lengths_shrink_by_r_squared_and_across_by_less(cpu):
    """At r = 4: 1/16 along, (2 - 1/4) / 4 across; variances by the squares."""
    ahead = torch.tensor([[1.0, 0, 0]])
    means, variances = contract_gaussians(4 * ahead, ahead, torch.tensor([[1.0, 1.0]]), AXES)
    assert_close(means, torch.tensor([[1.75, 0, 0]]))
    assert_close(variances, torch.tensor([[1 / 256, (1.75 / 4) ** 2, (1.75 / 4) ** 2]]))


def test_it_is_smooth_at_the_sphere(cpu):
    inside, outside = (contract_gaussians(r * AXES, AXES.roll(1, 0), torch.tensor([[1.0, 0.5]] * 3), AXES)
                       for r in (1 - 1e-6, 1 + 1e-6))  # fmt: skip
    for one, other in zip(inside, outside, strict=True):
        assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_parts", "n"), [(1, 6), (2, 21)])
def test_directions_look_everywhere_alike(n_parts, n):
    """No two are opposite, and their squares add up to the unit matrix, n / 3 times."""
    basis = icosahedron(n_parts)
    assert basis.shape == (n, 3)
    assert_close(basis.norm(dim=-1), torch.ones(n, dtype=torch.float64))
    assert (basis @ basis.T - torch.eye(n)).abs().max() < 0.9
    assert_close(basis.T @ basis, n / 3 * torch.eye(3, dtype=torch.float64))


def test_other_numbers_of_parts_are_refused():
    with pytest.raises(ValueError, match="1 or 2 parts"):
        icosahedron(3)
