"""Cells of a multiresolution hash grid: which rows of the table a point reads, and with which weights.

The formulas stand in `hash_grid`, whose kernels use these functions, as do those of `hash_grid_packed`.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real

# Taichi cuts an outermost loop into pieces of at least 512 iterations, one per thread. `n_slices * 512` iterations, all but
# every 512th idle, therefore give each slice of the work a thread of its own.
SLICE = 512
TOUCHED = 64  # rows for each point up to which a level is read from end to end first, which is faster than random visits
LINE = 16  # words of a line of cache
BLOCK = 64  # points turned over at a time between the layouts: their rows stay in L1
LANES = 64  # points in a loop over lanes; the compiler unrolls much shorter ones, instead of doing several points at once


@ti.func
def inside(x):
    return ti.select(x >= 0, ti.min(x, 1), real(x, 0))  # a NaN fails the comparison


@ti.func
def cell_at(position, scale):
    """The cell that holds a point, and where in it: truncation is floor, as nothing is negative."""
    scaled = ti.Vector([inside(position[axis]) * scale + real(scale, 0.5) for axis in ti.static(range(3))])
    cell = ti.cast(scaled, ti.i32)
    return cell, scaled - cell


@ti.func
def position_at(positions: ti.template(), i):
    """Point i of a flat array [3 n]."""
    return ti.Vector([positions[3 * i + axis] for axis in ti.static(range(3))])


@ti.func
def cell_of(positions: ti.template(), i, scale):
    """The same for point i of an array [n, 3]."""
    return cell_at([positions[i, axis] for axis in ti.static(range(3))], scale)


@ti.func
def row_steps(cell, grid, is_hashed: ti.template()):
    """What each axis adds to the row of a corner, on its low and on its high side. `grid` is (offset, size, resolution)."""
    factors = ti.Vector([ti.u32(1), ti.cast(grid[2], ti.u32), ti.cast(grid[2] * grid[2], ti.u32)])
    if ti.static(is_hashed):
        factors = ti.Vector([ti.u32(1), ti.u32(2654435761), ti.u32(805459861)])
    low = ti.Vector([ti.cast(cell[axis], ti.u32) * factors[axis] for axis in ti.static(range(3))])
    return low, low + factors


@ti.func
def row_from(steps: ti.template(), corner: ti.template(), grid, is_hashed: ti.template()):
    """The table row of a corner; bit `axis` of `corner` tells its side."""
    x, y, z = [steps[corner >> axis & 1][axis] for axis in ti.static(range(3))]
    size = ti.cast(grid[1], ti.u32)
    row = ti.u32(0)
    if ti.static(is_hashed):
        row = (x ^ y ^ z) & (size - 1)  # size is a power of two
    else:
        row = x + y + z
        row = ti.min(row, row - size)  # mod size, as row < 2 size: the difference wraps to something huge where row < size
    return grid[0] + ti.cast(row, ti.i32)


@ti.func
def row_of(cell, corner: ti.template(), grid, is_hashed: ti.template()):
    steps = row_steps(cell, grid, is_hashed)
    return row_from(steps, corner, grid, is_hashed)


@ti.func
def weight_of(fraction, corner: ti.template()):
    weight = real(fraction[0], 1)
    for axis in ti.static(range(3)):
        weight *= fraction[axis] if ti.static(corner >> axis & 1) else 1 - fraction[axis]
    return weight


@ti.func
def touch(table: ti.template(), first, n_words):
    """Read every line of a part of a flat array in order, which fetches it faster than random visits do. How many are not zero.

    Callers have to do something with that, lest the compiler drops the loop.
    """
    n_read = 0
    for line in range(n_words // LINE):
        n_read += ti.cast(table[first + line * LINE] != 0, ti.i32)
    return n_read


@ti.func
def turn_over(levels_first: ti.template(), first, end, n, n_levels, width: ti.template(), out: ti.template()):
    """Points first to end of n from [n_levels, n, width] to [n, n_levels, width], in blocks whose rows stay in L1."""
    for block in range((end - first + BLOCK - 1) // BLOCK):
        start = first + block * BLOCK
        for level in range(n_levels):
            for i in range(start, ti.min(start + BLOCK, end)):
                for k in ti.static(range(width)):
                    out[(i * n_levels + level) * width + k] = levels_first[(level * n + i) * width + k]


@ti.func
def grid_of(levels: ti.template(), level):
    return ti.Vector([levels[level, column] for column in ti.static(range(3))])
