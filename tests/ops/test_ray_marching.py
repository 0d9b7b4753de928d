"""Ray marching against the lattice's closed forms, brute force over every index, and rays made to trip it up.

Measured against the reference: integers equal; t equal to the bit with constant steps, and within 2e-7 (cpu) or 1e-6
(lavapipe) of the largest with growing ones. Of 18,000 random rays, on cpu and lavapipe alike, none differs.
"""

import math

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from taichi_nerf import reference
from taichi_nerf.kernels import ray_marching as kernels
from taichi_nerf.launch import watching
from taichi_nerf.ops.ray_marching import ROOM, march_rays, sample_positions, spread_bits
from taichi_nerf.runtime import DeviceArray

R = 32
BOX = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def pack(cells):
    """Bits of a mask [n_cascades, z, y, x]."""
    return (cells.flatten().view(-1, 32).long() << torch.arange(32)).sum(-1).to(torch.int32)


def full(n_cascades=1, resolution=R):
    return torch.full((n_cascades * resolution**3 // 32,), -1, dtype=torch.int32)


def march(origins, directions, occupancy, t_near=0.0, t_far=math.inf, jitter=None, step_size=0.01, **options):
    """March through a box of [-1, 1]^3; everything as lists."""
    origins, directions = torch.as_tensor(origins), torch.as_tensor(directions)
    t_near, t_far = (torch.as_tensor(t).float().expand(len(origins)) for t in (t_near, t_far))
    options = {"resolution": R, "aabb": BOX, **options}
    return march_rays(origins, directions, t_near, t_far, occupancy, jitter=jitter, step_size=step_size, **options)


def random_rays(n, generator, spread=1.0):
    origins = 2.5 * normalize(torch.randn(n, 3, generator=generator), dim=-1)
    targets = spread * (2 * torch.rand(n, 3, generator=generator) - 1)
    return origins, normalize(targets - origins, dim=-1), torch.rand(n, generator=generator)


def middles(samples):
    return (samples.t_starts + samples.t_ends) / 2


def test_a_full_grid_gives_every_interval_of_the_lattice(backend):
    samples = march([[-3.0, 0.1, 0.2]], [[1.0, 0, 0]], full(), jitter=torch.tensor([0.25]), step_size=0.125)
    expected = 0.125 * (torch.arange(16, 32) + 0.25)  # the first midpoint in the box is 16.75 steps away
    assert_close(samples.t_starts, expected - 0.0, rtol=0, atol=0)
    assert_close(samples.t_ends, expected + 0.125, rtol=0, atol=0)
    assert samples.spans.tolist() == [[0, 16]]


def test_an_empty_grid_gives_nothing(backend, generator):
    origins, directions, jitter = random_rays(50, generator)
    samples = march(origins, directions, 0 * full(), jitter=jitter)
    assert len(samples.t_starts) == 0
    assert torch.equal(samples.spans, torch.zeros(50, 2, dtype=torch.int32))


def test_lengths_in_a_full_box_add_up_to_the_chords(backend, generator):
    origins, directions, jitter = random_rays(400, generator, spread=1.5)
    step = 0.011
    samples = march(origins, directions, full(), jitter=jitter, step_size=step)
    near, far = (-origins / directions - 1 / directions.abs()).amax(-1), (-origins / directions + 1 / directions.abs()).amin(-1)
    chords = (far - near).clamp_min(0)
    lengths = torch.zeros(400).index_add(0, samples.ray_indices, samples.t_ends - samples.t_starts)
    assert (lengths - chords).abs().max() <= 1.001 * step
    assert_close(lengths.mean(), chords.mean(), atol=3 * step / math.sqrt(12 * 400) * 2, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_cascades": 4},
        {"n_cascades": 3, "cone_angle": 0.02, "max_step": 0.06},
        {"contraction": "sphere", "t_far": 30.0},
        {"contraction": "sphere", "cone_angle": 0.03, "t_far": 1e5},
        {"step_size": 0.3, "n_cascades": 2},
    ],
    ids=str,
)
def test_skipping_gives_what_trying_every_index_gives(backend, generator, options):
    """Random rays, close calls included: one in a thousand may differ by rounding."""
    options = {"step_size": 0.007, **options}
    n_cascades = options.get("n_cascades", 1)
    blocks = (torch.rand(n_cascades, R // 4, R // 4, R // 4, generator=generator) < 0.1).float()
    cells = torch.nn.functional.interpolate(blocks[None], scale_factor=4)[0] > 0
    cells &= torch.rand(cells.shape, generator=generator) < 0.3
    origins, directions, jitter = random_rays(500, generator)
    near, far = torch.full((500,), 0.05), torch.full((500,), options.pop("t_far", math.inf))
    arguments = {"occupancy": pack(cells), "aabb": 0.7 * BOX, "jitter": jitter, "resolution": R, **options}
    ours = march_rays(origins, directions, near, far, **arguments)
    *_, spans = reference.ray_marching.march_rays(origins, directions, near, far, **arguments)
    assert len(ours.t_starts) > 100
    assert (ours.spans[:, 1] != spans[:, 1]).float().mean() <= 1e-3


def test_no_wall_of_one_cell_is_ever_jumped(backend, generator):
    for axis in range(3):
        for position in (0, 7, 8, 15, 16, 23, 24, 31):
            cells = torch.zeros(R, R, R, dtype=torch.bool)
            cells.select(2 - axis, position).fill_(True)
            origins = 2 * torch.rand(60, 3, generator=generator) - 1
            origins[:, axis] = -1.5
            targets = 1.8 * torch.rand(60, 3, generator=generator) - 0.9
            targets[:, axis] = 2 * (position + 0.5) / R - 1
            directions = normalize(targets - origins, dim=-1)
            samples = march(origins, directions, pack(cells), step_size=0.2 / R, jitter=torch.rand(60, generator=generator))
            assert (samples.spans[:, 1] >= 9).all(), (axis, position)  # a wall is 10 steps thick, or more at a slant


@pytest.mark.parametrize(("n_cascades", "resolution"), [(1, 32), (3, 64), (2, 96)])
def test_bits_are_spread_to_all_cells_within_reach(backend, generator, n_cascades, resolution):
    """Against maxima over cubes; what a finer cascade covers counts as occupied."""
    cells = torch.rand(n_cascades, *[resolution] * 3, generator=generator) < 8 / resolution**3
    spread = spread_bits(pack(cells), resolution).view(n_cascades, resolution, resolution, resolution // 32, 4)
    found = ((spread[..., None, :] >> torch.arange(32)[:, None]) & 1).flatten(3, 4).bool()
    first, last = resolution // 4, 3 * resolution // 4
    cells[1:, first:last, first:last, first:last] = True
    for level, reach in enumerate((1, 2, 4, 8)):
        near = cells.float()
        for _ in range(3):  # along one axis after the other: the maximum over a cube is that of its rows' maxima
            near = torch.nn.functional.max_pool1d(near.flatten(1, 2), 2 * reach + 1, 1, reach).view_as(near).movedim(-1, 1)
        assert torch.equal(found[..., level], near > 0), reach
    assert 0 < cells[0].sum() < 30


def test_bits_of_another_resolution_are_refused(backend):
    with pytest.raises(ValueError, match="occupancy"):
        spread_bits(full(), 64)


def test_what_was_kept_of_an_occupancy_gives_the_same_samples(backend, generator):
    origins, directions, jitter = random_rays(200, generator)
    bits = pack(torch.rand(R, R, R, generator=generator) < 0.02)
    anew, kept = (march(origins, directions, bits, jitter=jitter, spread=x) for x in (None, spread_bits(bits, R)))
    assert len(anew.t_starts) > 100
    assert all(torch.equal(x, y) for x, y in zip(anew, kept, strict=True))


def test_rays_may_start_inside(backend):
    samples = march([[0.0, 0.01, 0.01]], [[0, 0, -1.0]], full(), step_size=0.1, t_near=0.2)
    assert_close(middles(samples), 0.25 + 0.1 * torch.arange(8.0))


def test_rays_that_miss_or_end_before_they_begin_have_no_samples(backend):
    origins = torch.tensor([[-3.0, 0, 0], [-3, 0, 0], [-3, 2, 0], [-3, 0, 0], [-3, 0, 0]])
    directions = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0]])
    near, far = torch.tensor([3.0, 4, 0, 0, 5]), torch.tensor([3.0, 2, 9, 9, 9])
    samples = march(origins, directions, full(), near, far)
    assert samples.spans.tolist() == [[0, 0]] * 5


@pytest.mark.parametrize("occupied", [True, False])
def test_rays_along_axes_and_exactly_on_cell_faces_end(backend, occupied):
    """And see one of the two cells, as the reference does."""
    places = torch.tensor([-1.0, -0.5, 0.0, 1 / 16, 0.5, 1.0])
    grid = torch.cartesian_prod(places, places)
    rays = [(torch.cat([torch.full((36, 1), -2.0), grid], -1).roll(k, 1), torch.eye(3)[k].expand(36, 3)) for k in range(3)]
    origins, directions = torch.cat([o for o, _ in rays]), torch.cat([d for _, d in rays])
    cells = torch.full((2, R, R, R), occupied)
    cells[:, ::3, ::5] = not occupied
    near, far = torch.zeros(108), torch.full((108,), math.inf)
    options = {"step_size": 1 / 64, "resolution": R, "n_cascades": 2, "aabb": BOX / 2}
    ours = march_rays(origins, directions, near, far, pack(cells), **options)
    theirs = reference.ray_marching.march_rays(origins, directions, near, far, pack(cells), **options)
    assert torch.equal(ours.spans, theirs[3])
    assert torch.equal(ours.t_starts, theirs[0])


@pytest.mark.parametrize("contraction", ["none", "sphere"])
@pytest.mark.parametrize("cone_angle", [0.0, 0.01])
def test_nothing_that_is_not_a_number_hangs_a_ray(backend, contraction, cone_angle):
    bad = [math.nan, math.inf, -math.inf]
    origins, directions = torch.zeros(15, 3), torch.eye(3)[:1].repeat(15, 1)
    near, far, jitter = torch.zeros(15), torch.full((15,), 9.0), torch.zeros(15)
    for i, value in enumerate(bad):
        origins[i, 1] = directions[3 + i, 2] = near[6 + i] = far[9 + i] = value
    jitter[12], directions[13], far[14] = math.nan, 0.0, 1e10
    options = {"contraction": contraction, "cone_angle": cone_angle, "max_samples_per_ray": 50}
    for occupancy in (full(), 0 * full()):
        samples = march(origins, directions, occupancy, near, far, jitter, step_size=0.1, **options)
        counts = samples.spans[:, 1]
        assert counts[[0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12]].sum() == 0
        assert ((samples.t_starts <= samples.t_ends) & samples.t_ends.isfinite()).all()


def test_an_endless_ray_ends_with_the_outermost_cascade(backend):
    samples = march([[0.0, 0.01, 0.01]] * 2, [[0, 1.0, 0]] * 2, full(3), t_far=[math.inf, 1e10], step_size=0.01, n_cascades=3)
    assert samples.spans.tolist() == [[0, 399], [399, 399]]
    assert_close(samples.t_ends.max(), torch.tensor(3.99))


def test_jittered_midpoints_are_uniform(backend):
    """χ² of 20 bins across a stretch that is no multiple of the step; without jitter the bins would differ by half."""
    n = 20_000
    jitter = torch.rand(n, generator=torch.Generator().manual_seed(5))
    near, far = 2.03, 2.51
    samples = march([[-3.0, 0.1, 0.1]] * n, [[1.0, 0, 0]] * n, full(), near, far, jitter, step_size=0.037)
    counts = torch.histc(middles(samples), 20, near, far)
    expected = len(samples.t_starts) / 20
    assert_close(len(samples.t_starts) / n, (far - near) / 0.037, rtol=2e-3, atol=0)
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # 19 degrees of freedom: 1 in 1,300


def test_growing_steps_are_the_cone_angle_times_t_between_the_bounds(backend):
    options = {"step_size": 0.01, "cone_angle": 1 / 50, "max_step": 0.05, "n_cascades": 3}
    samples = march([[-3.9, 0.1, 0.1]], [[1.0, 0, 0]], full(3), **options)
    growth = math.log1p(1 / 50)
    assert_close(samples.t_starts[1:], samples.t_ends[:-1], rtol=0, atol=0)
    lengths = samples.t_ends - samples.t_starts
    linear, straight = samples.t_ends * growth < 0.01, samples.t_starts * growth > 0.05
    between = (samples.t_starts * growth > 0.01) & (samples.t_ends * growth < 0.05)
    assert linear.sum() > 40
    assert between.sum() > 70
    assert straight.sum() > 50
    assert_close(lengths[linear], torch.full_like(lengths[linear], 0.01), rtol=1e-4, atol=0)
    assert_close(lengths[between], samples.t_starts[between] / 50, rtol=1e-4, atol=0)
    assert_close(lengths[straight], torch.full_like(lengths[straight], 0.05), rtol=1e-4, atol=0)


def test_neighbours_share_their_boundary_to_the_bit(backend, generator):
    origins, directions, jitter = random_rays(50, generator, spread=0.3)
    for cone_angle in (0.0, 0.01):
        samples = march(origins, directions, full(), jitter=jitter, cone_angle=cone_angle)
        together = samples.ray_indices[1:] == samples.ray_indices[:-1]
        assert torch.equal(samples.t_starts[1:][together], samples.t_ends[:-1][together])


def test_the_finest_cascade_around_a_point_decides(backend):
    """Cells of the coarse cascade that lie inside the fine one's box are never asked, and the other way round."""
    cells = torch.zeros(2, R, R, R, dtype=torch.bool)
    cells[1] = True
    outside = march([[-3.0, 0.1, 0.1]], [[1.0, 0, 0]], pack(cells), n_cascades=2)
    inside = march([[-3.0, 0.1, 0.1]], [[1.0, 0, 0]], pack(~cells), n_cascades=2)
    x = middles(outside) - 3
    assert ((x.abs() > 1) & (x.abs() < 2)).all()
    assert (middles(inside) - 3).abs().max() < 1
    assert (len(x), len(inside.t_starts)) == (200, 200)


def test_inside_the_unit_ball_contraction_changes_nothing(backend, generator):
    """There the contracted grid is that of the doubled box."""
    cells = torch.rand(1, R, R, R, generator=generator) < 0.2
    origins = 0.5 * (2 * torch.rand(200, 3, generator=generator) - 1)
    directions = normalize(torch.randn(200, 3, generator=generator), dim=-1)
    arguments = {"occupancy": pack(cells), "t_far": 0.13, "jitter": torch.rand(200, generator=generator)}
    contracted = march(origins, directions, contraction="sphere", **arguments)
    plain = march(origins, directions, aabb=2 * BOX, **arguments)
    assert len(plain.t_starts) > 200
    assert torch.equal(contracted.t_starts, plain.t_starts)
    assert torch.equal(contracted.spans, plain.spans)


def test_contraction_sees_the_shell_where_the_far_away_is(backend):
    """Cells whose distance from the centre is above 2 - 1/10 hold what is ten half-sizes away, and beyond."""
    at = (torch.arange(64) + 0.5) / 16 - 2
    radius = (at**2 + at[:, None] ** 2 + at[:, None, None] ** 2).sqrt()
    direction = normalize(torch.tensor([[1.0, 0.3, 0.2]]), dim=-1)
    options = {"contraction": "sphere", "resolution": 64, "t_far": 500.0, "max_samples_per_ray": 100_000}
    samples = march([[0.1, 0, 0]], direction, pack(radius > 1.9), step_size=0.05, **options)
    found = middles(samples)
    assert 6 < found.min() < 20  # a cell is 0.06 wide, and 1.9 -+ 0.06 is at 6 and 25
    assert found.max() > 499.9
    assert ((found > 25).sum() - (500 - 25) / 0.05).abs() <= 2


def test_a_processor_marches_a_few_long_rays_once(cpu, generator):
    origins, directions, jitter = random_rays(60, generator, spread=0.2)
    launched = []
    with watching(lambda name, _: launched.append(name)):
        samples = march(origins, directions, full(), jitter=jitter, step_size=0.012)
    assert samples.spans[:, 1].float().mean() > 1.5 * ROOM
    assert "march_slices" in launched
    assert "march_rays" not in launched


def test_a_ray_keeps_its_first_samples(backend, generator):
    origins, directions, jitter = random_rays(50, generator, spread=0.5)
    cells = pack(torch.rand(R, R, R, generator=generator) < 0.5)
    whole, cut = (march(origins, directions, cells, jitter=jitter, max_samples_per_ray=most) for most in (1024, 20))
    assert torch.equal(cut.spans[:, 1], whole.spans[:, 1].clamp_max(20))
    for ray in range(50):
        (first, count), start = cut.spans[ray].tolist(), int(whole.spans[ray, 0])
        assert torch.equal(cut.t_starts[first : first + count], whole.t_starts[start : start + count])


@pytest.mark.parametrize("capacity", [0, 1, 777, 100_000])
def test_capacity_cuts_the_last_rays_and_the_rest_is_empty_intervals(backend, generator, capacity):
    origins, directions, jitter = random_rays(50, generator, spread=0.5)
    whole = march(origins, directions, full(), jitter=jitter)
    cut = march(origins, directions, full(), jitter=jitter, max_samples=capacity)
    kept = min(capacity, len(whole.t_starts))
    assert len(cut.t_starts) == len(cut.t_ends) == len(cut.ray_indices) == capacity
    for ours, wanted in zip(cut[:3], whole[:3], strict=True):
        assert torch.equal(ours[:kept], wanted[:kept])
        assert not ours[kept:].any()
    first, count = cut.spans.unbind(-1)
    assert torch.equal(first, whole.spans[:, 0].clamp_max(capacity))
    assert torch.equal(count, (whole.spans.sum(-1).clamp_max(capacity) - first).to(torch.int32))


@pytest.mark.parametrize("options", [{}, {"max_samples_per_ray": 2**17}, {"max_samples": 2000}], ids=str)
def test_every_ray_has_a_span_whatever_memory_held_before(backend, generator, monkeypatch, options):
    """In one pass, in two, and where room is given; of rays that see something, that miss, and that are not numbers."""
    origins, directions, jitter = random_rays(300, generator, spread=1.5)
    directions[7] = math.nan
    unset = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *sizes, **kinds: unset(*sizes, **kinds).fill_(-123))
    bits = pack(torch.rand(R, R, R, generator=generator) < 0.1)
    samples = march(origins, directions, bits, jitter=jitter, **options)
    n = int(samples.spans[:, 1].sum())
    assert n > 1000
    assert torch.equal(samples.spans[:, 1], torch.bincount(samples.ray_indices[:n], minlength=300))
    assert torch.equal(samples.spans[1:, 0], samples.spans.sum(-1)[:-1])
    assert samples.spans[7, 1] == samples.spans[0, 0] == 0


def test_should_the_passes_disagree_the_second_stays_in_its_span(backend):
    """Three rays with 20 samples each, whose counts are made out to be 23, 20 and 15."""
    origins, directions = torch.tensor([[-2.0, 0.1, 0.1]] * 3), torch.tensor([[1.0, 0, 0]] * 3)
    spans = torch.tensor([[0, 23], [23, 20], [43, 15]], dtype=torch.int32)
    lattice = torch.tensor([0.1, 10.0, 0, 0, 0, 0, 0, 0])
    t_starts, t_ends, rays = torch.full((60,), 7.0), torch.full((60,), 7.0), torch.full((60,), 7, dtype=torch.int32)
    near, far, beginnings = torch.zeros(3), torch.full((3,), 9.0), torch.full((3,), 8, dtype=torch.int32)
    grid = (full(), full()[:, None].repeat(1, 4), BOX, lattice, lattice, math.inf, 1024, 1, R, False, False, False, True)
    kernels.march_rays(origins, directions, near, far, torch.zeros(3), *grid, beginnings, spans, t_starts, t_ends, rays)
    assert (t_starts < t_ends).tolist() == [True] * 20 + [False] * 3 + [True] * 20 + [True] * 15 + [False] * 2
    assert rays.tolist() == [0] * 23 + [1] * 20 + [2] * 15 + [0] * 2
    assert_close(t_starts[43:58], 0.1 * torch.arange(10, 25))


def test_occupancy_may_live_on_the_device(backend, generator):
    origins, directions, jitter = random_rays(50, generator)
    cells = pack(torch.rand(R, R, R, generator=generator) < 0.3)
    held, handed = (march(origins, directions, bits, jitter=jitter) for bits in (DeviceArray(cells), cells))
    assert all(torch.equal(a, b) for a, b in zip(held, handed, strict=True))


def test_samples_have_no_history(backend):
    """Gradients reach rays through `sample_positions`."""
    origins, directions = torch.zeros(1, 3, requires_grad=True), torch.tensor([[1.0, 0, 0]], requires_grad=True)
    samples = march(origins, directions, full())
    assert not samples.t_starts.requires_grad
    assert sample_positions(origins, directions, *samples).requires_grad


def test_takes_64_bits(cpu, generator):
    origins, directions, jitter = random_rays(50, generator)
    cells = pack(torch.rand(R, R, R, generator=generator) < 0.3)
    near, far = torch.zeros(50).double(), torch.full((50,), 9.0).double()
    options = {"step_size": 0.01, "cone_angle": 0.007, "jitter": jitter.double(), "resolution": R}
    arguments = (origins.double(), directions.double(), near, far, cells, BOX.double())
    ours, theirs = march_rays(*arguments, **options), reference.ray_marching.march_rays(*arguments, **options)
    assert torch.equal(ours.spans, theirs[3])
    assert_close(ours.t_starts, theirs[0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": math.nan}, "step_size"),
        ({"step_size": 0.1, "max_step": 0.05}, "max_step"),
        ({"cone_angle": -0.1}, "cone_angle"),
        ({"resolution": 100}, "multiple of 32"),
        ({"n_cascades": 0}, "cascades"),
        ({"n_cascades": 2}, r"occupancy has to have shape \[2048\]"),
        ({"contraction": "box"}, "contraction"),
        ({"contraction": "sphere", "n_cascades": 2}, "one grid"),
        ({"max_samples_per_ray": 0}, "max_samples_per_ray"),
    ],
    ids=str,
)
def test_says_which_option_cannot_be(cpu, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        march([[0.0, 0, 0]], [[1.0, 0, 0]], full(), **options)


def test_positions_lie_on_their_rays_and_leave_out_rays_without_samples(backend):
    origins = torch.tensor([[0.0, 0, 0], [5, 5, 5], [1, 2, 3]], requires_grad=True)
    directions = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], requires_grad=True)
    spans = torch.tensor([[0, 2], [2, 0], [2, 1]], dtype=torch.int32)
    rays = torch.tensor([0, 0, 2], dtype=torch.int32)
    positions = sample_positions(origins, directions, torch.tensor([0.0, 1, 2]), torch.tensor([1.0, 2, 4]), rays, spans)
    assert_close(positions.detach(), torch.tensor([[0.5, 0, 0], [1.5, 0, 0], [1, 2, 6]]))
    positions.sum().backward()
    assert_close(origins.grad, torch.tensor([2.0, 0, 1])[:, None].expand(3, 3))
    assert_close(directions.grad, torch.tensor([2.0, 0, 3])[:, None].expand(3, 3))
