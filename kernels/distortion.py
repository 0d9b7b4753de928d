"""The distortion loss of mip-NeRF 360 (Barron et al. 2022, equation 15) in linear time, and its adjoint.

For the samples of one ray, sorted, with weights w, midpoints m and widths δ:

    loss = Σ_i Σ_j w_i w_j |m_i - m_j| + 1/3 Σ_i w_i² δ_i

Sorted midpoints turn the double sum into two running ones (Sun et al. 2022, DVGOv2):

    W_i = Σ_{j<i} w_j      D_i = Σ_{j<i} w_j (m_i - m_j) = D_{i-1} + W_i (m_i - m_{i-1})
    loss = Σ_i w_i (2 D_i + w_i δ_i / 3)

Only gaps between neighbours enter, never m itself, so a scene far from the origin of t loses no digits: the textbook
form m_i W_i - Σ_{j<i} w_j m_j cancels there. A gap is built from starts and ends, whose differences are exact between
close neighbours, where a midpoint would first be rounded.

One thread walks one ray. Samples that no span covers get zero gradients from a first loop.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real


@ti.kernel
def distortion_loss(
    weights: ti.types.ndarray(ndim=1),  # [n_samples]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    out_loss: ti.types.ndarray(ndim=1),  # [n_rays]
):
    for ray in range(spans.shape[0]):
        loss = real(weights, 0)
        before = real(weights, 0)  # W
        distance = real(weights, 0)  # D
        last_start = real(weights, 0)  # any number does for the first sample: nothing lies before it
        last_end = real(weights, 0)
        first = spans[ray, 0]
        for i in range(first, first + spans[ray, 1]):
            weight = weights[i]
            t_start = t_starts[i]
            t_end = t_ends[i]
            distance += before * ((t_start - last_start) + (t_end - last_end)) / 2
            loss += weight * (2 * distance + weight * (t_end - t_start) / 3)
            before += weight
            last_start = t_start
            last_end = t_end
        out_loss[ray] = loss


@ti.kernel
def distortion_loss_adjoint(
    weights: ti.types.ndarray(ndim=1),  # [n_samples]
    t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
    spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    grad_loss: ti.types.ndarray(ndim=1),  # [n_rays]
    out_weights: ti.types.ndarray(ndim=1),  # [n_samples]
    out_t_starts: ti.types.ndarray(ndim=1),  # [n_samples]
    out_t_ends: ti.types.ndarray(ndim=1),  # [n_samples]
):
    """∂/∂w_i = 2 Σ_j w_j |m_i - m_j| + 2/3 w_i δ_i and ∂/∂m_i = 2 w_i (Σ_{j<i} w_j - Σ_{j>i} w_j).

    The sums over j < i come from a walk down the ray, those over j > i from a walk back.
    """
    for i in range(weights.shape[0]):
        out_weights[i] = 0
        out_t_starts[i] = 0
        out_t_ends[i] = 0
    for ray in range(spans.shape[0]):
        first = spans[ray, 0]
        n = spans[ray, 1]
        before = real(weights, 0)
        distance = real(weights, 0)
        last_start = real(weights, 0)
        last_end = real(weights, 0)
        for i in range(first, first + n):
            distance += before * ((t_starts[i] - last_start) + (t_ends[i] - last_end)) / 2
            out_weights[i] = distance  # both kept here until the walk back needs them
            out_t_ends[i] = before
            before += weights[i]
            last_start = t_starts[i]
            last_end = t_ends[i]
        behind = real(weights, 0)
        distance_back = real(weights, 0)
        for k in range(n):
            i = first + n - 1 - k
            weight = weights[i]
            t_start = t_starts[i]
            t_end = t_ends[i]
            distance_back += behind * ((last_start - t_start) + (last_end - t_end)) / 2
            of_midpoint = grad_loss[ray] * weight * (out_t_ends[i] - behind)  # half of it: each end moves m by half
            of_width = grad_loss[ray] * weight * weight / 3
            out_weights[i] = 2 * grad_loss[ray] * (out_weights[i] + distance_back + weight * (t_end - t_start) / 3)
            out_t_starts[i] = of_midpoint - of_width
            out_t_ends[i] = of_midpoint + of_width
            behind += weight
            last_start = t_start
            last_end = t_end
