"""Where rays are inside a box or a sphere, and the adjoints.

Box: the ray is between the two planes of an axis for t from (entered face - o) / d to (left face - o) / d, and inside the
box where all three intervals overlap (slabs, Kay and Kajiya 1986). The sign of d tells which face is entered, so a box with
min > max is empty. A ray parallel to an axis is between its planes always or never; nothing is divided by zero.

Sphere around the origin: t = m ± sqrt((radius² - |o + m d|²) / |d|²) with m = -o·d / |d|², the nearest point to the centre.
Measured from there, a far origin costs no digits.

The interval is cut to [near, far]. Without an overlap it is [near, near]: empty, and finite where far is not.
"""

import math

import taichi as ti

from taichi_nerf.kernels.device_functions import real


@ti.func
def box_interval(origins: ti.template(), directions: ti.template(), box: ti.template(), ray):
    """t_enter with its axis, t_leave with its axis, and whether the ray meets the box. Axis -1: bounded by no plane.

    Selects, not branches: which axis bounds is a coin toss that processors cannot predict.
    """
    t_enter, t_leave = -real(origins, math.inf), real(origins, math.inf)
    enters, leaves = -1, -1
    meets = True
    for axis in ti.static(range(3)):
        o, d = origins[ray, axis], directions[ray, axis]
        low, high = box[0, axis] - o, box[1, axis] - o
        parallel = d == 0
        divisor = ti.select(parallel, 1, d)
        enter = ti.select(parallel, -real(origins, math.inf), ti.select(d > 0, low, high) / divisor)
        leave = ti.select(parallel, real(origins, math.inf), ti.select(d > 0, high, low) / divisor)
        meets &= (not parallel) | ((low <= 0) & (high >= 0))
        enters, leaves = ti.select(enter > t_enter, axis, enters), ti.select(leave < t_leave, axis, leaves)
        t_enter, t_leave = ti.max(t_enter, enter), ti.min(t_leave, leave)
    return t_enter, enters, t_leave, leaves, meets


@ti.kernel
def intersect_boxes(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    box: ti.types.ndarray(ndim=2),  # [2, 3]
    near: ti.f32,
    far: ti.f32,
    out_near: ti.types.ndarray(ndim=1),  # [n_rays]
    out_far: ti.types.ndarray(ndim=1),  # [n_rays]
):
    for ray in range(origins.shape[0]):
        t_enter, _, t_leave, _, meets = box_interval(origins, directions, box, ray)
        t_near, t_far = ti.max(t_enter, near), ti.min(t_leave, far)
        hits = meets & (t_near < t_far)
        out_near[ray] = ti.select(hits, t_near, near)
        out_far[ray] = ti.select(hits, t_far, near)


@ti.kernel
def intersect_boxes_adjoint(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    box: ti.types.ndarray(ndim=2),  # [2, 3]
    near: ti.f32,
    far: ti.f32,
    grad_near: ti.types.ndarray(ndim=1),  # [n_rays]
    grad_far: ti.types.ndarray(ndim=1),  # [n_rays]
    out_origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
):
    """t = (face - o) / d on the bounding axis, so ∂t/∂o = -1/d and ∂t/∂d = -t/d; an end that is cut does not move."""
    for ray in range(origins.shape[0]):
        t_enter, enters, t_leave, leaves, meets = box_interval(origins, directions, box, ray)
        hits = meets & (ti.max(t_enter, near) < ti.min(t_leave, far))
        of_enter = ti.select(hits & (t_enter >= near), grad_near[ray], 0)
        of_leave = ti.select(hits & (t_leave <= far), grad_far[ray], 0)
        for axis in ti.static(range(3)):
            d = directions[ray, axis]
            slope = -1 / ti.select(d == 0, 1, d)
            by_enter, by_leave = of_enter * slope, of_leave * slope
            out_origins[ray, axis] = ti.select(enters == axis, by_enter, 0) + ti.select(leaves == axis, by_leave, 0)
            out_directions[ray, axis] = ti.select(enters == axis, by_enter * t_enter, 0) + ti.select(
                leaves == axis, by_leave * t_leave, 0
            )


@ti.func
def sphere_interval(o, d, radius: ti.template()):
    """t_enter, t_leave, and whether the ray meets the sphere."""
    squared = d.dot(d)
    middle = -o.dot(d) / squared
    nearest = o + middle * d
    half_squared = (real(squared, radius * radius) - nearest.dot(nearest)) / squared
    half = ti.sqrt(ti.max(half_squared, 0))
    return middle - half, middle + half, half_squared > 0


@ti.func
def row_of(array: ti.template(), row):
    return ti.Vector([array[row, 0], array[row, 1], array[row, 2]])


@ti.kernel
def intersect_sphere(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    radius: ti.template(),
    near: ti.f32,
    far: ti.f32,
    out_near: ti.types.ndarray(ndim=1),  # [n_rays]
    out_far: ti.types.ndarray(ndim=1),  # [n_rays]
):
    for ray in range(origins.shape[0]):
        t_enter, t_leave, meets = sphere_interval(row_of(origins, ray), row_of(directions, ray), radius)
        t_near, t_far = ti.max(t_enter, near), ti.min(t_leave, far)
        hits = meets & (t_near < t_far)
        out_near[ray] = ti.select(hits, t_near, near)
        out_far[ray] = ti.select(hits, t_far, near)


@ti.kernel
def intersect_sphere_adjoint(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    radius: ti.template(),
    near: ti.f32,
    far: ti.f32,
    grad_near: ti.types.ndarray(ndim=1),  # [n_rays]
    grad_far: ti.types.ndarray(ndim=1),  # [n_rays]
    out_origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
):
    """|x|² = radius² at x = o + t d, so dt = -x·(do + t dd) / (x·d); an end that is cut does not move."""
    for ray in range(origins.shape[0]):
        o, d = row_of(origins, ray), row_of(directions, ray)
        t_enter, t_leave, meets = sphere_interval(o, d, radius)
        hits = meets & (ti.max(t_enter, near) < ti.min(t_leave, far))
        # A direction of zero has no t: what it misses has to be zero, not zero times NaN.
        t_enter, t_leave = ti.select(hits, t_enter, 0), ti.select(hits, t_leave, 0)
        x_enter, x_leave = o + t_enter * d, o + t_leave * d
        of_enter = ti.select(hits & (t_enter >= near), -grad_near[ray] / x_enter.dot(d), 0)
        of_leave = ti.select(hits & (t_leave <= far), -grad_far[ray] / x_leave.dot(d), 0)
        for axis in ti.static(range(3)):
            out_origins[ray, axis] = of_enter * x_enter[axis] + of_leave * x_leave[axis]
            out_directions[ray, axis] = of_enter * t_enter * x_enter[axis] + of_leave * t_leave * x_leave[axis]
