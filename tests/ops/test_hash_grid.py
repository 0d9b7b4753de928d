"""The hash grid against an encoder written with Python's integers, tiny-cuda-nn's figures, and laws of interpolation.

Measured against the reference in float32: forward 2e-7, gradients 2e-7 on cpu and lavapipe.
"""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.kernels import hash_grid as kernels
from taichi_nerf.ops import hash_grid as ops
from taichi_nerf.ops.hash_grid import hash_grid, initialise_table, level_layout
from taichi_nerf.reference import hash_grid as reference
from taichi_nerf.runtime import DeviceArray

MIXED = {"n_levels": 5, "base_resolution": 4, "max_resolution": 64, "log2_table_size": 10}  # dense 4, 8; hashed 16 … 64
DENSE = {"n_levels": 1, "base_resolution": 9, "max_resolution": 9, "log2_table_size": 12}


def table_for(layout, n_features, generator, device="cpu"):
    return (2e4 * initialise_table(n_features, generator, **layout)).to(device) / 2  # of order one


def by_hand(position, table, layout):
    """One point, with Python's floats and unbounded integers."""
    out = []
    for level in level_layout(**layout):
        scaled = [x * level.scale + 0.5 for x in position]
        cell = [math.floor(s) for s in scaled]
        features = torch.zeros(table.shape[1], dtype=torch.float64)
        for corner in itertools.product((0, 1), repeat=3):
            x, y, z = (c + d for c, d in zip(cell, corner, strict=True))
            weight = math.prod(s - c if d else 1 - (s - c) for s, c, d in zip(scaled, cell, corner, strict=True))
            row = x + y * level.resolution + z * level.resolution**2
            if level.is_hashed:
                row = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
            features += weight * table[level.offset + row % level.size].double()
        out.append(features)
    return torch.cat(out)


def test_the_standard_table_has_tiny_cuda_nns_number_of_parameters():
    """16 levels of 2 features from 16 to 2048 with 2^19 rows: 12,196,240 numbers in instant-ngp's snapshots."""
    last = level_layout(max_resolution=2048)[-1]
    assert 2 * (last.offset + last.size) == 12_196_240


def test_levels_that_double_have_the_resolutions_and_sizes_worked_out_by_hand():
    levels = level_layout(n_levels=5, base_resolution=16, per_level_scale=2.0, log2_table_size=16)
    assert [level.resolution for level in levels] == [16, 32, 64, 128, 256]
    assert [level.scale for level in levels] == [15, 31, 63, 127, 255]
    assert [level.size for level in levels] == [4096, 32768, 65536, 65536, 65536]
    assert [level.is_hashed for level in levels] == [False, False, True, True, True]
    assert [level.offset for level in levels] == [0, 4096, 36864, 102400, 167936]


def test_a_dense_level_is_padded_to_a_multiple_of_eight_rows():
    (level,) = level_layout(n_levels=1, base_resolution=5, max_resolution=5)
    assert (level.resolution, level.size, level.is_hashed) == (5, 128, False)


@pytest.mark.parametrize("layout", [MIXED, DENSE, {**MIXED, "log2_table_size": 5, "per_level_scale": 1.7}])
def test_equals_an_encoder_of_python_integers(layout, backend, generator):
    table = table_for(layout, 3, generator)
    positions = torch.rand(20, 3, generator=generator)
    ours = hash_grid(positions.to(backend.torch_device), table.to(backend.torch_device), **layout).cpu()
    wanted = torch.stack([by_hand(p, table, layout) for p in positions.tolist()])
    assert_close(ours.double(), wanted, atol=1e-5, rtol=0)


def test_hashes_of_the_finest_coordinates_wrap_like_unsigned_integers(backend, generator):
    """Vertices near 2^16 times a prime near 2^32 overflow 32 bits, and what is left differs if the product is signed."""
    layout = {"n_levels": 1, "base_resolution": 60000, "max_resolution": 60000, "log2_table_size": 14}
    table = table_for(layout, 1, generator)
    positions = (torch.randint(0, 59998, (50, 3), generator=generator) + 0.5) / 59999
    ours = hash_grid(positions.to(backend.torch_device), table.to(backend.torch_device), **layout).cpu()
    wanted = torch.stack([by_hand(p, table, layout) for p in positions.tolist()])
    # 60000 in 32 bits leaves a fraction of the cell exact to 2^-8, so the features agree only roughly; wrong rows would not.
    assert_close(ours.double(), wanted, atol=0.1, rtol=0)


def test_a_dense_level_reproduces_a_trilinear_function(backend):
    """Interpolation is exact for a + bx + cy + dz + exy + … + hxyz sampled at the vertices."""
    (level,) = level_layout(**DENSE)
    r = level.resolution
    vertices = (torch.arange(r, dtype=torch.float32) - 0.5) / level.scale

    def polynomial(x, y, z):
        return 1 + 2 * x - y + 3 * z + x * y - 2 * y * z + x * z + 4 * x * y * z

    z, y, x = torch.meshgrid(vertices, vertices, vertices, indexing="ij")  # x runs fastest in the table
    table = torch.zeros(level.size, 1)
    table[: r**3, 0] = polynomial(x, y, z).flatten()
    # The half-cell shift puts the last half cell beyond the vertices, where a dense level wraps (as tiny-cuda-nn's does).
    positions = torch.rand(200, 3) * (r - 1.5) / level.scale
    ours = hash_grid(positions.to(backend.torch_device), table.to(backend.torch_device), **DENSE).cpu()
    assert_close(ours[:, 0], polynomial(*positions.T), atol=1e-5, rtol=0)


def test_is_continuous_across_cell_faces(backend, generator):
    table = table_for(MIXED, 2, generator, backend.torch_device)
    faces = torch.cat([(torch.arange(1, level.resolution) - 0.5) / level.scale for level in level_layout(**MIXED)])
    faces = faces[faces < 0.999]
    others = torch.rand(len(faces), 2, generator=generator)
    beside = [torch.cat([(faces + step)[:, None], others], -1) for step in (-1e-6, 1e-6)]
    for axis in range(3):
        left, right = (hash_grid(p.roll(axis, 1).to(backend.torch_device), table, **MIXED) for p in beside)
        assert (left - right).abs().max() < 2e-6 * 4 * 64  # the step times the steepest slope there can be


def test_a_constant_table_gives_the_constant_everywhere_borders_included(backend):
    last = level_layout(**MIXED)[-1]
    table = torch.full((last.offset + last.size, 2), 0.25, device=backend.torch_device)
    corners = torch.tensor(list(itertools.product((0.0, 0.5, 1.0), repeat=3)), device=backend.torch_device)
    assert_close(hash_grid(corners, table, **MIXED), torch.full((27, 10), 0.25, device=backend.torch_device))


def test_borders_equal_their_limits_from_inside(backend, generator):
    table = table_for(MIXED, 2, generator, backend.torch_device)
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), device=backend.torch_device)
    within = corners.clamp(1e-7, 1 - 1e-7)
    assert_close(hash_grid(corners, table, **MIXED), hash_grid(within, table, **MIXED), atol=1e-4, rtol=0)


def test_positions_outside_are_taken_to_the_border_without_gradient_and_nan_to_zero(backend, generator):
    inf, nan = float("inf"), float("nan")
    table = table_for(MIXED, 2, generator, backend.torch_device).requires_grad_()
    wild = [[-0.1, 0.5, 1.1], [-inf, inf, 0.5], [nan, nan, nan], [1e30, -1e30, 0.25]]
    tame = [[0.0, 0.5, 1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.0], [1.0, 0.0, 0.25]]
    wild, tame = (torch.tensor(p, device=backend.torch_device, requires_grad=True) for p in (wild, tame))
    out = hash_grid(wild, table, **MIXED)
    assert torch.equal(out, hash_grid(tame, table, **MIXED))
    out.sum().backward()
    assert torch.isfinite(table.grad).all()
    assert torch.equal(wild.grad != 0, torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]], device=wild.device) == 1)


def test_table_gradient_of_ones_sums_to_the_number_of_points(backend, generator):
    """The eight weights of a point sum to one, on every level."""
    table = table_for(MIXED, 2, generator, backend.torch_device).requires_grad_()
    hash_grid(torch.rand(300, 3, generator=generator).to(backend.torch_device), table, **MIXED).sum().backward()
    for level in level_layout(**MIXED):
        sums = table.grad[level.offset : level.offset + level.size].sum(0)
        assert_close(sums, torch.full_like(sums, 300), rtol=1e-5, atol=0)


def test_copies_of_one_point_add_up(backend, generator):
    table = table_for(MIXED, 2, generator, backend.torch_device)
    point = torch.rand(1, 3, generator=generator).to(backend.torch_device)
    once, often = table.clone().requires_grad_(), table.clone().requires_grad_()
    hash_grid(point, once, **MIXED).sum().backward()
    hash_grid(point.expand(700, 3), often, **MIXED).sum().backward()
    assert_close(often.grad, 700 * once.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n_threads", "n_parts"), [(1, 1), (2, 1), (3, 1), (10, 2), (35, 7)])
def test_gradient_by_owners_equals_gradient_by_atomics(n_threads, n_parts, cpu, generator):
    n, last = 400, level_layout(**MIXED)[-1]
    positions = torch.rand(n, 3, generator=generator)
    grad = torch.randn(n, 10, generator=generator)
    levels = ops._uploaded(level_layout(**MIXED), torch.device("cpu"), torch.float32)
    by_atomics = torch.zeros(last.offset + last.size, 2)
    kernels.table_adjoint_atomic(positions, grad, *levels, 2, by_atomics)
    level_major = torch.empty(5 * n, 2)
    kernels.to_level_major(grad, 2, level_major)
    by_owners = torch.full_like(by_atomics, float("nan"))
    flat = (x.view(-1) for x in (positions, level_major))
    kernels.table_adjoint(*flat, *levels, 2, n_threads, n_parts, by_owners.view(-1))
    assert_close(by_owners, by_atomics, atol=1e-5, rtol=1e-5)


def test_the_two_forwards_and_layouts_of_the_position_gradient_agree(cpu, generator):
    """One thread a slice, level by level, as on CPUs; one a point, as on GPUs."""
    positions, table = torch.rand(400, 3, generator=generator), table_for(MIXED, 2, generator)
    grad = torch.randn(400, 10, generator=generator)
    levels = ops._uploaded(level_layout(**MIXED), torch.device("cpu"), torch.float32)
    outs, gradients = [torch.empty(400, 10) for _ in range(2)], [torch.empty(400, 3) for _ in range(2)]
    flat = (torch.empty(4000), outs[0].view(-1))
    kernels.encode(positions.view(-1), table.view(-1), *levels, 2, len(levels[1]), 3, *flat)
    kernels.encode_by_points(positions, table, *levels, 2, outs[1])
    assert torch.equal(*outs)
    level_major = torch.empty(2000, 2)
    kernels.to_level_major(grad, 2, level_major)
    kernels.positions_adjoint(positions, table, level_major, *levels, 2, True, 3, kernels.cells.SLICE, gradients[0])
    kernels.positions_adjoint(positions, table, grad, *levels, 2, False, 400, 1, gradients[1])
    assert_close(*gradients, rtol=1e-5, atol=1e-4)


def test_a_gradient_on_the_cpu_has_the_same_bits_every_time(cpu, generator):
    table = table_for(MIXED, 2, generator).requires_grad_()
    positions = torch.rand(20_000, 3, generator=generator)
    cotangent = torch.randn(20_000, 10, generator=generator)
    first, second = (torch.autograd.grad(hash_grid(positions, table, **MIXED), table, cotangent)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_many_points_take_the_path_that_fetches_levels_first(cpu, generator):
    """From size / 64 points on: compared with the same points in small calls."""
    table = table_for(MIXED, 2, generator)
    positions = torch.rand(3000, 3, generator=generator, requires_grad=True)
    together = hash_grid(positions, table, **MIXED)
    apart = torch.cat([hash_grid(p, table, **MIXED) for p in positions.split(10)])
    assert torch.equal(together, apart)
    cotangent = torch.randn(3000, 10, generator=generator)
    gradients = [torch.autograd.grad(out, positions, cotangent)[0] for out in (together, apart)]
    assert torch.equal(*gradients)


def test_slopes_in_a_large_table_are_those_of_64_bits(backend, generator):
    """Levels so large that reading one from end to end for a point takes longer than lavapipe lets a thread loop.

    It ends all loops after 65,535 turns, and says nothing: then levels were missing, and normals smooth and wrong.
    """
    layout = {"n_levels": 5, "base_resolution": 16, "max_resolution": 512, "log2_table_size": 18}
    table, positions = table_for(layout, 2, generator), torch.rand(64, 3, generator=generator)
    cotangent = torch.randn(64, 10, generator=generator)
    truth = positions.double().requires_grad_()
    (expected,) = torch.autograd.grad(reference.hash_grid(truth, table.double(), **layout), truth, cotangent.double())
    ours = positions.to(backend.torch_device).requires_grad_()
    encoded = hash_grid(ours, table.to(backend.torch_device), **layout)
    (found,) = torch.autograd.grad(encoded, ours, cotangent.to(encoded.device))
    assert_close(found.cpu().double(), expected.cpu(), rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("n", [0, 1, 3000])
def test_a_device_array_does_what_the_tensor_does(n, backend, generator):
    values = table_for(MIXED, 2, generator, backend.torch_device)
    table, array = values.clone().requires_grad_(), DeviceArray(values, requires_grad=True)
    positions = [torch.rand(n, 3, generator=generator).to(backend.torch_device) for _ in range(2)]
    cotangent = torch.randn(n, 10, generator=generator).to(backend.torch_device)
    for p in positions:  # two backward passes, whose gradients add up
        ours, theirs = p.clone().requires_grad_(), p.clone().requires_grad_()
        encoded, wanted = hash_grid(ours, array, **MIXED), hash_grid(theirs, table, **MIXED)
        assert torch.equal(encoded, wanted)
        encoded.backward(cotangent)
        wanted.backward(cotangent)
        assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-4)
    assert_close(array.grad_to_torch(), table.grad, rtol=1e-4, atol=2e-5)
    array.zero_grad()
    assert not array.grad_to_torch().any()


def test_a_device_array_without_gradient_leaves_that_of_the_positions(backend, generator):
    values = table_for(MIXED, 2, generator, backend.torch_device)
    positions = torch.rand(50, 3, generator=generator).to(backend.torch_device).requires_grad_()
    hash_grid(positions, DeviceArray(values), **MIXED).sum().backward()
    assert positions.grad.abs().min() > 0
    assert not hash_grid(positions.detach(), DeviceArray(values), **MIXED).requires_grad


def test_a_new_table_is_uniform_within_a_ten_thousandth(generator):
    """A peer drew it from U(0, 1)."""
    table = initialise_table(2, generator, **MIXED)
    assert table.abs().max() <= 1e-4
    assert table.abs().max() > 0.99e-4
    assert abs(table.mean()) < 5e-6
    assert_close(table.std(), torch.tensor(1e-4 / 3**0.5), rtol=0.05, atol=0)


def test_says_how_many_entries_the_table_has_to_have(cpu):
    with pytest.raises(ValueError, match=r"table has to have shape .* n_entries=3648"):
        hash_grid(torch.rand(4, 3), torch.zeros(100, 2), **MIXED)


@pytest.mark.parametrize(
    "wrong",
    [{"n_levels": 0}, {"base_resolution": 0}, {"max_resolution": 3}, {"per_level_scale": 0.5}, {"log2_table_size": 2},
     {"per_level_scale": 1e4}],
)  # fmt: skip
def test_refuses_layouts_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=r"hash grid|resolution|per_level_scale"):
        level_layout(**{**MIXED, **wrong})


def rounded(values):
    return values.bfloat16().float()


@pytest.mark.parametrize("n_features", [2, 4])
def test_a_packed_table_is_the_table_in_bfloat16(cpu, generator, n_features):
    table = table_for(MIXED, n_features, generator)
    assert torch.equal(ops.pack(table).view(torch.bfloat16), table.bfloat16())
    assert torch.equal(ops.pack(torch.zeros(3, 2)), torch.zeros(3, 1, dtype=torch.int32))


@pytest.mark.parametrize("n_features", [2, 4])
@pytest.mark.parametrize("n", [0, 1, 700])
def test_features_of_a_packed_table_are_those_of_the_rounded_one(cpu, generator, n_features, n):
    """But for where rounding falls: sums of 32 bits, taken in another order, differ by one unit of bfloat16 at most."""
    positions, table = torch.rand(n, 3, generator=generator), table_for(MIXED, n_features, generator)
    found = hash_grid(positions, table, **MIXED, packed=ops.pack(table))
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), hash_grid(positions, rounded(table), **MIXED), rtol=2**-7, atol=1e-6)


def test_a_packed_table_means_what_the_reference_says(cpu, generator):
    positions, table = torch.rand(300, 3, generator=generator), table_for(MIXED, 2, generator)
    cotangent, leaves = torch.randn(300, 10, generator=generator).bfloat16(), []
    for function in (hash_grid, reference.hash_grid):
        own = [x.clone().requires_grad_() for x in (positions, table)]
        out = function(*own, **MIXED, packed=ops.pack(table))
        leaves.append([out.detach().float(), *torch.autograd.grad(out, own, cotangent)])
    for ours, theirs, tolerance in zip(*leaves, (2**-7, 1e-3, 1e-5), strict=True):
        assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.detach().abs().max()))


def test_gradients_through_a_packed_table_are_those_of_the_table(cpu, generator):
    positions, table = torch.rand(500, 3, generator=generator), table_for(MIXED, 2, generator)
    cotangent = torch.randn(500, 10, generator=generator).bfloat16()
    leaves = [[x.clone().requires_grad_() for x in (positions, table)] for _ in range(2)]
    packed = hash_grid(*leaves[0], **MIXED, packed=ops.pack(table))
    plain = hash_grid(*leaves[1], **MIXED)
    for ours, theirs in zip(torch.autograd.grad(packed, leaves[0], cotangent),
                            torch.autograd.grad(plain, leaves[1], cotangent.float()), strict=True):  # fmt: skip
        assert torch.equal(ours, theirs)


def test_a_packed_table_of_another_shape_is_refused(cpu, generator):
    table = table_for(MIXED, 2, generator)
    with pytest.raises(ValueError, match="packed has to have shape"):
        hash_grid(torch.rand(5, 3), table, **MIXED, packed=ops.pack(table)[1:])
