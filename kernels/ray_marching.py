"""Marching rays through an occupancy grid (Müller et al. 2022, appendix E), and the sample midpoints with their adjoint.

In goes a ray's part [t_near, t_far) and the grid's bits; out come the intervals of a lattice whose midpoints lie in
occupied cells. Boundary k of the lattice is t = T(k + jitter), k an integer, where

    dT/du = clamp(T log(1 + cone_angle), step_size, max_step),    T(0) = 0

so T is linear, then geometric (each step is cone_angle times its start), then linear again, and has an inverse in closed
form. The integer always advances, so no rounding can make a ray hang, and neighbours share their boundary exactly.

Cells count x fastest: x + R (y + R (z + R cascade)), 32 along x to a word. Cascade c covers the box scaled by 2^c about its
centre; the finest cascade around a point is asked. Under contraction one grid covers [-2, 2]^3, what mip-NeRF 360
(Barron et al. 2022, equation 10) maps all space to. A cell answers for all midpoints before the ray leaves it, an empty one
for as many cells around it as `empty_space` knows to be empty too: that is merely faster, the samples are those of asking for
every lattice index.

A ray may also end where no light is left: with `dimming`, every sample adds its length times the least density of its cell to
an optical thickness, and the ray ends with the sample that takes it past `most_thickness`. What lies behind an opaque surface
is never marched through, which is four of five samples of a solid object.

One loop serves twice: on GPUs it first counts, then (`write`) fills the span that the count got. Should two compilations
round differently, the second never leaves its span and fills what is missing with empty intervals. A thread of a CPU takes
many rays, one after the other, and writes at once.
"""

import taichi as ti

from taichi_nerf.kernels import empty_space
from taichi_nerf.kernels.device_functions import real

SLICE = 512  # iterations of an outermost loop that Taichi gives to one thread
MOST_INDICES = 1 << 24  # beyond, 32-bit floats cannot tell lattice indices apart
MOST_CONTRACTED_STEPS = 1 << 16  # contracted space has no far end
FACE_MARGIN = 0.01  # of a cell: more than rounding moves a point, unless its ray comes from 10^5 cells away

# The numbers that describe the lattice, in one array: below BENT_INDEX linear, up to STRAIGHT_INDEX geometric.
STEP_SIZE, STEPS_PER_T, GROWTH, BENT_T, BENT_INDEX, STRAIGHT_T, STRAIGHT_INDEX, MAX_STEP = range(8)


@ti.func
def t_of_index(index, lattice, growing: ti.template()):
    """T: where the lattice coordinate `index`, a real number, lies along the ray."""
    t = lattice[STEP_SIZE] * index
    if ti.static(growing):
        if index > lattice[STRAIGHT_INDEX]:
            t = lattice[STRAIGHT_T] + lattice[MAX_STEP] * (index - lattice[STRAIGHT_INDEX])
        elif index > lattice[BENT_INDEX]:
            t = lattice[BENT_T] * ti.exp(lattice[GROWTH] * (index - lattice[BENT_INDEX]))
    return t


@ti.func
def index_of_t(t, lattice, growing: ti.template()):
    """The inverse of T."""
    index = t * lattice[STEPS_PER_T]
    if ti.static(growing):
        if t > lattice[STRAIGHT_T]:
            index = lattice[STRAIGHT_INDEX] + (t - lattice[STRAIGHT_T]) / lattice[MAX_STEP]
        elif t > lattice[BENT_T]:
            index = lattice[BENT_INDEX] + ti.log(t / lattice[BENT_T]) / lattice[GROWTH]
    return index


@ti.func
def last_index_before(t, jitter, lattice, growing: ti.template()):
    """An index whose interval has its midpoint before t, for certain, and is the last such but for rounding.

    A midpoint lies up to GROWTH / 8 of a step behind T(k + jitter + 1/2), for T bends upwards.
    """
    index = index_of_t(t, lattice, growing) - jitter - real(t, 0.5)
    slack = real(t, 1e-3) + lattice[GROWTH] / 8 + ti.abs(index) * real(t, 1e-6)
    return ti.cast(ti.floor(index - slack), ti.i32)


@ti.func
def clip_to_grid(near, far, origin, direction, n_cascades):
    """The part of [near, far] inside the outermost cascade, a little enlarged; far < near if there is none."""
    bound = real(near, 1.001)
    for _ in range(n_cascades - 1):
        bound *= 2
    for axis in ti.static(range(3)):
        if direction[axis] != 0:
            first = (-bound - origin[axis]) / direction[axis]
            second = (bound - origin[axis]) / direction[axis]
            near = ti.max(near, ti.min(first, second))
            far = ti.min(far, ti.max(first, second))
        elif ti.abs(origin[axis]) > bound:
            far = near - 1
    return near, far


@ti.func
def contract(position, norm):
    """mip-NeRF 360: the ball of radius 1 stays, the rest of space becomes the shell up to radius 2."""
    return ti.select(norm > 1, (2 - 1 / norm) / norm, real(norm, 1)) * position


@ti.func
def leave_box(cell, clear, scale, origin, direction, inverse, resolution: ti.template()):
    """Where the ray leaves `cell` and the `clear` cells to each side of it, or the grid, less a margin."""
    leave = real(scale, 1e30)
    margin = real(scale, FACE_MARGIN)
    for axis in ti.static(range(3)):
        low, high = ti.max(cell[axis] - clear, 0), ti.min(cell[axis] + 1 + clear, resolution)
        face = ti.select(direction[axis] > 0, high - margin, low + margin)
        t = ((face * real(scale, 2 / resolution) - 1) * scale - origin[axis]) * inverse[axis]
        leave = ti.min(leave, ti.select(direction[axis] != 0, t, leave))
    return leave


@ti.func
def leave_contracted(cell, clear, place, t, position, norm, direction, resolution: ti.template()):
    """A t up to which the contracted ray stays within `cell` and the `clear` cells to each side of it.

    At radius r > 1 contraction shrinks lengths to (2r - 1) / r^2 or less, and less the farther out.
    """
    clearance = real(t, 1e30)
    for axis in ti.static(range(3)):
        inside = place[axis] - cell[axis]
        clearance = ti.min(clearance, inside, 1 - inside)
    clearance = ti.max(clearance + clear - real(t, FACE_MARGIN), real(t, 0)) * real(t, 4 / resolution)
    speed = ti.max(direction.norm(), real(t, 1e-20))
    outward = position.dot(direction) / speed
    nearest = norm
    if outward < 0:
        nearest = ti.sqrt(ti.max(norm * norm - outward * outward, real(t, 0)))
    shrinking = ti.select(nearest > 1, (2 * nearest - 1) / (nearest * nearest), real(t, 1))
    return t + clearance / (speed * shrinking)


@ti.func
def look_up(
    t,
    origin,
    direction,
    inverse,
    occupancy: ti.template(),
    spread: ti.template(),
    n_cascades,
    resolution: ti.template(),
    contracted: ti.template(),
):
    """Whether the cell at t is occupied, until which t the answer holds for certain, and the cell's number."""
    position = origin + direction * t  # half-sizes of the box away from its centre
    scale, shrink, cascade = real(t, 1), real(t, 1), 0
    norm = real(t, 0)
    mapped = position
    if ti.static(contracted):
        norm = position.norm()
        mapped = contract(position, norm) / 2
    reach = ti.max(ti.abs(mapped[0]), ti.abs(mapped[1]), ti.abs(mapped[2]))
    for _ in range(n_cascades - 1):
        if reach >= scale:
            scale *= 2
            shrink /= 2
            cascade += 1
    occupied, leave, number = 0, t, 0
    if reach < scale:
        place = (mapped * shrink + 1) * (resolution // 2)
        cell = ti.min(ti.cast(ti.floor(place), ti.i32), resolution - 1)
        row = cell[1] + resolution * (cell[2] + resolution * cascade)
        number = cell[0] + resolution * row
        word, bit = number >> 5, cell[0] & 31
        occupied = (occupancy[word] >> bit) & 1
        clear = 0  # cells around this one, along any axis, that are empty for certain
        if occupied == 0:
            for level in ti.static(range(len(empty_space.REACHES))):
                clear = ti.select((spread[word, level] >> bit) & 1 == 0, empty_space.REACHES[level], clear)
        if ti.static(contracted):
            leave = leave_contracted(cell, clear, place, t, position, norm, direction, resolution)
        else:
            leave = leave_box(cell, clear, scale, origin, direction, inverse, resolution)
    return occupied, leave, number


@ti.func
def walk(
    ray, origins: ti.template(), directions: ti.template(), t_near: ti.template(), t_far: ti.template(),
    jitter: ti.template(), occupancy: ti.template(), spread: ti.template(), aabb: ti.template(),
    lattice_numbers: ti.template(), least_density: ti.template(), most_thickness, n_cascades, resolution: ti.template(),
    growing: ti.template(), contracted: ti.template(), dimming: ti.template(), known: ti.template(), write: ti.template(),
    beginning, first, most, out_t_starts: ti.template(), out_t_ends: ti.template(), out_ray_indices: ti.template(),
):  # fmt: skip
    """March along a ray until `most` samples are found; `write` them from place `first` on.

    `known`: the first sample has the index `beginning`, from an earlier walk. Returns that index, the number found, and where
    the march ends.
    """
    lattice = ti.Vector([lattice_numbers[i] for i in ti.static(range(8))])
    low = ti.Vector([aabb[0, axis] for axis in ti.static(range(3))])
    high = ti.Vector([aabb[1, axis] for axis in ti.static(range(3))])
    center, half = (low + high) / 2, (high - low) / 2
    origin = (ti.Vector([origins[ray, axis] for axis in ti.static(range(3))]) - center) / half
    direction = ti.Vector([directions[ray, axis] for axis in ti.static(range(3))]) / half
    inverse = 1 / direction
    shift = jitter[ray]
    farthest = t_of_index(real(lattice[0], MOST_INDICES), lattice, growing)
    near, far = ti.max(t_near[ray], -lattice[STEP_SIZE] * MOST_INDICES), ti.min(t_far[ray], farthest)
    if ti.static(not contracted):
        near, far = clip_to_grid(near, far, origin, direction, n_cascades)
    k, last = 1, 0
    # A NaN fails every comparison, so a ray that holds one stops here.
    if ti.abs(origin.sum() + direction.sum() + shift) < real(shift, 1e30) and t_near[ray] < t_far[ray] and near <= far:
        k = last_index_before(near, shift, lattice, growing)
        last = last_index_before(far, shift, lattice, growing) + 2
        if ti.static(contracted):
            last = ti.min(last, k + MOST_CONTRACTED_STEPS)
    begins, found = k, 0
    if ti.static(known):
        k = beginning
    thickness = real(shift, 0)
    while k <= last and found < most and not thickness > most_thickness:
        middle = (t_of_index(k + shift, lattice, growing) + t_of_index(k + 1 + shift, lattice, growing)) / 2
        until = k
        if middle >= t_near[ray] and middle < t_far[ray]:
            occupied, leave, cell = look_up(
                middle, origin, direction, inverse, occupancy, spread, n_cascades, resolution, contracted
            )
            until = ti.max(k, ti.min(last, last_index_before(ti.min(leave, far), shift, lattice, growing)))
            if occupied != 0:
                if found == 0:
                    begins = k
                t_end = t_of_index(k + shift, lattice, growing)
                density = real(shift, 0)
                if ti.static(dimming):
                    density = least_density[cell]
                for i in range(k, ti.min(until, k + most - found - 1) + 1):
                    t_start = t_end
                    t_end = t_of_index(i + 1 + shift, lattice, growing)
                    if (t_start + t_end) / 2 < t_far[ray] and not thickness > most_thickness:
                        if ti.static(write):
                            out_t_starts[first + found] = t_start
                            out_t_ends[first + found] = t_end
                            out_ray_indices[first + found] = ray
                        found += 1
                        thickness += density * (t_end - t_start)
        k = until + 1
    return begins, found, far


@ti.kernel
def march_rays(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    t_near: ti.types.ndarray(ndim=1),  # [n_rays]
    t_far: ti.types.ndarray(ndim=1),  # [n_rays]
    jitter: ti.types.ndarray(ndim=1),  # [n_rays]
    occupancy: ti.types.ndarray(ndim=1),  # [n_words]
    spread: ti.types.ndarray(ndim=2),  # [n_words, 4] by `empty_space.spread_bits`
    aabb: ti.types.ndarray(ndim=2),  # [2, 3]
    lattice_numbers: ti.types.ndarray(ndim=1),  # [8]
    least_density: ti.types.ndarray(ndim=1),  # [n_cells], if dimming
    most_thickness: ti.f32,
    max_samples_per_ray: ti.i32,
    n_cascades: ti.i32,
    resolution: ti.template(),
    growing: ti.template(),
    contracted: ti.template(),
    dimming: ti.template(),
    write: ti.template(),
    beginnings: ti.types.ndarray(ndim=1),  # [n_rays] each ray's first index, written by the count, read by the write
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2] likewise: first (0 in the count), count
    out_t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    out_t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    out_ray_indices: ti.types.ndarray(ndim=1),  # [n_samples]
):
    """For GPUs, and where the room is given: count, then `write` what was counted; the write stops where the count did."""
    if ti.static(write):
        for i in range(out_t_starts.shape[0]):
            if i >= spans[spans.shape[0] - 1, 0] + spans[spans.shape[0] - 1, 1]:  # room that is left
                out_t_starts[i] = 0
                out_t_ends[i] = 0
                out_ray_indices[i] = 0
    for ray in range(origins.shape[0]):
        beginning, first, most = 0, 0, max_samples_per_ray
        if ti.static(write):
            beginning, first, most = beginnings[ray], spans[ray, 0], spans[ray, 1]
        begins, found, far = walk(
            ray, origins, directions, t_near, t_far, jitter, occupancy, spread, aabb, lattice_numbers, least_density,
            most_thickness, n_cascades, resolution, growing, contracted, dimming and not write, write, write,
            beginning, first, most, out_t_starts, out_t_ends, out_ray_indices,
        )  # fmt: skip
        if ti.static(write):
            for i in range(first + found, first + most):
                out_t_starts[i] = far
                out_t_ends[i] = far
                out_ray_indices[i] = ray
        else:
            beginnings[ray] = begins
            spans[ray, 0] = 0
            spans[ray, 1] = found


@ti.kernel
def march_slices(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    t_near: ti.types.ndarray(ndim=1),  # [n_rays]
    t_far: ti.types.ndarray(ndim=1),  # [n_rays]
    jitter: ti.types.ndarray(ndim=1),  # [n_rays]
    occupancy: ti.types.ndarray(ndim=1),  # [n_words]
    spread: ti.types.ndarray(ndim=2),  # [n_words, 4] by `empty_space.spread_bits`
    aabb: ti.types.ndarray(ndim=2),  # [2, 3]
    lattice_numbers: ti.types.ndarray(ndim=1),  # [8]
    least_density: ti.types.ndarray(ndim=1),  # [n_cells], if dimming
    most_thickness: ti.f32,
    max_samples_per_ray: ti.i32,
    n_cascades: ti.i32,
    resolution: ti.template(),
    growing: ti.template(),
    contracted: ti.template(),
    dimming: ti.template(),
    n_slices: ti.i32,
    room: ti.i32,  # for the samples of a slice
    counts: ti.types.ndarray(ndim=1),  # [n_rays] samples
    totals: ti.types.ndarray(ndim=1),  # [n_slices]; room + 1 where a ray had no room for all that it may have
    out_t_starts: ti.types.ndarray(ndim=1),  # [n_slices * room]
    out_t_ends: ti.types.ndarray(ndim=1),  # [n_slices * room]
    out_ray_indices: ti.types.ndarray(ndim=1),  # [n_slices * room]
):
    """For CPUs, which need not count first: a thread writes the samples of a slice of the rays one after the other."""
    for q in range(n_slices * SLICE):
        if q % SLICE == 0:
            n_rays, slice_index = origins.shape[0], q // SLICE
            per_slice = (n_rays + n_slices - 1) // n_slices
            total = 0
            for ray in range(slice_index * per_slice, ti.min((slice_index + 1) * per_slice, n_rays)):
                found = 0
                if total + max_samples_per_ray <= room:
                    _, found, _ = walk(
                        ray, origins, directions, t_near, t_far, jitter, occupancy, spread, aabb, lattice_numbers, least_density,
                        most_thickness, n_cascades, resolution, growing, contracted, dimming, False, True, 0,
                        slice_index * room + total, max_samples_per_ray, out_t_starts, out_t_ends, out_ray_indices,
                    )  # fmt: skip
                    total += found
                else:
                    total = room + 1
                counts[ray] = found
            totals[slice_index] = total


@ti.kernel
def join_slices(
    n_slices: ti.i32,
    room: ti.i32,
    counts: ti.types.ndarray(ndim=1),  # [n_rays]
    totals: ti.types.ndarray(ndim=1),  # [n_slices]
    t_starts: ti.types.ndarray(ndim=1),  # [n_slices * room]
    t_ends: ti.types.ndarray(ndim=1),  # [n_slices * room]
    ray_indices: ti.types.ndarray(ndim=1),  # [n_slices * room]
    out_spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    out_t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    out_t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    out_ray_indices: ti.types.ndarray(ndim=1),  # [n_samples]
):
    """What `march_slices` found, one slice behind the other."""
    for q in range(n_slices * SLICE):
        if q % SLICE == 0:
            n_rays, slice_index = counts.shape[0], q // SLICE
            per_slice = (n_rays + n_slices - 1) // n_slices
            first = 0
            for earlier in range(slice_index):
                first += totals[earlier]
            for i in range(totals[slice_index]):
                out_t_starts[first + i] = t_starts[slice_index * room + i]
                out_t_ends[first + i] = t_ends[slice_index * room + i]
                out_ray_indices[first + i] = ray_indices[slice_index * room + i]
            for ray in range(slice_index * per_slice, ti.min((slice_index + 1) * per_slice, n_rays)):
                out_spans[ray, 0] = first
                out_spans[ray, 1] = counts[ray]
                first += counts[ray]


@ti.kernel
def sample_positions(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    ray_indices: ti.types.ndarray(ndim=1),  # [n_samples]
    out_positions: ti.types.ndarray(ndim=2),  # [n_samples, 3]
):
    for i in range(t_starts.shape[0]):
        ray = ray_indices[i]
        middle = (t_starts[i] + t_ends[i]) / 2
        for axis in ti.static(range(3)):
            out_positions[i, axis] = origins[ray, axis] + directions[ray, axis] * middle


@ti.kernel
def sample_positions_adjoint_rays(
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    grad_positions: ti.types.ndarray(ndim=2),  # [n_samples, 3]
    out_origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
):
    """One thread adds up a ray's samples."""
    for ray in range(spans.shape[0]):
        of_origin, of_direction = ti.Vector([real(t_starts, 0)] * 3), ti.Vector([real(t_starts, 0)] * 3)
        for i in range(spans[ray, 0], spans[ray, 0] + spans[ray, 1]):
            middle = (t_starts[i] + t_ends[i]) / 2
            for axis in ti.static(range(3)):
                of_origin[axis] += grad_positions[i, axis]
                of_direction[axis] += middle * grad_positions[i, axis]
        for axis in ti.static(range(3)):
            out_origins[ray, axis] = of_origin[axis]
            out_directions[ray, axis] = of_direction[axis]


@ti.kernel
def sample_positions_adjoint_t(
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    ray_indices: ti.types.ndarray(ndim=1),  # [n_samples]
    grad_positions: ti.types.ndarray(ndim=2),  # [n_samples, 3]
    out_t: ti.types.ndarray(ndim=1),  # [n_samples] of t_starts, and of t_ends
):
    for i in range(out_t.shape[0]):
        dot = real(out_t, 0)
        for axis in ti.static(range(3)):
            dot += grad_positions[i, axis] * directions[ray_indices[i], axis]
        out_t[i] = dot / 2
