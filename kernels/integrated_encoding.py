"""mip-NeRF's conical frustums as Gaussians and the expected sines and cosines over them (Barron et al. 2021), with adjoints.

A cone of radius r t around o + t d, between t_start = μ - h and t_end = μ + h, has the moments (equation 7, whose form in μ
and h keeps its digits for thin frustums; here with s = h² / (3μ² + h²))

    t_mean = μ (1 + 2s)    t_var = h² (1/3 - 4s(4 - 5s)/15)    r_var = r² (μ²/4 + h² (5/12 - 4s/15))

and a cylinder of radius r has μ, h²/3 and r²/4. In space, with N = |d|² (equation 8, diagonal only):

    means = o + t_mean d        variances_j = t_var d_j² + r_var (N - d_j²) / N

Under N(mean, variance) the sine of y = 2^l x averages to sin(2^l mean) e^{-4^l variance / 2}, the cosine alike (equation 14).
Columns: all sines, frequency after frequency with the coordinates innermost, then all cosines.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import (
    is_double,
    lanes_of,
    quarter_turns,
    real,
    sincos_of_quarter_turns,
)


@ti.func
def squared_length(d):
    return ti.max(d.dot(d), real(d[0], 1e-30))  # a direction of zeros gives zeros, not NaN


@ti.func
def moments(t_start, t_end, cone: ti.template()):
    """t_mean, t_var and r_var / r²."""
    center, half = (t_start + t_end) / 2, (t_end - t_start) / 2
    t_mean, t_var, r_var = center, half * half / 3, real(center, 0.25)
    if ti.static(cone):
        half_2 = half * half
        s = half_2 / ti.max(3 * center * center + half_2, real(center, 1e-30))
        t_mean = center * (1 + 2 * s)
        t_var = half_2 * (5 - 4 * s * (4 - 5 * s)) / 15
        r_var = center * center / 4 + half_2 * (25 - 16 * s) / 60
    return t_mean, t_var, r_var


@ti.func
def moments_adjoint(t_start, t_end, of_mean, of_t_var, of_r_var, cone: ti.template()):
    """Gradients of t_start and t_end from those of the three moments."""
    center, half = (t_start + t_end) / 2, (t_end - t_start) / 2
    of_center, of_half = of_mean, of_t_var * 2 * half / 3
    if ti.static(cone):
        half_2 = half * half
        whole = ti.max(3 * center * center + half_2, real(center, 1e-30))
        s = half_2 / whole
        of_s = of_mean * 2 * center - (of_t_var * (16 - 40 * s) + of_r_var * 4) * half_2 / 15
        of_center = of_mean * (1 + 2 * s) + of_r_var * center / 2 - of_s * 6 * center * s / whole
        of_half = (of_t_var * (10 - 8 * s * (4 - 5 * s)) / 15 + of_r_var * (25 - 16 * s) / 30) * half
        of_half += of_s * 2 * half * (1 - s) / whole
    return (of_center - of_half) / 2, (of_center + of_half) / 2


@ti.kernel
def frustum_gaussians(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    radii: ti.types.ndarray(ndim=1),  # [n_rays]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    ray_indices: ti.types.ndarray(ndim=1),  # [n_samples]
    cone: ti.template(),
    out_means: ti.types.ndarray(ndim=2),  # [n_samples, 3]
    out_variances: ti.types.ndarray(ndim=2),  # [n_samples, 3]
):
    for i in range(t_starts.shape[0]):
        ray = ray_indices[i]
        d = ti.Vector([directions[ray, 0], directions[ray, 1], directions[ray, 2]])
        n = squared_length(d)
        t_mean, t_var, r_var = moments(t_starts[i], t_ends[i], cone)
        r_var *= radii[ray] * radii[ray]
        for j in ti.static(range(3)):
            out_means[i, j] = origins[ray, j] + t_mean * d[j]
            out_variances[i, j] = t_var * d[j] * d[j] + r_var * (n - d[j] * d[j]) / n


@ti.kernel
def frustum_gaussians_adjoint(
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    radii: ti.types.ndarray(ndim=1),  # [n_rays]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    grad_means: ti.types.ndarray(ndim=2),  # [n_samples, 3]
    grad_variances: ti.types.ndarray(ndim=2),  # [n_samples, 3]
    cone: ti.template(),
    out_origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_radii: ti.types.ndarray(ndim=1),  # [n_rays]
    out_t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    out_t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
):
    """One thread walks a ray and sums what its samples owe the ray. Samples outside every span get zeros."""
    for i in range(t_starts.shape[0]):
        out_t_starts[i] = 0
        out_t_ends[i] = 0
    for ray in range(spans.shape[0]):
        d = ti.Vector([directions[ray, 0], directions[ray, 1], directions[ray, 2]])
        d_2, radius = d * d, radii[ray]
        n = squared_length(d)
        of_origin, of_direction, of_radius = d * 0, d * 0, radius * 0
        for i in range(spans[ray, 0], spans[ray, 0] + spans[ray, 1]):
            of_means = ti.Vector([grad_means[i, 0], grad_means[i, 1], grad_means[i, 2]])
            of_variances = ti.Vector([grad_variances[i, 0], grad_variances[i, 1], grad_variances[i, 2]])
            t_mean, t_var, r_var = moments(t_starts[i], t_ends[i], cone)
            along = of_variances.dot(d_2)
            across = of_variances.sum() - along / n
            of_origin += of_means
            of_direction += t_mean * of_means + 2 * t_var * d * of_variances
            of_direction += radius * radius * r_var * 2 / n * d * (along / n - of_variances)
            of_radius += 2 * radius * r_var * across
            of_r_var = radius * radius * across
            of_t_start, of_t_end = moments_adjoint(t_starts[i], t_ends[i], of_means.dot(d), along, of_r_var, cone)
            out_t_starts[i] = of_t_start
            out_t_ends[i] = of_t_end
        for j in ti.static(range(3)):
            out_origins[ray, j] = of_origin[j]
            out_directions[ray, j] = of_direction[j]
        out_radii[ray] = of_radius


@ti.func
def damping(x):
    """e^{-x}, and 0 from x = 80: numbers below 1e-38 would make what follows a hundred times as slow.

    In 32 bits by 2^-n times a polynomial (Cephes), to 1e-7 on every backend.
    """
    bounded = ti.max(ti.min(x, real(x, 80)), real(x, -80))  # rounding may have made a variance negative
    result = bounded
    if ti.static(is_double(x)):
        result = ti.exp(-bounded)
    else:
        n = ti.floor(bounded * 1.4426950408889634 + 0.5)
        r = n * 0.6931471805599453 - bounded
        p = 1.6666665459e-1 + r * (4.1665795894e-2 + r * (8.3334519073e-3 + r * (1.3981999507e-3 + r * 1.9875691500e-4)))
        power = ti.bit_cast((127 - ti.cast(n, ti.i32)) << 23, ti.f32)
        result = (1 + r + r * r * (5.0000001201e-1 + r * p)) * power
    return ti.select(x >= 80, real(x, 0), result)


@ti.kernel
def encode_gaussians(
    means: ti.types.ndarray(ndim=2),  # [n_points, n_coordinates]
    variances: ti.types.ndarray(ndim=2),  # [n_points, n_coordinates]
    n_frequencies: ti.i32,
    n_lanes: ti.template(),
    n_parts: ti.i32,
    out: ti.types.ndarray(ndim=2),  # [n_points, 2 * n_coordinates * n_frequencies]
):
    """Work is shared out as in `frequency_encoding.py`, which also explains the angles in two words."""
    for block, part in ti.ndrange((means.shape[0] + n_lanes - 1) // n_lanes, n_parts):
        for c in range(means.shape[1]):
            zero = real(means, 0)
            high, low, exponent = lanes_of(zero, n_lanes), lanes_of(zero, n_lanes), lanes_of(zero, n_lanes)
            for lane in range(n_lanes):
                i = ti.min(block * n_lanes + lane, means.shape[0] - 1)
                high[lane] = means[i, c]
                exponent[lane] = variances[i, c] * (1 << 2 * part) / 2
            for lane in range(n_lanes):
                turns, rest = quarter_turns(high[lane])
                high[lane], low[lane] = turns * (1 << part), rest * (1 << part)
            column = means.shape[1] * part + c
            for _step in range(n_frequencies // n_parts):
                sines, cosines = lanes_of(zero, n_lanes), lanes_of(zero, n_lanes)
                for lane in range(n_lanes):
                    sine, cosine = sincos_of_quarter_turns(high[lane], low[lane])
                    weight = damping(exponent[lane])
                    sines[lane], cosines[lane] = weight * sine, weight * cosine
                    high[lane], low[lane] = high[lane] * (1 << n_parts), low[lane] * (1 << n_parts)
                    exponent[lane] = exponent[lane] * (1 << n_parts) * (1 << n_parts)
                for lane in range(n_lanes):
                    i = ti.min(block * n_lanes + lane, means.shape[0] - 1)
                    out[i, column] = sines[lane]
                    out[i, column + means.shape[1] * n_frequencies] = cosines[lane]
                column += means.shape[1] * n_parts


@ti.kernel
def encode_gaussians_adjoint(
    out: ti.types.ndarray(ndim=2),  # [n_points, 2 * n_coordinates * n_frequencies]
    grad_out: ti.types.ndarray(ndim=2),  # [n_points, 2 * n_coordinates * n_frequencies]
    n_frequencies: ti.i32,
    out_means: ti.types.ndarray(ndim=2),  # [n_points, n_coordinates]
    out_variances: ti.types.ndarray(ndim=2),  # [n_points, n_coordinates]
):
    """The encoding holds its own derivatives: 2^l times the partner's value, and -4^l / 2 times the value itself."""
    n_coordinates = out_means.shape[1]
    for i, c in ti.ndrange(out_means.shape[0], n_coordinates):
        of_mean, of_variance = real(out, 0), real(out, 0)
        for l in range(n_frequencies):  # noqa: E741 - the paper's letter
            column = n_coordinates * l + c
            sine, cosine = out[i, column], out[i, column + n_coordinates * n_frequencies]
            of_sine, of_cosine = grad_out[i, column], grad_out[i, column + n_coordinates * n_frequencies]
            of_mean += (1 << l) * (cosine * of_sine - sine * of_cosine)
            of_variance -= (1 << 2 * l) * (sine * of_sine + cosine * of_cosine) / 2
        out_means[i, c] = of_mean
        out_variances[i, c] = of_variance
