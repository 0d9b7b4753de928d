"""The occupancy grid: which cells are worth sampling (Müller et al. 2022, appendix E).

Every cell keeps a running maximum of its density, `density_ema`; bits packed from it steer the ray marcher. Cells count
x fastest, x + R (y + R (z + R cascade)), and cascade c covers the box scaled by 2^c about its centre; under contraction one
grid covers mip-NeRF 360's contracted space [-2, 2]^3. A negative density_ema marks a cell that no camera sees.

    visited cells:  ema <- max(decay ema, density)
    occupied:       ema > min(threshold, mean of the visible cells)

There are no gradients here: the grid is bookkeeping beside the field.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real

N_PARTS = 1024  # of a sum over all cells: enough for a GPU, and few enough to add up on the host
LARGEST_NORM = 1 - 1 / 1024  # of a contracted point, over 2: infinity is pulled in to 512 half-sizes


@ti.func
def cell_coordinates(cell, resolution: ti.template()):
    """(x, y, z) and the cascade of a cell."""
    size = ti.cast(resolution, ti.u32)
    index = ti.cast(cell, ti.u32)  # without a sign, divisions by a power of two are shifts
    row = index // size
    layer = row // size
    at = ti.Vector([index % size, row % size, layer % size])
    return ti.cast(at, ti.i32), ti.cast(layer // size, ti.i32)


@ti.func
def expand(contracted):
    """The inverse of contraction, for points of [-2, 2]^3; what lies beyond the ball of radius 2 goes far out."""
    norm = contracted.norm()
    kept = ti.min(norm, real(norm, 2 * LARGEST_NORM))
    return ti.select(norm > 1, contracted / (norm * (2 - kept)), contracted)


@ti.func
def place_of(cell, offset, resolution: ti.template(), contracted: ti.template()):
    """A point of a cell, in half-sizes of the box from its centre, and the cell's scale (its cascade's, or 1)."""
    at, cascade = cell_coordinates(cell, resolution)
    scale = real(offset[0], 1) * ti.bit_cast((127 + ti.min(cascade, 127)) << 23, ti.f32)  # 2^cascade by its exponent
    place = (at + offset) * real(scale, 2 / resolution) - 1
    if ti.static(contracted):
        place = 2 * place
    else:
        place = scale * place
    return place, scale


@ti.func
def finite_or_zero(value):
    return ti.select(ti.abs(value) < real(value, 1e30), value, real(value, 0))  # a NaN compares false


@ti.kernel
def cell_positions(
    cells: ti.types.ndarray(ndim=1),  # [n_cells]
    jitter: ti.types.ndarray(ndim=2),  # [n_cells, 3]
    aabb: ti.types.ndarray(ndim=2),  # [2, 3]
    resolution: ti.template(),
    contracted: ti.template(),
    out_positions: ti.types.ndarray(ndim=2),  # [n_cells, 3]
):
    for i in range(cells.shape[0]):
        offset = ti.Vector([jitter[i, axis] for axis in ti.static(range(3))])
        place, _ = place_of(cells[i], offset, resolution, contracted)
        if ti.static(contracted):
            place = expand(place)
        low = ti.Vector([aabb[0, axis] for axis in ti.static(range(3))])
        high = ti.Vector([aabb[1, axis] for axis in ti.static(range(3))])
        place = (low + high) / 2 + (high - low) / 2 * place
        for axis in ti.static(range(3)):
            out_positions[i, axis] = place[axis]


@ti.kernel
def update_density(
    cells: ti.types.ndarray(ndim=1),  # [n_visited]
    density: ti.types.ndarray(ndim=1),  # [n_visited]
    decay: ti.types.ndarray(ndim=1),  # [1]
    before: ti.types.ndarray(ndim=1),  # [n_visited] scratch
    density_ema: ti.types.ndarray(ndim=1),  # [n_cells] in and out
):
    """Three loops, so that a cell that is visited twice decays once and takes the larger density.

    Of several visits the second loop keeps any; only those that lost to a smaller one need an atomic, in the third.
    """
    for i in range(cells.shape[0]):
        before[i] = -1  # what lies outside of the grid is left alone like an invisible cell
        if cells[i] >= 0 and cells[i] < density_ema.shape[0]:
            before[i] = density_ema[cells[i]]
    for i in range(cells.shape[0]):
        if not before[i] < 0:
            decayed = finite_or_zero(before[i]) * decay[0]
            density_ema[cells[i]] = ti.max(decayed, finite_or_zero(density[i]))
    for i in range(cells.shape[0]):
        if not before[i] < 0:
            value = finite_or_zero(density[i])
            if value > density_ema[cells[i]]:
                ti.atomic_max(density_ema[cells[i]], value)


@ti.kernel
def visible_statistics(
    density_ema: ti.types.ndarray(ndim=1),  # [n_cells]
    out_sums: ti.types.ndarray(ndim=1),  # [N_PARTS] of the finite densities of visible cells
    out_counts: ti.types.ndarray(ndim=1),  # [N_PARTS] how many these are
    out_largest: ti.types.ndarray(ndim=1),  # [N_PARTS] their maximum, or -1
):
    for part in range(out_sums.shape[0]):
        n_each = (density_ema.shape[0] + N_PARTS - 1) // N_PARTS
        total, count, largest = real(density_ema, 0), 0, real(density_ema, -1)
        for cell in range(part * n_each, ti.min((part + 1) * n_each, density_ema.shape[0])):
            value = density_ema[cell]
            known = (value >= 0) & (value < real(value, 1e30))  # without a branch, this vectorises
            total += ti.select(known, value, real(value, 0))
            count += ti.select(known, 1, 0)
            largest = ti.max(largest, ti.select(known, value, real(value, -1)))
        out_sums[part] = total
        out_counts[part] = count
        out_largest[part] = largest


@ti.kernel
def pack_occupancy(
    density_ema: ti.types.ndarray(ndim=1),  # [n_cells]
    limit: ti.types.ndarray(ndim=1),  # [1]
    out_bits: ti.types.ndarray(ndim=1),  # [n_cells / 32]
):
    """One thread a word. A cell whose density is not a number counts as occupied, so that it is sampled and mended."""
    for word in range(out_bits.shape[0]):
        bits = 0
        for i in range(32):
            value = density_ema[32 * word + i]
            bits |= ti.select((value < 0) | (value <= limit[0]), 0, 1 << i)
        out_bits[word] = bits


@ti.kernel
def mark_invisible_cells(
    density_ema: ti.types.ndarray(ndim=1),  # [n_cells]
    camera_to_worlds: ti.types.ndarray(ndim=3),  # [n_cameras, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_cameras, 4]
    image_sizes: ti.types.ndarray(ndim=2),  # [n_cameras, 2]
    aabb: ti.types.ndarray(ndim=2),  # [2, 3]
    near: ti.types.ndarray(ndim=1),  # [1]
    resolution: ti.template(),
    contracted: ti.template(),
    out_density_ema: ti.types.ndarray(ndim=1),  # [n_cells]
):
    """A cell is visible if the ball around it reaches into the frustum of a camera."""
    for cell in range(density_ema.shape[0]):
        low = ti.Vector([aabb[0, axis] for axis in ti.static(range(3))])
        high = ti.Vector([aabb[1, axis] for axis in ti.static(range(3))])
        half = (high - low) / 2
        place, scale = place_of(cell, ti.Vector([real(near, 0.5)] * 3), resolution, contracted)
        radius = half.norm() * scale * real(near, 1 / resolution)
        seen = 0
        if ti.static(contracted):
            reach = real(near, 2 * 3**0.5 / resolution)  # half the cell's diagonal, and how far that is once expanded
            outer = place.norm() + reach
            stretch = ti.select(outer > 1, 1 / (2 - outer) ** 2, real(near, 1))
            radius = half.max() * reach * stretch
            seen = ti.cast(outer >= 2 and outer - 2 * reach < 2, ti.i32)  # such a cell reaches to infinity
            place = expand(place)
        center = (low + high) / 2 + half * place
        camera = 0
        while camera < camera_to_worlds.shape[0] and seen == 0:
            at = ti.Vector([real(near, 0)] * 3)  # in the camera's own axes: right, down, forward
            for row in ti.static(range(3)):
                for axis in ti.static(range(3)):
                    at[axis] += camera_to_worlds[camera, row, axis] * (center[row] - camera_to_worlds[camera, row, 3])
            inside = at[2] >= near[0] - radius
            for axis in ti.static(range(2)):
                focal, principal = intrinsics[camera, axis], intrinsics[camera, 2 + axis]
                rest = image_sizes[camera, axis] - principal
                # Distances from the planes through the image's edges, inwards.
                before = focal * at[axis] + principal * at[2] >= -radius * ti.sqrt(focal * focal + principal * principal)
                behind = rest * at[2] - focal * at[axis] >= -radius * ti.sqrt(focal * focal + rest * rest)
                inside = inside and before and behind
            seen = ti.cast(inside, ti.i32)
            camera += 1
        value = density_ema[cell]
        out_density_ema[cell] = ti.select(seen != 0, ti.select(value < 0, real(near, 0), value), real(near, -1))


@ti.kernel
def count_bits(
    bits: ti.types.ndarray(ndim=1),  # [n_words]
    out_counts: ti.types.ndarray(ndim=1),  # [N_PARTS]
):
    for part in range(out_counts.shape[0]):
        n_each = (bits.shape[0] + N_PARTS - 1) // N_PARTS
        count = 0
        for word in range(part * n_each, ti.min((part + 1) * n_each, bits.shape[0])):
            for i in range(32):
                count += (bits[word] >> i) & 1
        out_counts[part] = count
