"""The occupancy grid against hand-made grids, numpy's bit packing and cameras in 64 bits.

Measured against the reference: densities and bits equal on cpu and lavapipe, positions within 1e-7 of the largest, under
contraction (500 points, out to 60 half-sizes) within 2e-6.
"""

import math

import numpy
import pytest
import torch
from torch.testing import assert_close

from taichi_nerf import reference
from taichi_nerf.ops.occupancy_grid import (
    cell_positions,
    mark_invisible_cells,
    occupied_fraction,
    pack_occupancy,
    update_density,
    update_density_,
)
from taichi_nerf.ops.ray_marching import march_rays
from taichi_nerf.runtime import DeviceArray

R = 32
BOX = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def unpack(bits):
    return torch.from_numpy(numpy.unpackbits(bits.numpy().view(numpy.uint8), bitorder="little")).bool()


def cells_of(*indices):
    return torch.tensor(indices, dtype=torch.int32)


def test_x_runs_fastest_then_y_then_z_then_the_cascade(backend):
    cells = cells_of(0, 1, R, R**2, R**3 - 1, R**3, 3 * R**3)
    centers = cell_positions(cells, torch.full((7, 3), 0.5), BOX, resolution=R)
    h = 1 / R
    low = h - 1
    neighbours = [[low] * 3, [3 * h - 1, low, low], [low, 3 * h - 1, low], [low, low, 3 * h - 1]]
    assert_close(centers, torch.tensor([*neighbours, [1 - h] * 3, [2 * low] * 3, [8 * low] * 3]))


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_a_ray_finds_each_cell_where_its_position_says(backend, generator, contraction):
    """A short ray at a point of a cell meets that cell's bit, in the grid that has only this bit."""
    box = torch.tensor([[-1.0, -2, 0], [1, 1, 4]])
    n_cascades = 1 if contraction == "sphere" else 3
    cells = torch.randint(0, n_cascades * R**3, (40,), generator=generator, dtype=torch.int32)
    jitter = 0.1 + 0.8 * torch.rand(40, 3, generator=generator)
    positions = cell_positions(cells, jitter, box, resolution=R, contraction=contraction)
    q = ((positions - box.mean(0)) / (box[1] - box[0]) * 2).abs().amax(-1)
    layer = cells // R**3
    # Cells of a coarse cascade inside the finer one's box are never asked; corners of contracted space are nowhere.
    asked = (q < 2.0**layer) & ((layer == 0) | (q >= 2.0 ** (layer - 1))) if contraction == "none" else q < 20
    step = 1e-4
    for cell, position in zip(cells[asked].tolist(), positions[asked], strict=True):
        bits = torch.zeros(n_cascades * R**3 // 32, dtype=torch.int32)
        bits[cell // 32] = torch.tensor(1 << cell % 32).to(torch.int32)
        direction = torch.tensor([[0.0, 0, 1]])
        ray = (position[None] - step * direction, direction, torch.tensor([step / 2]), torch.tensor([3 * step / 2]))
        options = {"step_size": step, "resolution": R, "n_cascades": n_cascades, "contraction": contraction}
        samples = march_rays(*ray, bits, box, jitter=torch.tensor([0.5]), **options)
        assert len(samples.t_starts) == 1
    assert asked.sum() > 10


def test_contracted_positions_contract_back(backend, generator):
    """(2 - 1/‖x‖) x/‖x‖ of a position is the cell's point again."""
    cells = torch.randint(0, R**3, (500,), generator=generator, dtype=torch.int32)
    jitter = torch.rand(500, 3, generator=generator)
    positions = cell_positions(cells, jitter, BOX, resolution=R, contraction="sphere").double()
    place = torch.stack([cells % R, cells // R % R, cells // R**2], -1)
    expected = (place + jitter).double() * 4 / R - 2
    norm = positions.norm(dim=-1, keepdim=True)
    contracted = torch.where(norm > 1, (2 - 1 / norm) / norm, 1.0) * positions
    inside = expected.norm(dim=-1) < 1.99
    assert_close(contracted[inside], expected[inside], atol=2e-6, rtol=0)
    assert positions.isfinite().all()


def test_visited_cells_decay_or_rise_and_the_others_stay(backend):
    ema = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.0])
    new = update_density(ema, cells_of(0, 1, 3, 4), torch.tensor([0.1, 2.0, 5.0, 0.5]), decay=0.5)
    assert_close(new, torch.tensor([0.5, 2.0, 1.0, -1.0, 0.5]))
    assert ema.tolist() == [1, 1, 1, -1, 0]


def test_a_cell_that_is_visited_often_decays_once_and_takes_the_largest(backend, generator):
    """However the visits fall to threads."""
    visits = 3000
    cells = torch.randint(0, 7, (visits,), generator=generator, dtype=torch.int32)
    density = torch.rand(visits, generator=generator)
    largest = torch.stack([density[cells == c].max() for c in range(7)])
    assert torch.equal(update_density(torch.full((7,), 0.5), cells, density, decay=0.5), largest.clamp_min(0.25))
    assert torch.equal(update_density(torch.full((7,), 8.0), cells, density, decay=0.5), torch.full((7,), 4.0))


def test_densities_that_are_not_numbers_are_ignored(backend):
    density = torch.tensor([math.nan, math.inf, -math.inf, math.nan, 3.0])
    new = update_density(torch.ones(5), cells_of(0, 1, 2, 3, 3), density, decay=0.5)
    assert new.tolist() == [0.5, 0.5, 0.5, 3.0, 1.0]


def test_a_broken_average_is_mended_by_the_next_visit(backend):
    new = update_density(torch.tensor([math.nan, math.inf]), cells_of(0, 1), torch.tensor([2.0, 3.0]))
    assert new.tolist() == [2.0, 3.0]


def test_cells_outside_of_the_grid_are_left_out(backend):
    new = update_density(torch.ones(4), cells_of(-1, 4, 2**30, 2), torch.full((4,), 9.0))
    assert new.tolist() == [1, 1, 9, 1]


def test_in_place_and_on_the_device_the_same_comes_out(backend, generator):
    ema = torch.rand(96, generator=generator) - 0.2
    cells = torch.randint(0, 96, (50,), generator=generator, dtype=torch.int32)
    density = torch.rand(50, generator=generator)
    wanted = update_density(ema, cells, density)
    kept, held = ema.clone(), DeviceArray(ema)
    update_density_(kept, cells, density)
    update_density_(held, cells, density)
    assert torch.equal(kept, wanted)
    assert torch.equal(held.to_torch(), wanted)
    bits, held_bits = pack_occupancy(wanted, threshold=0.5), DeviceArray(torch.zeros(3, dtype=torch.int32))
    pack_occupancy(held, threshold=0.5, out=held_bits)
    assert torch.equal(held_bits.to_torch(), bits)
    assert occupied_fraction(held_bits) == occupied_fraction(bits)


def test_in_place_refuses_what_it_would_have_to_copy(cpu):
    with pytest.raises(ValueError, match="contiguous"):
        update_density_(torch.ones(8)[::2], cells_of(0), torch.ones(1))


def test_bits_are_those_of_numpy(backend, generator):
    ema = torch.rand(5 * 32, generator=generator)
    expected = numpy.packbits((ema > 0.3).numpy(), bitorder="little").view(numpy.int32)
    assert pack_occupancy(ema, threshold=0.3).tolist() == expected.tolist()


def test_the_mean_of_the_visible_cells_caps_the_threshold(backend):
    ema = torch.full((64,), -1.0)
    ema[:4] = torch.tensor([1.0, 2, 3, 10])  # the mean is 4; with the hidden cells it would be less than 0
    assert unpack(pack_occupancy(ema, threshold=100.0)).nonzero().flatten().tolist() == [3]
    assert unpack(pack_occupancy(ema, threshold=1.5)).nonzero().flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [0.0, 1e-20, 0.1, 7.0])
def test_a_grid_that_has_gone_empty_starts_over_with_all_visible_cells(backend, value):
    """A peer's grid turned NaN here and never recovered; equal densities are none above their mean, too."""
    ema = torch.full((3200,), value)
    ema[100:1000] = -1
    assert torch.equal(unpack(pack_occupancy(ema, threshold=100.0)), ema >= 0)


def test_without_visible_cells_nothing_is_occupied(backend):
    assert not pack_occupancy(torch.full((64,), -1.0), threshold=0.01).any()


def test_what_is_not_a_number_is_occupied_and_does_not_spoil_the_mean(backend):
    ema = torch.zeros(64)
    ema[:5] = torch.tensor([math.nan, math.inf, 2.0, 1e-3, -1.0])
    assert unpack(pack_occupancy(ema, threshold=1.0)).nonzero().flatten().tolist() == [0, 1, 2]


def test_packs_whole_words_only(cpu):
    with pytest.raises(ValueError, match="multiple of 32"):
        pack_occupancy(torch.ones(33), threshold=1.0)


def test_the_fraction_counts_ones(backend, generator):
    mask = torch.rand(4096 * 32, generator=generator) < 0.3
    bits = pack_occupancy(mask.float(), threshold=0.5)
    assert_close(occupied_fraction(bits), mask.float().mean())
    assert occupied_fraction(torch.full((7,), -1, dtype=torch.int32)) == 1
    assert occupied_fraction(torch.zeros(0, dtype=torch.int32)) == 0


def random_cameras(n, generator, distance=2.5):
    """Looking about at the centre, as c2w of orthonormal axes."""
    rotations = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator)).Q
    positions = -distance * rotations[:, :, 2:] + 0.2 * torch.randn(n, 3, 1, generator=generator)
    lenses = torch.tensor([[60.0, 65, 20, 14]]).expand(n, 4) + torch.rand(n, 4, generator=generator)
    return torch.cat([rotations, positions], -1), lenses, torch.tensor([[37, 30]], dtype=torch.int32).expand(n, 2)


def projects_inside(points, poses, lenses, sizes, near):
    """Whether a camera sees each point, [n_points]: plain projection to pixels, in 64 bits."""
    seen = torch.zeros(len(points), dtype=torch.bool)
    for pose, lens, size in zip(poses.double(), lenses.double(), sizes, strict=True):
        x, y, z = ((points.double() - pose[:, 3]) @ pose[:, :3]).unbind(-1)
        u, v = lens[0] * x / z + lens[2], lens[1] * y / z + lens[3]
        seen |= (z > near) & (u > 0) & (u < size[0]) & (v > 0) & (v < size[1])
    return seen


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_every_cell_with_a_visible_point_stays_and_few_others_do(backend, generator, contraction):
    cameras = random_cameras(3, generator)
    n_cascades = 1 if contraction == "sphere" else 2
    cells = torch.arange(n_cascades * R**3, dtype=torch.int32)
    options = {"resolution": R, "contraction": contraction}
    ema = torch.rand(len(cells), generator=generator)
    marked = mark_invisible_cells(ema, *cameras, BOX, near=0.3, **options)
    kept = marked >= 0
    visible = torch.zeros(len(cells), dtype=torch.bool)
    for _ in range(8):
        points = cell_positions(cells, torch.rand(len(cells), 3, generator=generator), BOX, **options)
        visible |= projects_inside(points, *cameras, near=0.3)
    if contraction == "sphere":  # of points that lie somewhere
        nowhere = ((points.abs().amax(-1)) > 100) & ~kept
        visible &= ~nowhere
    assert not (visible & ~kept).any()
    assert torch.equal(marked[kept], ema[kept])
    assert torch.equal(marked[~kept], torch.full_like(marked[~kept], -1.0))
    assert (~kept).float().mean() > 0.2
    if contraction == "none":
        assert (kept & ~visible).float().mean() < 0.12  # balls are larger than cells


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_marks_what_the_reference_marks(backend, generator, contraction):
    """But for a cell in ten thousand on the verge."""
    arguments = (torch.rand(R**3, generator=generator), *random_cameras(4, generator, 1.0), BOX)
    options = {"resolution": R, "contraction": contraction, "near": 0.1}
    ours = mark_invisible_cells(*arguments, **options)
    theirs = reference.occupancy_grid.mark_invisible_cells(*arguments, **options)
    assert (ours != theirs).float().mean() <= 1e-4


def test_cells_that_come_into_view_start_at_zero(backend, generator):
    cameras = random_cameras(2, generator)
    marked = mark_invisible_cells(torch.full((R**3,), -1.0), *cameras, BOX, resolution=R)
    assert set(marked.unique().tolist()) == {-1.0, 0.0}


def test_without_cameras_nothing_is_visible(backend):
    nobody = (torch.zeros(0, 3, 4), torch.zeros(0, 4), torch.zeros(0, 2, dtype=torch.int32))
    for contraction in ("none", "sphere"):
        marked = mark_invisible_cells(torch.ones(R**3), *nobody, BOX, resolution=R, contraction=contraction)
        assert (marked == -1).all()


@pytest.mark.parametrize("n_cells", [R**3 + 32, 2 * R**3])
def test_says_how_many_cells_it_wants(cpu, n_cells):
    cameras = random_cameras(1, torch.Generator())
    with pytest.raises(ValueError, match=r"32\^3 cells"):
        mark_invisible_cells(torch.ones(n_cells), *cameras, BOX, resolution=R, contraction="sphere")


def test_refuses_a_contraction_it_does_not_know(cpu):
    with pytest.raises(ValueError, match="contraction"):
        cell_positions(cells_of(0), torch.zeros(1, 3), BOX, resolution=R, contraction="cube")
