"""Rays and samples that never leave the device: what joins the kernels of the other files into one pipeline.

Arrays have room for more rays and samples than there are, because the host does not wait to learn how many: the number of rays
comes along, that of samples stands in `total` [2], on the device: those that there is room for, and those that there would be.
Rays beyond the last one are given a stretch that ends before it begins, so they take no samples anywhere.

Random numbers are a hash of a seed and a place (Jarzynski and Olano 2020, pcg): the same whatever thread asks.
Everything has 32 bits.
"""

import taichi as ti

from taichi_nerf.kernels import spherical_harmonics
from taichi_nerf.kernels.device_functions import one_minus_exp

N_PARTS = 256  # of a running sum over rays: a thread each
NOWHERE = 1e30  # behind everything
LARGEST_LOG_DENSITY = 12.0  # where density is cut off, as in `fields.hash_grid_field`


@ti.func
def hashed(word):
    state = word * ti.u32(747796405) + ti.u32(2891336453)
    mixed = ((state >> ((state >> 28) + ti.u32(4))) ^ state) * ti.u32(277803737)
    return (mixed >> 22) ^ mixed


@ti.func
def uniform(seed, place):
    """A number in [0, 1)."""
    word = hashed(hashed(ti.cast(place, ti.u32)) ^ ti.cast(seed, ti.u32))
    return ti.cast(word >> 8, ti.f32) * 2.0**-24


@ti.func
def density_of(geometry: ti.template(), i, log_density):
    return ti.exp(ti.min(geometry[i, 0] + log_density, LARGEST_LOG_DENSITY))


@ti.kernel
def begin_rays(
    n_rays: ti.i32,
    near: ti.f32,
    far: ti.f32,
    roams: ti.i32,  # near and far give way to eyes that are closer to the ball or farther
    ball: ti.types.ndarray(ndim=1),  # [4] centre and radius
    origins: ti.types.ndarray(ndim=2),  # [room, 3]
    is_random: ti.i32,
    seed: ti.i32,
    out_near: ti.types.ndarray(ndim=1),  # [room]
    out_far: ti.types.ndarray(ndim=1),  # [room]
    out_jitter: ti.types.ndarray(ndim=1),  # [room] in [0, 1), or 0
):
    for ray in range(out_near.shape[0]):
        is_there = ray < n_rays
        begin, end = near, far
        if roams != 0:
            distance = ti.Vector([origins[ray, axis] - ball[axis] for axis in ti.static(range(3))]).norm()
            begin = ti.min(ti.max(distance - ball[3], 0), near)
            end = ti.max(distance + ball[3], far)
        out_near[ray] = ti.select(is_there, begin, NOWHERE)
        out_far[ray] = ti.select(is_there, end, 0.0)
        out_jitter[ray] = ti.select(is_random != 0, uniform(seed, ray), 0.0)


@ti.kernel
def lay_out(
    room: ti.i32,  # for samples
    sums: ti.types.ndarray(ndim=1),  # [N_PARTS] to work in
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]: in, the counts; out, (first, count) that fit
    out_total: ti.types.ndarray(ndim=1),  # [2]
):
    for part in range(N_PARTS):
        per_part = (spans.shape[0] + N_PARTS - 1) // N_PARTS
        total = 0
        for ray in range(part * per_part, ti.min((part + 1) * per_part, spans.shape[0])):
            total += spans[ray, 1]
        sums[part] = total
    for part in range(N_PARTS):
        per_part = (spans.shape[0] + N_PARTS - 1) // N_PARTS
        before = 0
        for earlier in range(part):
            before += sums[earlier]
        for ray in range(part * per_part, ti.min((part + 1) * per_part, spans.shape[0])):
            first = ti.min(before, room)
            before += spans[ray, 1]
            spans[ray, 0] = first
            spans[ray, 1] = ti.min(before, room) - first
        if part == N_PARTS - 1:
            out_total[0] = ti.min(before, room)
            out_total[1] = before


@ti.kernel
def choose_visible(
    geometry: ti.types.ndarray(ndim=2),  # [room, n_geometry]
    log_density: ti.f32,
    t_starts: ti.types.ndarray(ndim=1),  # [room]
    t_ends: ti.types.ndarray(ndim=1),  # [room]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    early_stop: ti.f32,
    least_weight: ti.f32,
    chance: ti.f32,
    seed: ti.i32,
    is_first: ti.i32,  # of two marches
    out_is_visible: ti.types.ndarray(ndim=1),  # [room]
    out_spans: ti.types.ndarray(ndim=2),  # [n_rays, 2] the counts of visible samples, added up over the marches
    out_near: ti.types.ndarray(ndim=1),  # [n_rays] where a second march goes on: nowhere, if no light is left
):
    """`compositing.visible_samples`, and where light is left behind the last sample."""
    for ray in range(spans.shape[0]):
        transmittance, count = 1.0, 0
        first, n = spans[ray, 0], spans[ray, 1]
        for i in range(first, first + n):
            visible = 0
            alpha = one_minus_exp(density_of(geometry, i, log_density) * (t_ends[i] - t_starts[i]))
            if transmittance >= early_stop and (transmittance * alpha >= least_weight or uniform(seed, i) < chance):
                visible = 1
            out_is_visible[i] = visible
            count += visible
            transmittance *= 1 - alpha
        near = NOWHERE
        if n > 0 and transmittance >= early_stop:
            near = t_ends[first + n - 1]
        out_near[ray] = near
        out_spans[ray, 1] = count if is_first != 0 else out_spans[ray, 1] + count


@ti.kernel
def keep_visible(
    t_starts: ti.types.ndarray(ndim=1),  # [room] of the first march
    t_ends: ti.types.ndarray(ndim=1),  # [room]
    is_visible: ti.types.ndarray(ndim=1),  # [room]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    later_t_starts: ti.types.ndarray(ndim=1),  # [later room] of the second
    later_t_ends: ti.types.ndarray(ndim=1),  # [later room]
    later_is_visible: ti.types.ndarray(ndim=1),  # [later room]
    later_spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    kept_spans: ti.types.ndarray(ndim=2),  # [n_rays, 2] where they go
    out_t_starts: ti.types.ndarray(ndim=1),  # [kept room]
    out_t_ends: ti.types.ndarray(ndim=1),  # [kept room]
    out_ray_indices: ti.types.ndarray(ndim=1),  # [kept room]
    out_sources: ti.types.ndarray(ndim=1),  # [kept room] i of the first march, -1 - i of the second
):
    """The visible samples of both marches, ray after ray. A thread walks a ray."""
    for ray in range(spans.shape[0]):
        place, end = kept_spans[ray, 0], kept_spans[ray, 0] + kept_spans[ray, 1]
        for i in range(spans[ray, 0], spans[ray, 0] + spans[ray, 1]):
            if is_visible[i] != 0 and place < end:
                out_t_starts[place] = t_starts[i]
                out_t_ends[place] = t_ends[i]
                out_ray_indices[place] = ray
                out_sources[place] = i
                place += 1
        for i in range(later_spans[ray, 0], later_spans[ray, 0] + later_spans[ray, 1]):
            if later_is_visible[i] != 0 and place < end:
                out_t_starts[place] = later_t_starts[i]
                out_t_ends[place] = later_t_ends[i]
                out_ray_indices[place] = ray
                out_sources[place] = -1 - i
                place += 1


@ti.kernel
def look_closer(
    total: ti.types.ndarray(ndim=1),  # [2] samples that were kept
    sources: ti.types.ndarray(ndim=1),  # [kept room]
    features: ti.types.ndarray(ndim=2),  # [room, n_encoded]
    geometry: ti.types.ndarray(ndim=2),  # [room, n_geometry]
    later_features: ti.types.ndarray(ndim=2),  # [later room, n_encoded]
    later_geometry: ti.types.ndarray(ndim=2),  # [later room, n_geometry]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    ray_indices: ti.types.ndarray(ndim=1),  # [kept room]
    log_density: ti.f32,
    degree: ti.template(),
    out_features: ti.types.ndarray(ndim=2),  # [kept room, n_encoded]
    out_geometry: ti.types.ndarray(ndim=2),  # [kept room, n_geometry]
    out_inputs: ti.types.ndarray(ndim=2),  # [kept room, n_geometry + (degree + 1)²] of the color network
    out_density: ti.types.ndarray(ndim=1),  # [kept room]
):
    """What the first look found, and the directions that the color network sees it from."""
    for i in range(total[0]):
        source, n_geometry = sources[i], geometry.shape[1]
        if source >= 0:
            for column in range(features.shape[1]):
                out_features[i, column] = features[source, column]
            for column in range(n_geometry):
                out_geometry[i, column] = geometry[source, column]
        else:
            for column in range(features.shape[1]):
                out_features[i, column] = later_features[-1 - source, column]
            for column in range(n_geometry):
                out_geometry[i, column] = later_geometry[-1 - source, column]
        for column in range(n_geometry):
            out_inputs[i, column] = out_geometry[i, column]
        ray = ray_indices[i]
        spherical_harmonics.write_harmonics(
            directions[ray, 0], directions[ray, 1], directions[ray, 2], degree, out_inputs, i, n_geometry
        )
        out_density[i] = density_of(out_geometry, i, log_density)


@ti.kernel
def look_closer_adjoint(
    total: ti.types.ndarray(ndim=1),  # [2]
    density: ti.types.ndarray(ndim=1),  # [kept room]
    grad_density: ti.types.ndarray(ndim=1),  # [kept room]
    grad_inputs: ti.types.ndarray(ndim=2),  # [kept room, n_geometry + n_harmonics]
    out_geometry: ti.types.ndarray(ndim=2),  # [kept room, n_geometry]
):
    """The gradient of the density network's outputs; where density is cut off it goes on as at the border."""
    for i in range(total[0]):
        for column in range(out_geometry.shape[1]):
            out_geometry[i, column] = grad_inputs[i, column]
        out_geometry[i, 0] = out_geometry[i, 0] + grad_density[i] * density[i]
