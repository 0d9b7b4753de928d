"""Multiresolution hash encoding (Müller et al. 2022, "Instant Neural Graphics Primitives", section 3), and its adjoints.

A position x in [0, 1]³ is looked up in n_levels grids of growing resolution. On level l

    scaled = x scale_l + 1/2      cell = floor(scaled)      fraction = scaled - cell
    out[l] = Σ over the 8 corners c of the cell of  weight_c(fraction) table[row_l(c)]

    row_l(c) = offset_l + (c_x + r c_y + r² c_z) mod size_l                              where the grid fits: "dense"
    row_l(c) = offset_l + (c_x ^ 2654435761 c_y ^ 805459861 c_z) mod size_l              elsewhere: "hashed", 32-bit wrap

`reference/hash_grid.py` computes scale, offset, size and resolution r of the levels; `levels` holds them in the order of its
columns, `scales` apart as a float. Coordinates outside [0, 1] are taken to the border and have no gradient; NaN counts as 0.

What bounds the speed on a CPU: a point reads 8 rows of each level, and a hashed level (2^19 rows of 2 floats: 4 MB) fits the
L3 cache but no L2, the whole table (46 MB) neither. So the loops go level by level over many points, and misses to memory
are made once and in order: reading a level from end to end before the random visits takes the forward of 131,072 points
from 56 ms of processor time to 38 ms; the adjoint clears its level and gets the same. With the level in L3 about 15 ns
remain for a point and level, little more than where it fits L1: arithmetic, in scalar instructions. Writing 2 floats into
every 128-byte row, level after level, would fetch each line 8 times: features therefore go to a level-major array, turned
over in blocks of points.
What is left is not ours: a fresh 46 MB gradient is 11,000 page faults, 30 ms of processor time beside 45 ms of adding.
"""

import taichi as ti

from taichi_nerf.kernels import hash_grid_cells as cells
from taichi_nerf.kernels.device_functions import lanes_of, real


@ti.func
def touch(table: ti.template(), grid):
    """Read every line of a level in order, which fetches it faster than random visits do. What is returned is >= 0.

    Callers have to do something with that, lest the compiler drops the loop.
    """
    n_positive = 0
    for line in range(grid[1] // 8):
        n_positive += ti.cast(table[grid[0] + 8 * line, 0] > 0, ti.i32)
    return n_positive


@ti.func
def encode_point(
    positions: ti.template(), table: ti.template(), i, scale, grid, is_hashed: ti.template(), n_features: ti.template(),
    out: ti.template(), row, column,
):  # fmt: skip
    cell, fraction = cells.cell_of(positions, i, scale)
    features = ti.Vector([real(positions, 0) for _ in ti.static(range(n_features))])
    for corner in ti.static(range(8)):
        entry = cells.row_of(cell, corner, grid, is_hashed)
        weight = cells.weight_of(fraction, corner)
        for f in ti.static(range(n_features)):
            features[f] += weight * table[entry, f]
    for f in ti.static(range(n_features)):
        out[row, column + f] = features[f]


@ti.func
def encode_lanes(
    positions: ti.template(), table: ti.template(), first, n_lanes, scale, grid, is_hashed: ti.template(),
    n_features: ti.template(), out: ti.template(), place,
):  # fmt: skip
    """One level's features of points first to first + n_lanes, to out[place n_features …]."""
    features = [lanes_of(real(positions, 0), cells.LANES) for _ in range(n_features)]
    for lane in range(n_lanes):
        cell, fraction = cells.cell_at(cells.position_at(positions, first + lane), scale)
        steps = cells.row_steps(cell, grid, is_hashed)
        sums = ti.Vector([real(positions, 0) for _ in ti.static(range(n_features))])
        for corner in ti.static(range(8)):
            row = cells.row_from(steps, corner, grid, is_hashed) * n_features
            weight = cells.weight_of(fraction, corner)
            for f in ti.static(range(n_features)):
                sums[f] += weight * table[row + f]
        for f in ti.static(range(n_features)):
            features[f][lane] = sums[f]
    for lane in range(n_lanes):
        for f in ti.static(range(n_features)):
            out[(place + lane) * n_features + f] = features[f][lane]


@ti.kernel
def encode(
    positions: ti.types.ndarray(ndim=1),  # [3 n]
    table: ti.types.ndarray(ndim=1),  # [n_entries * n_features]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]: offset, size, resolution, is hashed
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    n_levels: ti.template(),
    n_slices: ti.i32,
    scratch: ti.types.ndarray(ndim=1),  # [n_levels * n * n_features]
    out: ti.types.ndarray(ndim=1),  # [n * n_levels * n_features]
):
    """For CPUs: each thread takes a slice of the points through level after level. Arrays are flat, for speed."""
    for q in range(n_slices * cells.SLICE):
        if q % cells.SLICE == 0:
            n = positions.shape[0] // 3
            per_slice = (n + n_slices - 1) // n_slices
            first = q // cells.SLICE * per_slice
            end = ti.min(first + per_slice, n)
            for level in range(n_levels):
                scale, grid = scales[level], cells.grid_of(levels, level)
                if cells.TOUCHED * (end - first) >= grid[1]:  # many lines will be needed
                    n_read = cells.touch(table, grid[0] * n_features, grid[1] * n_features)
                    scratch[(level * n + first) * n_features] = n_read  # overwritten next
                for is_hashed in ti.static(range(2)):  # a loop for each kind, without a choice inside
                    if levels[level, 3] == is_hashed:
                        for group in range((end - first + cells.LANES - 1) // cells.LANES):
                            start = first + group * cells.LANES
                            n_lanes = ti.min(cells.LANES, end - start)
                            encode_lanes(
                                positions, table, start, n_lanes, scale, grid, is_hashed, n_features, scratch, level * n + start
                            )
            cells.turn_over(scratch, first, end, n, n_levels, n_features, out)


@ti.kernel
def encode_by_points(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    table: ti.types.ndarray(ndim=2),  # [n_entries, n_features]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    out: ti.types.ndarray(ndim=2),  # [n, n_levels * n_features]
):
    """For GPUs: one thread for each point and level, neighbours on the same level."""
    for task in range(positions.shape[0] * scales.shape[0]):
        level = task // positions.shape[0]
        i = task % positions.shape[0]
        scale, grid, column = scales[level], cells.grid_of(levels, level), level * n_features
        for is_hashed in ti.static(range(2)):
            if levels[level, 3] == is_hashed:
                encode_point(positions, table, i, scale, grid, is_hashed, n_features, out, i, column)


@ti.kernel
def to_level_major(
    features: ti.types.ndarray(ndim=2),  # [n, n_levels * n_features]
    n_features: ti.template(),
    out: ti.types.ndarray(ndim=2),  # [n_levels * n, n_features]
):
    for block in range((features.shape[0] + cells.BLOCK - 1) // cells.BLOCK):
        n = features.shape[0]
        for level in range(features.shape[1] // n_features):
            for i in range(block * cells.BLOCK, ti.min(block * cells.BLOCK + cells.BLOCK, n)):
                for f in ti.static(range(n_features)):
                    out[level * n + i, f] = features[i, level * n_features + f]


@ti.func
def add_to_table(
    positions: ti.template(), grad: ti.template(), first, n_lanes, place, scale, grid, is_hashed: ti.template(),
    n_features: ti.template(), first_owned, n_owned, out_table: ti.template(),
):  # fmt: skip
    """Points first to first + n_lanes of one level: where their corners are and what they weigh, then the adding."""
    rows = [lanes_of(0, cells.LANES) for _ in range(8)]
    weights = [lanes_of(real(positions, 0), cells.LANES) for _ in range(8)]
    for lane in range(n_lanes):
        cell, fraction = cells.cell_at(cells.position_at(positions, first + lane), scale)
        steps = cells.row_steps(cell, grid, is_hashed)
        for corner in ti.static(range(8)):
            rows[corner][lane] = cells.row_from(steps, corner, grid, is_hashed)
            weights[corner][lane] = cells.weight_of(fraction, corner)
    for lane in range(n_lanes):
        gradient = ti.Vector([grad[(place + lane) * n_features + f] for f in ti.static(range(n_features))])
        for corner in ti.static(range(8)):
            row, weight = rows[corner][lane], weights[corner][lane]
            if ti.cast(row - first_owned, ti.u32) < n_owned:
                for f in ti.static(range(n_features)):
                    # Spelled out, because Taichi makes `+=` on an array atomic.
                    out_table[row * n_features + f] = out_table[row * n_features + f] + weight * gradient[f]


@ti.kernel
def table_adjoint(
    positions: ti.types.ndarray(ndim=1),  # [3 n]
    grad: ti.types.ndarray(ndim=1),  # [n_levels * n * n_features], level-major
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    n_threads: ti.i32,
    n_parts: ti.i32,
    out_table: ti.types.ndarray(ndim=1),  # [n_entries * n_features]
):
    """For CPUs: every row has one owner, so nothing is atomic and every run gives the same bits. Arrays are flat, for speed.

    Thread t owns the levels t, t + n_threads, …, which deals out the cheap coarse ones evenly. Where there are n_parts times
    as many threads as levels, each owns a part of a level's rows, and leaves out what falls into the others'.
    """
    for q in range(n_threads * cells.SLICE):
        if q % cells.SLICE == 0:
            n, n_tasks = positions.shape[0] // 3, scales.shape[0] * n_parts
            for turn in range((n_tasks - q // cells.SLICE + n_threads - 1) // n_threads):
                task = q // cells.SLICE + turn * n_threads
                level, part = task // n_parts, task % n_parts
                scale, grid = scales[level], cells.grid_of(levels, level)
                n_rows = (grid[1] + n_parts - 1) // n_parts
                first = grid[0] + part * n_rows
                n_owned = ti.cast(ti.max(ti.min(n_rows, grid[1] - part * n_rows), 0), ti.u32)
                for place in range(first * n_features, (first + ti.cast(n_owned, ti.i32)) * n_features):
                    out_table[place] = 0
                for is_hashed in ti.static(range(2)):
                    if levels[level, 3] == is_hashed:
                        for group in range((n + cells.LANES - 1) // cells.LANES):
                            start = group * cells.LANES
                            add_to_table(positions, grad, start, ti.min(cells.LANES, n - start), level * n + start, scale, grid,
                                         is_hashed, n_features, first, n_owned, out_table)  # fmt: skip


@ti.kernel
def table_adjoint_atomic(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grad: ti.types.ndarray(ndim=2),  # [n, n_levels * n_features]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    out_table: ti.types.ndarray(ndim=2),  # [n_entries, n_features], added to
):
    """For GPUs: one thread for each point and level."""
    for task in range(positions.shape[0] * scales.shape[0]):
        level = task // positions.shape[0]
        i = task % positions.shape[0]
        grid = cells.grid_of(levels, level)
        cell, fraction = cells.cell_of(positions, i, scales[level])
        for corner in ti.static(range(8)):
            dense, hashed = cells.row_of(cell, corner, grid, False), cells.row_of(cell, corner, grid, True)
            entry = ti.select(levels[level, 3] != 0, hashed, dense)
            weight = cells.weight_of(fraction, corner)
            for f in ti.static(range(n_features)):
                ti.atomic_add(out_table[entry, f], weight * grad[i, level * n_features + f])


@ti.func
def mix(a, b, t):
    return a + t * (b - a)


@ti.func
def add_to_position(
    positions: ti.template(), table: ti.template(), grad: ti.template(), i, row, column, scale, grid,
    is_hashed: ti.template(), n_features: ti.template(), out_positions: ti.template(),
):  # fmt: skip
    cell, fraction = cells.cell_of(positions, i, scale)
    values = ti.Vector([real(positions, 0) for _ in ti.static(range(8))])
    for corner in ti.static(range(8)):
        entry = cells.row_of(cell, corner, grid, is_hashed)
        for f in ti.static(range(n_features)):
            values[corner] += table[entry, f] * grad[row, column + f]
    # Interpolate along one axis after another; along its own, take the difference.
    along_x = ti.Vector([values[2 * edge + 1] - values[2 * edge] for edge in ti.static(range(4))])
    at_x = ti.Vector([values[2 * edge] + fraction[0] * along_x[edge] for edge in ti.static(range(4))])
    slope_x = mix(mix(along_x[0], along_x[1], fraction[1]), mix(along_x[2], along_x[3], fraction[1]), fraction[2])
    slope_y = mix(at_x[1] - at_x[0], at_x[3] - at_x[2], fraction[2])
    slope_z = mix(at_x[2], at_x[3], fraction[1]) - mix(at_x[0], at_x[1], fraction[1])
    slope = ti.Vector([slope_x, slope_y, slope_z])
    for axis in ti.static(range(3)):
        x = positions[i, axis]
        counted = ti.select(x >= 0 and x <= 1, slope[axis] * scale, real(x, 0))
        out_positions[i, axis] = out_positions[i, axis] + counted


@ti.kernel
def positions_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    table: ti.types.ndarray(ndim=2),  # [n_entries, n_features]
    grad: ti.types.ndarray(ndim=2),  # [n_levels * n, n_features] if is_level_major, else [n, n_levels * n_features]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_features: ti.template(),
    is_level_major: ti.template(),
    n_slices: ti.i32,
    stride: ti.i32,  # SLICE on CPUs; 1 on GPUs, where every point is a slice
    out_positions: ti.types.ndarray(ndim=2),  # [n, 3]
):
    for q in range(n_slices * stride):
        if q % stride == 0:
            n = positions.shape[0]
            per_slice = (n + n_slices - 1) // n_slices
            first = q // stride * per_slice
            end = ti.min(first + per_slice, n)
            for i in range(first, end):
                for axis in ti.static(range(3)):
                    out_positions[i, axis] = 0
            for level in range(scales.shape[0]):
                scale, grid = scales[level], cells.grid_of(levels, level)
                if cells.TOUCHED * (end - first) >= grid[1]:
                    # Not behind an `and`, where a function always runs: for GPUs a whole level for every point.
                    if touch(table, grid) < 0:
                        out_positions[first, 0] = 0  # never
                row, column = 0, level * n_features
                if ti.static(is_level_major):
                    row, column = level * n, 0
                for is_hashed in ti.static(range(2)):
                    if levels[level, 3] == is_hashed:
                        for i in range(first, end):
                            add_to_position(positions, table, grad, i, row + i, column, scale, grid, is_hashed,
                                            n_features, out_positions)  # fmt: skip
