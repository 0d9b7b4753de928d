"""The hash encoding with a table of bfloat16, two features to a 32-bit word: half the memory to visit.

What limits the encoding on a CPU is memory: a level of 2^17 rows of two floats is as large as a core's L2 cache, in 16 bits it is
half of it. Sums are 32-bit, and what comes out is rounded to the bfloat16 that the networks multiply. The table that training
changes stays in 32 bits; `pack` rounds it after each step. Rounding has slope one: the adjoint is that of `hash_grid`.
"""

import taichi as ti

from taichi_nerf.kernels import hash_grid_cells as cells
from taichi_nerf.kernels.device_functions import lanes_of


@ti.func
def rounded(x):
    """The 16 bits of the nearest bfloat16, of two equally near the even one. Of finite numbers."""
    bits = ti.bit_cast(x, ti.u32)
    return (bits + ti.u32(0x7FFF) + (bits >> 16 & 1)) >> 16


@ti.func
def pair(low, high):
    return ti.bit_cast(rounded(low) | rounded(high) << 16, ti.i32)


@ti.func
def low_of(word):
    return ti.bit_cast(word << 16, ti.f32)


@ti.func
def high_of(word):
    return ti.bit_cast(word & ti.i32(-65536), ti.f32)


@ti.kernel
def pack(
    table: ti.types.ndarray(ndim=1),  # [2 n]
    out: ti.types.ndarray(ndim=1),  # [n]
):
    for group in range((out.shape[0] + cells.LANES - 1) // cells.LANES):
        words, first = lanes_of(0, cells.LANES), group * cells.LANES
        n_lanes = ti.min(cells.LANES, out.shape[0] - first)
        for lane in range(n_lanes):
            words[lane] = pair(table[2 * (first + lane)], table[2 * (first + lane) + 1])
        for lane in range(n_lanes):
            out[first + lane] = words[lane]


@ti.func
def encode_lanes(
    positions: ti.template(), table: ti.template(), first, n_lanes, scale, grid, is_hashed: ti.template(), n_words: ti.template(),
    scratch: ti.template(), place,
):  # fmt: skip
    """One level's features of points first to first + n_lanes, to scratch[place n_words …]."""
    words = [lanes_of(0, cells.LANES) for _ in range(n_words)]
    for lane in range(n_lanes):
        i = first + lane
        cell, fraction = cells.cell_at(cells.position_at(positions, i), scale)
        steps = cells.row_steps(cell, grid, is_hashed)
        features = ti.Vector([0.0 for _ in ti.static(range(2 * n_words))])
        for corner in ti.static(range(8)):
            row = cells.row_from(steps, corner, grid, is_hashed) * n_words
            weight = cells.weight_of(fraction, corner)
            for word in ti.static(range(n_words)):
                both = table[row + word]
                features[2 * word] += weight * low_of(both)
                features[2 * word + 1] += weight * high_of(both)
        for word in ti.static(range(n_words)):
            words[word][lane] = pair(features[2 * word], features[2 * word + 1])
    for lane in range(n_lanes):
        for word in ti.static(range(n_words)):
            scratch[(place + lane) * n_words + word] = words[word][lane]


@ti.kernel
def encode(
    positions: ti.types.ndarray(ndim=1),  # [3 n]
    table: ti.types.ndarray(ndim=1),  # [n_entries * n_words]
    levels: ti.types.ndarray(ndim=2),  # [n_levels, 4]: offset, size, resolution, is hashed
    scales: ti.types.ndarray(ndim=1),  # [n_levels]
    n_words: ti.template(),  # of a row
    n_levels: ti.template(),
    n_slices: ti.i32,
    scratch: ti.types.ndarray(ndim=1),  # [n_levels * n * n_words]
    out: ti.types.ndarray(ndim=1),  # [n * n_levels * n_words]
):
    """Each thread takes a slice of the points through level after level. Flat arrays: an index is one sum, no product."""
    for q in range(n_slices * cells.SLICE):
        if q % cells.SLICE == 0:
            n = positions.shape[0] // 3
            per_slice = (n + n_slices - 1) // n_slices
            first = q // cells.SLICE * per_slice
            end = ti.min(first + per_slice, n)
            for level in range(n_levels):
                scale, grid = scales[level], cells.grid_of(levels, level)
                if cells.TOUCHED * (end - first) >= grid[1]:
                    n_read = cells.touch(table, grid[0] * n_words, grid[1] * n_words)
                    scratch[(level * n + first) * n_words] = n_read  # overwritten next
                for is_hashed in ti.static(range(2)):  # a loop for each kind, without a choice inside
                    if levels[level, 3] == is_hashed:
                        for group in range((end - first + cells.LANES - 1) // cells.LANES):
                            start = first + group * cells.LANES
                            n_lanes = ti.min(cells.LANES, end - start)
                            encode_lanes(
                                positions, table, start, n_lanes, scale, grid, is_hashed, n_words, scratch, level * n + start
                            )
            cells.turn_over(scratch, first, end, n, n_levels, n_words, out)


@ti.kernel
def to_level_major(
    features: ti.types.ndarray(ndim=2),  # [n, n_levels * n_words]
    n_words: ti.template(),
    out: ti.types.ndarray(ndim=2),  # [n_levels * n, 2 * n_words] in 32 bits each
):
    for block in range((features.shape[0] + cells.BLOCK - 1) // cells.BLOCK):
        n = features.shape[0]
        for level in range(features.shape[1] // n_words):
            for i in range(block * cells.BLOCK, ti.min(block * cells.BLOCK + cells.BLOCK, n)):
                for word in ti.static(range(n_words)):
                    both = features[i, level * n_words + word]
                    out[level * n + i, 2 * word] = low_of(both)
                    out[level * n + i, 2 * word + 1] = high_of(both)
