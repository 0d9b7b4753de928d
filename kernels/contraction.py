"""Gaussians of frustums where space is contracted, seen along many directions (Barron et al. 2022), with adjoint.

Space beyond the unit ball is drawn into a shell: f(x) = x for r = |x| ≤ 1, (2 - 1/r) x/r beyond. Linearised about a mean x it is

    J = a I + c x xᵀ,   a = 2/r - 1/r²,   c = 2/r⁴ - 2/r³       (inside the ball a = 1 and c = 0),   f(x) = a x

A Gaussian with variance s along the unit direction d and v across it then has, along a direction p of the basis, with q = J p,

    mean = a p·x        variance = s (d·q)² + v (q·q - (d·q)²)
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real


@ti.func
def vector_at(array: ti.template(), i):
    return ti.Vector([array[i, 0], array[i, 1], array[i, 2]])


@ti.func
def stretch_and_bend(x):
    """a, c, and their derivatives by r over r."""
    one = real(x[0], 1)
    squared = x.dot(x)
    stretch, bend, of_stretch, of_bend = one, 0 * one, 0 * one, 0 * one
    if squared > 1:
        k = 1 / ti.sqrt(squared)
        k_3 = k * k * k
        stretch = k * (2 - k)
        bend = 2 * k_3 * (k - 1)
        of_stretch = bend
        of_bend = k_3 * k * k * (6 - 8 * k)
    return stretch, bend, of_stretch, of_bend


@ti.kernel
def contract_gaussians(
    means: ti.types.ndarray(ndim=2),  # [n_points, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_points, 3]
    spreads: ti.types.ndarray(ndim=2),  # [n_points, 2]
    basis: ti.types.ndarray(ndim=2),  # [n_basis, 3]
    out_means: ti.types.ndarray(ndim=2),  # [n_points, n_basis]
    out_variances: ti.types.ndarray(ndim=2),  # [n_points, n_basis]
):
    for i in range(means.shape[0]):
        x, d = vector_at(means, i), vector_at(directions, i)
        along, across = spreads[i, 0], spreads[i, 1]
        stretch, bend, _of_stretch, _of_bend = stretch_and_bend(x)
        for k in range(basis.shape[0]):
            p = vector_at(basis, k)
            at = p.dot(x)
            q = stretch * p + bend * at * x
            cosine = d.dot(q)
            out_means[i, k] = stretch * at
            out_variances[i, k] = across * q.dot(q) + (along - across) * cosine * cosine


@ti.kernel
def contract_gaussians_adjoint(
    means: ti.types.ndarray(ndim=2),  # [n_points, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_points, 3]
    spreads: ti.types.ndarray(ndim=2),  # [n_points, 2]
    basis: ti.types.ndarray(ndim=2),  # [n_basis, 3]
    grad_means: ti.types.ndarray(ndim=2),  # [n_points, n_basis]
    grad_variances: ti.types.ndarray(ndim=2),  # [n_points, n_basis]
    out_means: ti.types.ndarray(ndim=2),  # [n_points, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [n_points, 3]
    out_spreads: ti.types.ndarray(ndim=2),  # [n_points, 2]
):
    for i in range(means.shape[0]):
        x, d = vector_at(means, i), vector_at(directions, i)
        along, across = spreads[i, 0], spreads[i, 1]
        stretch, bend, of_stretch, of_bend = stretch_and_bend(x)
        of_x, of_d = x * 0, x * 0
        of_a, of_c, of_along, of_across = along * 0, along * 0, along * 0, along * 0
        for k in range(basis.shape[0]):
            p, of_mean, of_variance = vector_at(basis, k), grad_means[i, k], grad_variances[i, k]
            at = p.dot(x)
            q = stretch * p + bend * at * x
            cosine = d.dot(q)
            of_along += of_variance * cosine * cosine
            of_across += of_variance * (q.dot(q) - cosine * cosine)
            of_d += 2 * of_variance * (along - across) * cosine * q
            of_q = 2 * of_variance * (across * q + (along - across) * cosine * d)
            of_a += of_q.dot(p) + of_mean * at
            of_c += of_q.dot(x) * at
            of_x += (bend * of_q.dot(x) + stretch * of_mean) * p + bend * at * of_q
        of_x += (of_a * of_stretch + of_c * of_bend) * x
        for j in ti.static(range(3)):
            out_means[i, j] = of_x[j]
            out_directions[i, j] = of_d[j]
        out_spreads[i, 0] = of_along
        out_spreads[i, 1] = of_across
