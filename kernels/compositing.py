"""Volume rendering along rays (Max 1995; Mildenhall et al. 2020, equation 3), and its adjoint.

Sample i of a ray covers [t_starts, t_ends], δ = t_end - t_start:

    α_i = 1 - exp(-σ_i δ_i)      T_i = Π_{j<i} (1 - α_j)      w_i = T_i α_i
    color = Σ w_i c_i + (1 - Σ w_i) background      opacity = Σ w_i      depth = Σ w_i (t_start + t_end) / 2

A ray ends before the first sample with T_i < early_stop; the weights behind it are zero.
The background's weight 1 - Σ w is the transmittance that is left, which keeps its digits where the subtraction loses them.

One thread walks one ray, so nothing is atomic and the result does not depend on the schedule. Samples that no span covers
get zeros from a first loop: on copying backends an array that is only written arrives without its old contents.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import one_minus_exp, real


@ti.kernel
def composite_rays(
    density: ti.types.ndarray(ndim=1),  # [n_samples]
    color: ti.types.ndarray(ndim=2),  # [n_samples, n_channels]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    background: ti.types.ndarray(ndim=2),  # [n_rays, n_channels]
    early_stop: ti.f32,
    out_color: ti.types.ndarray(ndim=2),  # [n_rays, n_channels]
    out_opacity: ti.types.ndarray(ndim=1),  # [n_rays]
    out_depth: ti.types.ndarray(ndim=1),  # [n_rays]
    out_weights: ti.types.ndarray(ndim=1),  # [n_samples]
):
    for i in range(density.shape[0]):
        out_weights[i] = 0
    for ray in range(spans.shape[0]):
        for channel in range(color.shape[1]):
            out_color[ray, channel] = 0
        transmittance = real(density, 1)
        opacity = real(density, 0)
        depth = real(density, 0)
        first = spans[ray, 0]
        for i in range(first, first + spans[ray, 1]):
            weight = real(density, 0)
            if transmittance >= early_stop:
                alpha = one_minus_exp(density[i] * (t_ends[i] - t_starts[i]))
                weight = transmittance * alpha
                transmittance *= 1 - alpha
                opacity += weight
                depth += weight * (t_starts[i] + t_ends[i]) / 2
                for channel in range(color.shape[1]):
                    out_color[ray, channel] += weight * color[i, channel]
            out_weights[i] = weight
        for channel in range(color.shape[1]):
            out_color[ray, channel] += transmittance * background[ray, channel]
        out_opacity[ray] = opacity
        out_depth[ray] = depth


@ti.kernel
def composite_rays_adjoint(
    density: ti.types.ndarray(ndim=1),  # [n_samples]
    color: ti.types.ndarray(ndim=2),  # [n_samples, n_channels]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    background: ti.types.ndarray(ndim=2),  # [n_rays, n_channels]
    weights: ti.types.ndarray(ndim=1),  # [n_samples]
    early_stop: ti.f32,
    grad_color: ti.types.ndarray(ndim=2),  # [n_rays, n_channels]
    grad_opacity: ti.types.ndarray(ndim=1),  # [n_rays]
    grad_depth: ti.types.ndarray(ndim=1),  # [n_rays]
    grad_weights: ti.types.ndarray(ndim=1),  # [n_samples]
    out_density: ti.types.ndarray(ndim=1),  # [n_samples]
    out_color: ti.types.ndarray(ndim=2),  # [n_samples, n_channels]
    out_t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    out_t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    out_background: ti.types.ndarray(ndim=2),  # [n_rays, n_channels]
):
    """With g_i = ∂L/∂w_i gathered from every output, ∂L/∂(σ_i δ_i) = T_{i+1} g_i - Σ_{j>i} w_j g_j."""
    for i in range(density.shape[0]):
        out_density[i] = 0
        out_t_starts[i] = 0
        out_t_ends[i] = 0
        for channel in range(color.shape[1]):
            out_color[i, channel] = 0
    for ray in range(spans.shape[0]):
        first = spans[ray, 0]
        end = first + spans[ray, 1]
        of_opacity = grad_opacity[ray]
        for channel in range(color.shape[1]):
            of_opacity -= grad_color[ray, channel] * background[ray, channel]
        transmittance = real(density, 1)
        for i in range(first, end):
            left = real(density, 0)  # T_{i+1}, or nothing behind the end of the ray
            if transmittance >= early_stop:
                transmittance *= 1 - one_minus_exp(density[i] * (t_ends[i] - t_starts[i]))
                left = transmittance
            out_t_ends[i] = left  # kept here until the walk back needs it
        # Back to front: a sum from which terms are taken off again leaves a rounding error, which δ = 1e10 would magnify.
        behind = real(density, 0)  # Σ_{j>i} w_j g_j
        for k in range(spans[ray, 1]):
            i = end - 1 - k
            of_weight = of_opacity + grad_weights[i] + grad_depth[ray] * (t_starts[i] + t_ends[i]) / 2
            for channel in range(color.shape[1]):
                of_weight += grad_color[ray, channel] * color[i, channel]
                out_color[i, channel] = weights[i] * grad_color[ray, channel]
            of_optical_depth = out_t_ends[i] * of_weight - behind
            behind += weights[i] * of_weight
            of_midpoint = weights[i] * grad_depth[ray] / 2
            out_density[i] = of_optical_depth * (t_ends[i] - t_starts[i])
            out_t_starts[i] = of_midpoint - of_optical_depth * density[i]
            out_t_ends[i] = of_midpoint + of_optical_depth * density[i]
        for channel in range(color.shape[1]):
            out_background[ray, channel] = transmittance * grad_color[ray, channel]


@ti.kernel
def visible_samples(
    density: ti.types.ndarray(ndim=1),  # [n_samples]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    draws: ti.types.ndarray(ndim=1),  # [n_samples] in [0, 1)
    limits: ti.types.ndarray(ndim=1),  # [3]: early_stop, least_weight, chance
    out_is_visible: ti.types.ndarray(ndim=1),  # [n_samples] 0 or 1
    out_counts: ti.types.ndarray(ndim=1),  # [n_rays]
):
    for i in range(density.shape[0]):
        out_is_visible[i] = 0
    for ray in range(spans.shape[0]):
        early_stop, least_weight, chance = limits[0], limits[1], limits[2]
        transmittance = real(density, 1)
        count = 0
        first = spans[ray, 0]
        for i in range(first, first + spans[ray, 1]):
            if transmittance >= early_stop:
                alpha = one_minus_exp(density[i] * (t_ends[i] - t_starts[i]))
                if transmittance * alpha >= least_weight or draws[i] < chance:
                    out_is_visible[i] = 1
                    count += 1
                transmittance *= 1 - alpha
        out_counts[ray] = count
