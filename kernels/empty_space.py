"""How far it is from the cells of a grid to the next occupied one, for rays that pass over what is empty.

The occupancy bits of `ray_marching` (32 cells along x to a word) are spread over all cells up to 1, 2, 4 and 8 away along any
axis: a cell whose bit is not set among those spread by r has nothing within r cells. Its words for the four r lie side by
side, so that one line of the cache tells all. Cascades are asked one at a time, so what a finer one covers counts as
occupied in a coarser one.
"""

import taichi as ti

REACHES = (1, 2, 4, 8)  # cells; each is made from the one before it


@ti.func
def covered(i, resolution: ti.template()):
    """The bits of word i that a finer cascade covers: the middle half of the grid along each axis."""
    n_columns = resolution // 32
    row, bits = i // n_columns, 0
    first, last = resolution // 4, 3 * resolution // 4
    y, z, cascade = row % resolution, row // resolution % resolution, row // (resolution * resolution)
    if cascade > 0 and first <= ti.min(y, z) and ti.max(y, z) < last:
        for bit in range(32):
            x = 32 * (i % n_columns) + bit
            if first <= x and x < last:
                bits |= 1 << bit
    return bits


@ti.func
def moved(before, word, after, by: ti.template()):
    """The bits of a word, and they moved to either side, where those of its neighbours come in."""
    low, middle, high = ti.cast(before, ti.u32), ti.cast(word, ti.u32), ti.cast(after, ti.u32)
    up, down = (middle << by) | (low >> (32 - by)), (middle >> by) | (high << (32 - by))
    return ti.cast(middle | up | down, ti.i32)


@ti.func
def beside(i, at, stride, by: ti.template(), resolution: ti.template()):
    """The words `by` places before and after word i along an axis on which it stands at `at`; itself where the grid ends."""
    return ti.select(at >= by, i - by * stride, i), ti.select(at + by < resolution, i + by * stride, i)


@ti.kernel
def spread_bits(
    occupancy: ti.types.ndarray(ndim=1),  # [n_words]
    resolution: ti.template(),
    scratch: ti.types.ndarray(ndim=1),  # [n_words]
    out_spread: ti.types.ndarray(ndim=2),  # [n_words, 4]
):
    for i in range(occupancy.shape[0]):
        scratch[i] = occupancy[i] | covered(i, resolution)
    for level in ti.static(range(len(REACHES))):
        by = ti.static(max(1, REACHES[level] // 2))
        for i in range(occupancy.shape[0]):  # along x
            column, n_columns = i % (resolution // 32), resolution // 32
            before, after = 0, 0
            if column > 0:
                before = scratch[i - 1]
            if column + 1 < n_columns:
                after = scratch[i + 1]
            out_spread[i, level] = moved(before, scratch[i], after, by)
        for i in range(occupancy.shape[0]):  # along y
            stride = resolution // 32
            before, after = beside(i, i // stride % resolution, stride, by, resolution)
            scratch[i] = out_spread[i, level] | out_spread[before, level] | out_spread[after, level]
        for i in range(occupancy.shape[0]):  # along z
            stride = resolution * resolution // 32
            before, after = beside(i, i // stride % resolution, stride, by, resolution)
            out_spread[i, level] = scratch[i] | scratch[before] | scratch[after]
        if ti.static(level + 1 < len(REACHES)):
            for i in range(occupancy.shape[0]):
                scratch[i] = out_spread[i, level]
