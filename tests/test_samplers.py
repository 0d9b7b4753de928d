"""The occupancy grid sampler against densities whose place is known."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from taichi_nerf.fields.space import unit_positions
from taichi_nerf.ops.ray_box import intersect_boxes
from taichi_nerf.ops.ray_marching import march_rays
from taichi_nerf.rays import Rays
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler, OccupancySettings

R = 32
BOX = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
CENTER, RADIUS = torch.tensor([0.2, -0.1, 0.05]), 0.4


def ball(positions):
    return 100.0 * ((positions - CENTER).norm(dim=-1) < RADIUS).float()


def sampler(contraction="none", near=0.05, far=10.0, **settings):
    made = OccupancySettings(**{"resolution": R, "step_size": 0.02, **settings})
    return OccupancyGridSampler(made, BOX, contraction, near, far)


def grid(found):
    """Occupied cells [cascade, z, y, x]."""
    bits = (found.bits[:, None] >> torch.arange(32)) & 1
    return bits.view(-1, R, R, R).bool()


def random_rays(n, generator, distance=3.0):
    origins = distance * normalize(torch.randn(n, 3, generator=generator), dim=-1)
    directions = normalize(torch.randn(n, 3, generator=generator) * 0.4 - origins, dim=-1)
    return Rays(origins, directions, torch.zeros(n))


def middles(rays, samples):
    t = (samples.t_starts + samples.t_ends) / 2
    of = samples.ray_indices.long()
    return t, rays.origins[of] + t[:, None] * rays.directions[of]


def test_occupied_cells_are_those_that_the_ball_touches(backend):
    """Within a cell: one that is wholly inside always, one that is wholly outside never."""
    found = sampler()
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        found.update(ball, 1.0, generator)
    axis = (torch.arange(R) + 0.5) * 2 / R - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    distances = (torch.stack([x, y, z], -1) - CENTER).norm(dim=-1)
    reach = math.sqrt(3) / R  # half a cell's diagonal
    occupied = grid(found)[0]
    assert occupied[distances < RADIUS - reach].all()
    assert not occupied[distances > RADIUS + reach].any()


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_the_ball_alone_gives_samples_and_all_of_the_ball_does(backend, contraction):
    generator = torch.Generator().manual_seed(1)
    found = sampler(contraction)
    for _ in range(8):
        found.update(ball, 1.0, generator)
    rays = random_rays(300, generator)
    t, positions = middles(rays, found(rays))
    cell = 2 / R * (1 if contraction == "none" else 2)
    distances = (positions - CENTER).norm(dim=-1)
    assert len(t) > 1000
    assert distances.max() < RADIUS + math.sqrt(3) * cell
    nearest = ((CENTER - rays.origins) * rays.directions).sum(-1)
    missing = (CENTER - rays.origins).square().sum(-1) - nearest**2
    inner = (RADIUS - math.sqrt(3) * cell) ** 2 - missing  # of the core, which no cell at the border decides
    chords = 2 * inner.clamp_min(0).sqrt()
    of = found(rays).ray_indices.long()
    in_core = (t - nearest[of]).abs() < chords[of] / 2
    lengths = torch.zeros(300).index_add(0, of[in_core], torch.full_like(t[in_core], 0.02))
    assert ((lengths - chords).abs() <= 0.0201).all()


def looking_down(n=1):
    """Cameras above the scene that see a narrow column around the z axis."""
    poses = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 3]]).expand(n, 3, 4).contiguous()
    return poses, torch.tensor([[100.0, 100, 8, 8]]).expand(n, 4).contiguous(), torch.full((n, 2), 16, dtype=torch.int32)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_cells_that_no_camera_sees_never_give_samples(backend, share):
    generator = torch.Generator().manual_seed(2)
    found = sampler()
    found.leave_out_unseen(*looking_down())
    for _ in range(5):
        found.update(lambda at: torch.full_like(at[:, 0], 100.0), share, generator)
        rays = random_rays(200, generator)
        _, positions = middles(rays, found(rays))
        slope = 0.08 + 0.5 * math.sqrt(3) * 2 / R  # of the column, and a cell's reach
        outside = positions[:, :2].abs().amax(-1) - 0.08 * (3 - positions[:, 2]) > 2 * slope
        assert not outside.any()
        assert len(positions) > 0


def test_a_grid_in_which_nothing_was_found_starts_over(backend):
    found = sampler()
    generator = torch.Generator().manual_seed(3)
    found.leave_out_unseen(*looking_down())
    found.update(lambda at: torch.zeros_like(at[:, 0]), 1.0, generator)
    assert torch.equal(grid(found).flatten(), found.thickness >= 0)


@pytest.mark.parametrize("settings", [{}, {"cone_angle": 0.05, "max_step": 0.2}])
def test_stretching_lengthens_every_step(backend, settings):
    found, generator = sampler(max_samples_per_ray=4096, **settings), torch.Generator().manual_seed(4)
    rays = random_rays(50, generator)
    for stretch in (1.0, 3.0):
        found.stretch = stretch
        samples = found(rays, torch.rand(50, generator=generator))
        lengths, t = samples.t_ends - samples.t_starts, samples.t_starts
        cone = min(stretch * settings.get("cone_angle", 0.0), 0.5)
        wanted = (cone * t).clamp(stretch * 0.02, max(settings.get("max_step", 1e10), stretch * 0.02))
        assert ((lengths / wanted - 1).abs() < 0.1).all()


def test_thickness_is_that_of_a_stretched_step(backend):
    found, generator = sampler(), torch.Generator().manual_seed(5)
    found.stretch = 2.0
    found.update(lambda at: torch.full_like(at[:, 0], 7.0), 1.0, generator)
    assert_close(found.thickness, torch.full_like(found.thickness, 7.0 * 2 * 0.02))


@pytest.mark.parametrize("n_cascades", [1, 3])
@pytest.mark.parametrize("limits", [(0.05, 10.0), (2.5, 3.1)])
def test_samples_lie_between_near_and_far_in_the_box(backend, limits, n_cascades):
    near, far = limits
    found, generator = sampler("none", near, far, n_cascades=n_cascades), torch.Generator().manual_seed(6)
    rays = random_rays(200, generator)
    t, positions = middles(rays, found(rays, torch.rand(200, generator=generator)))
    assert len(t) > 1000
    assert t.min() >= near - 1e-5
    assert t.max() <= far + 1e-5
    assert positions.abs().max() <= 2 ** (n_cascades - 1) + 1e-5


def test_samples_of_unbounded_scenes_go_on_to_the_far_end(backend):
    found = sampler("sphere", 0.5, 40.0, cone_angle=0.05, max_step=5.0)
    t, _ = middles(*(lambda rays: (rays, found(rays)))(random_rays(20, torch.Generator().manual_seed(7))))
    assert 0.5 <= t.min() < 0.6
    assert 37 < t.max() < 40


def test_jitter_shifts_the_lattice_by_its_share_of_a_step(backend):
    found = sampler()
    ray = Rays(torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), torch.zeros(1))
    for jitter in (0.0, 0.25, 0.9):
        starts = found(ray, torch.tensor([jitter])).t_starts / 0.02 - jitter
        assert_close(starts, starts.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("share", [0.25, 0.125, 0.3])
def test_a_share_of_cells_is_visited_evenly(cpu, share):
    """No cell twice at once, and each as often as any: binomial counts over 200 updates."""
    found, generator = sampler(), torch.Generator().manual_seed(8)
    visits = torch.zeros(R**3)
    n_updates = 200

    def look(positions):
        at = ((positions + 1) / 2 * R).long().clamp(0, R - 1)
        cells = at[:, 0] + R * (at[:, 1] + R * at[:, 2])
        assert cells.unique().numel() >= len(cells) * (0.999 if 1 / share == int(1 / share) else 0.8)  # rounding at faces
        visits.index_add_(0, cells, torch.ones(len(cells)))
        return torch.zeros(len(positions))

    for _ in range(n_updates):
        found.update(look, share, generator)
    assert visits.sum() == n_updates * int(share * R**3)
    mean, deviation = n_updates * share, math.sqrt(n_updates * share * (1 - share))
    assert (visits - mean).abs().max() < 6.5 * deviation
    for part in visits.view(32, -1):  # no region is preferred
        assert abs(part.mean() - mean) < 6 * deviation / math.sqrt(len(part)) + 1e-3


def test_of_every_run_of_neighbours_one_is_visited(cpu):
    """In 32 bits a place along all cells has no digits left to tell neighbours apart: from 2^25 on half are never chosen."""
    found = sampler(resolution=64)
    found.thickness.fill_(8)
    found.update(lambda at: torch.zeros(len(at)), 0.25, torch.Generator().manual_seed(0))
    assert ((found.thickness < 8).view(-1, 4).sum(-1) == 1).all()


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_every_cell_is_looked_at_inside_itself(backend, contraction):
    found = sampler(contraction)
    seen = []
    found.update(lambda at: seen.append(at) or torch.zeros_like(at[:, 0]), 1.0, torch.Generator().manual_seed(9))
    inside = unit_positions(torch.cat(seen), BOX, contraction)
    center = 2 * (inside - 0.5) if contraction == "sphere" else torch.zeros_like(inside)
    reachable = center.norm(dim=-1) < 0.99  # the cube's corners lie beyond infinity
    cells = torch.arange(R**3)
    wanted = torch.stack([cells % R, cells // R % R, cells // R**2], -1)
    off = inside * R - wanted
    assert off[reachable].min() > -1e-2
    assert off[reachable].max() < 1 + 1e-2
    assert reachable.float().mean() > 0.5


def test_memory_decays_until_something_is_seen_again(cpu):
    found, generator = sampler(decay=0.5), torch.Generator().manual_seed(10)
    seen = []
    for density in (8.0, 0.0, 0.0, 3.0):
        found.update(lambda at, density=density: torch.full_like(at[:, 0], density), 1.0, generator)
        seen.append(found.thickness[0].item() / 0.02)
    assert seen == pytest.approx([8, 4, 2, 3])
    assert np.ptp(found.thickness.numpy()) == 0


def test_the_least_density_of_a_cell_rises_slowly_and_falls_at_once(cpu):
    march, generator = sampler(rise=2.0), torch.Generator().manual_seed(0)
    known = []
    for density in (100.0, 100.0, 100.0, 1.25, 100.0, 0.0):
        march.update(lambda at, density=density: torch.full_like(at[:, 0], density), 1.0, generator)
        known.append(march.least_density.unique().tolist())
    assert known == [[0.5], [1.5], [3.5], [1.25], [3.0], [0.0]]


def test_a_density_that_is_no_number_is_forgotten(cpu):
    march, generator = sampler(rise=2.0), torch.Generator().manual_seed(0)
    for density in (100.0, math.nan, 100.0):
        march.update(lambda at, density=density: torch.full_like(at[:, 0], density), 1.0, generator)
    assert march.least_density.unique().tolist() == [0.5]


@pytest.mark.parametrize("n_cascades", [1, 2])
def test_rays_are_cut_to_what_is_occupied_without_losing_a_sample(backend, n_cascades, generator):
    """Random cells in a corner of the grid, all of the box marched by hand; and a grid that was loaded, or is empty."""
    found = sampler(n_cascades=n_cascades)
    occupied = torch.rand(n_cascades, R, R, R, generator=generator) < 0.05
    occupied[:, R // 2 :], occupied[:, :, : R // 3] = False, False
    found.thickness.copy_(occupied.flatten().float())
    found.pack()
    rays = random_rays(3000, generator)
    half = 2.0 ** (n_cascades - 1)
    t_near, t_far = intersect_boxes(rays.origins, rays.directions, half * BOX, near=0.05, far=10.0)
    wanted = march_rays(*rays[:2], t_near, t_far, found.bits, BOX, step_size=0.02, resolution=R, n_cascades=n_cascades)
    loaded = sampler(n_cascades=n_cascades)
    loaded.load_state_dict(found.state_dict())
    for made in (found, loaded):
        samples = made(rays)
        assert torch.equal(samples.spans, wanted.spans)
        assert torch.equal(samples.t_starts, wanted.t_starts)
    assert len(wanted.t_starts) > 1000
    found.thickness.zero_()
    found.bits.zero_()
    found.survey()
    assert len(found(rays).t_starts) == 0


def test_a_sampler_is_copied_saved_and_moved_with_all_it_knows(backend, generator):
    found, rays = sampler(), random_rays(50, generator)
    for _ in range(4):
        found.update(ball, 1.0, generator)
    wanted = found(rays)  # from here on it also knows how far it is empty around cells
    saved = io.BytesIO()
    torch.save(found, saved)
    saved.seek(0)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), torch.load(saved, weights_only=False)):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(other(rays), wanted, strict=True))
        other.load_state_dict(sampler().state_dict())  # a new grid: everything is looked at
        assert len(other(rays).t_starts) > 2 * len(wanted.t_starts)
    assert copy.deepcopy(found).to("meta")._spread.device.type == "meta"
