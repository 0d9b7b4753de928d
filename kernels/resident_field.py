"""The hash grid along rays and in the cells of the occupancy grid, without an array of positions between.

    x = origin + direction (t_start + t_end) / 2      u = unit(x)      features(u) as in `kernels/hash_grid.py`

unit(x) takes the box, or contracted space (mip-NeRF 360, equation 10), to [0, 1]^3. Of the samples there are `total[0]`.

The occupancy grid (`kernels/occupancy_grid.py` tells the rules) is visited in runs of neighbouring cells, one of each, so no cell
comes twice and nothing is atomic.
"""

import taichi as ti

from taichi_nerf.kernels import hash_grid_cells as cells
from taichi_nerf.kernels import occupancy_grid, resident_rays


@ti.func
def unit_position(position, box: ti.template(), contracted: ti.template()):
    low = ti.Vector([box[0, axis] for axis in ti.static(range(3))])
    high = ti.Vector([box[1, axis] for axis in ti.static(range(3))])
    scaled = (position - (low + high) / 2) / ((high - low) / 2)
    unit = scaled / 2 + 0.5
    if ti.static(contracted):
        radius = ti.max(scaled.norm(), 1.0)
        unit = scaled * ((2 - 1 / radius) / radius / 4) + 0.5
    return unit


@ti.func
def sample_at(
    i, origins: ti.template(), directions: ti.template(), t_starts: ti.template(), t_ends: ti.template(),
    ray_indices: ti.template(), box: ti.template(), contracted: ti.template(),
):  # fmt: skip
    ray, middle = ray_indices[i], (t_starts[i] + t_ends[i]) / 2
    position = ti.Vector([origins[ray, axis] + directions[ray, axis] * middle for axis in ti.static(range(3))])
    return unit_position(position, box, contracted)


@ti.kernel
def encode_samples(
    total: ti.types.ndarray(ndim=1),  # [2]
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    t_starts: ti.types.ndarray(ndim=1),  # [room]
    t_ends: ti.types.ndarray(ndim=1),  # [room]
    ray_indices: ti.types.ndarray(ndim=1),  # [room]
    box: ti.types.ndarray(ndim=2),  # [2, 3]
    contracted: ti.template(),
    table: ti.types.ndarray(ndim=2),  # [n_entries, n_features]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    out: ti.types.ndarray(ndim=2),  # [room, n_levels * n_features]
):
    """One thread for each sample and level, neighbours on the same level."""
    for task in range(total[0] * scales.shape[0]):
        level, i = task // total[0], task % total[0]
        unit = sample_at(i, origins, directions, t_starts, t_ends, ray_indices, box, contracted)
        grid = cells.grid_of(levels, level)
        cell, fraction = cells.cell_at(unit, scales[level])
        features = ti.Vector([0.0] * n_features)
        for is_hashed in ti.static(range(2)):
            if levels[level, 3] == is_hashed:
                for corner in ti.static(range(8)):
                    entry = cells.row_of(cell, corner, grid, is_hashed)
                    weight = cells.weight_of(fraction, corner)
                    for f in ti.static(range(n_features)):
                        features[f] += weight * table[entry, f]
        for f in ti.static(range(n_features)):
            out[i, level * n_features + f] = features[f]


@ti.kernel
def encode_samples_adjoint(
    total: ti.types.ndarray(ndim=1),  # [2]
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    t_starts: ti.types.ndarray(ndim=1),  # [room]
    t_ends: ti.types.ndarray(ndim=1),  # [room]
    ray_indices: ti.types.ndarray(ndim=1),  # [room]
    box: ti.types.ndarray(ndim=2),  # [2, 3]
    contracted: ti.template(),
    grad: ti.types.ndarray(ndim=2),  # [room, n_levels * n_features]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    out_table: ti.types.ndarray(ndim=2),  # [n_entries, n_features], added to
):
    for task in range(total[0] * scales.shape[0]):
        level, i = task // total[0], task % total[0]
        unit = sample_at(i, origins, directions, t_starts, t_ends, ray_indices, box, contracted)
        grid = cells.grid_of(levels, level)
        cell, fraction = cells.cell_at(unit, scales[level])
        for corner in ti.static(range(8)):
            dense, hashed = cells.row_of(cell, corner, grid, False), cells.row_of(cell, corner, grid, True)
            entry = ti.select(levels[level, 3] != 0, hashed, dense)
            weight = cells.weight_of(fraction, corner)
            for f in ti.static(range(n_features)):
                ti.atomic_add(out_table[entry, f], weight * grad[i, level * n_features + f])


@ti.func
def cell_of_run(i, run_length, seed, n_cells):
    """A cell of the i-th run of neighbours."""
    shift = ti.min(ti.cast(resident_rays.uniform(seed, 4 * i) * run_length, ti.i32), run_length - 1)
    return ti.min(i * run_length + shift, n_cells - 1)


@ti.kernel
def visit_cells(
    first: ti.i32,  # number of the first run
    n: ti.i32,  # visits
    run_length: ti.i32,  # cells
    seed: ti.i32,
    n_cells: ti.i32,
    resolution: ti.template(),
    contracted: ti.template(),
    box: ti.types.ndarray(ndim=2),  # [2, 3]
    out_positions: ti.types.ndarray(ndim=2),  # [room, 3] a random place in each cell, in the unit cube
):
    for k in range(n):
        i = first + k
        offset = ti.Vector([resident_rays.uniform(seed, 4 * i + 1 + axis) for axis in ti.static(range(3))])
        cell = cell_of_run(i, run_length, seed, n_cells)
        place, _ = occupancy_grid.place_of(cell, offset, resolution, contracted)
        if ti.static(contracted):
            place = occupancy_grid.expand(place)
        low = ti.Vector([box[0, axis] for axis in ti.static(range(3))])
        high = ti.Vector([box[1, axis] for axis in ti.static(range(3))])
        unit = unit_position((low + high) / 2 + (high - low) / 2 * place, box, contracted)
        for axis in ti.static(range(3)):
            out_positions[k, axis] = unit[axis]


@ti.kernel
def learn_cells(
    first: ti.i32,
    n: ti.i32,
    run_length: ti.i32,
    seed: ti.i32,  # that of the visit
    geometry: ti.types.ndarray(ndim=2),  # [room, n_geometry]
    log_density: ti.f32,
    step: ti.f32,  # whose optical thickness is remembered
    decay: ti.f32,
    rise: ti.f32,
    thickness: ti.types.ndarray(ndim=1),  # [n_cells] in and out
    least_density: ti.types.ndarray(ndim=1),  # [n_cells] in and out
):
    for k in range(n):
        cell = cell_of_run(first + k, run_length, seed, thickness.shape[0])
        met = occupancy_grid.finite_or_zero(resident_rays.density_of(geometry, k, log_density))
        if not thickness[cell] < 0:
            decayed = occupancy_grid.finite_or_zero(thickness[cell]) * decay
            thickness[cell] = ti.max(decayed, met * step)
        least_density[cell] = ti.min(met, rise * least_density[cell] + 0.5)


@ti.kernel
def occupancy_limit(
    sums: ti.types.ndarray(ndim=1),  # [N_PARTS] from occupancy_grid.visible_statistics
    counts: ti.types.ndarray(ndim=1),  # [N_PARTS]
    largest: ti.types.ndarray(ndim=1),  # [N_PARTS]
    threshold: ti.f32,
    out_limit: ti.types.ndarray(ndim=1),  # [1]
):
    """min(threshold, mean), or below everything where that would leave no cell occupied."""
    for _ in range(1):
        total, count, most = 0.0, 0, -1.0
        for part in range(sums.shape[0]):
            total += sums[part]
            count += counts[part]
            most = ti.max(most, largest[part])
        limit = ti.min(total / ti.max(count, 1), threshold)
        out_limit[0] = ti.select(most > limit, limit, -1.0)


@ti.func
def is_finite(x):
    """By its exponent: a compiler that takes all numbers for finite, as Metal's does, would answer a comparison beforehand."""
    return (ti.bit_cast(x, ti.i32) & 0x7F800000) != 0x7F800000


@ti.kernel
def find_not_finite(
    a: ti.types.ndarray(ndim=1),  # gradients
    b: ti.types.ndarray(ndim=1),
    out: ti.types.ndarray(ndim=1),  # [1] 0 if all of them are finite, else 1
):
    """Of the networks' gradients: one that is no number anywhere in a step makes some of these none.

    Who finds one writes, and all write the same. A sum would have every thread wait its turn at one address.
    """
    for _ in range(1):
        out[0] = 0.0
    for i in range(a.shape[0]):
        if not is_finite(a[i]):
            out[0] = 1.0
    for i in range(b.shape[0]):
        if not is_finite(b[i]):
            out[0] = 1.0
