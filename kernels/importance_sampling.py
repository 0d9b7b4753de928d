"""Where to sample rays: more where a histogram of weights is high (Mildenhall et al. 2020, section 5.2).

`importance_sample` inverts a cumulative distribution. Bin j of a ray covers [edge_j, edge_{j+1}] and has the mass
m_j = weight_j + padding, spread evenly over it. With C_j = Σ_{i<j} m_i and M the sum of all, the sample for u in [0, 1] is

    t = edge_j + (edge_{j+1} - edge_j) (u M - C_j) / (C_{j+1} - C_j)      where C_j <= u M < C_{j+1}

Because u ascends, one walk along bins and samples together finds every j: no search and no buffer for C. The walk adds
up the masses in the order in which M was added up, so it meets M exactly and stops at the last bin that has mass: u = 1
is that bin's far edge, and no rounding leads past it.

The blur of mip-NeRF (Barron et al. 2021) turns a weight into the mean of its maxima with its left and right neighbours.

One thread walks one ray. Where to sample is a choice, not a part of the model, so there is no adjoint.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real


@ti.func
def valid(weight):
    """Negative weights and NaN count as none; the limits keep sums and quotients of masses finite in 32 bits."""
    return ti.min(ti.select(weight > real(weight, 1e-30), weight, real(weight, 0)), real(weight, 1e30))


@ti.func
def mass_of(left, middle, right, padding, blur: ti.template()):
    """The mass of a bin from valid weights: its own, and those beside it (its own again at the ends)."""
    return (ti.max(left, middle) + ti.max(middle, right)) / 2 + padding if ti.static(blur) else middle + padding


@ti.kernel
def importance_sample(
    bin_edges: ti.types.ndarray(ndim=2),  # [n_rays, n_bins + 1] ascending
    weights: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
    uniforms: ti.types.ndarray(ndim=2),  # [n_rays, n_samples] ascending unless stratified; or one row for all rays
    padding: ti.f32,
    stratified: ti.template(),  # one uniform number for each of n_samples equal parts of [0, 1]
    blur: ti.template(),
    out_t: ti.types.ndarray(ndim=2),  # [n_rays, n_samples]
):
    for ray in range(weights.shape[0]):
        n_bins = weights.shape[1]
        n_samples = out_t.shape[1]
        row = ti.min(ray, uniforms.shape[0] - 1)
        total = real(weights, 0)
        first = valid(weights[ray, 0])
        left, middle = first, first  # walk along with the bin, so that each weight is read once
        for j in range(n_bins):
            right = valid(weights[ray, ti.min(j + 1, n_bins - 1)])
            total += mass_of(left, middle, right, padding, blur)
            left, middle = middle, right
        alike = real(weights, 0)
        if not total > 0:  # a ray without mass: all its bins weigh 1
            alike = real(weights, 1)
            total = real(weights, 1) * n_bins
        bin = 0
        below = real(weights, 0)  # C_j
        left, middle = first, first
        right = valid(weights[ray, ti.min(1, n_bins - 1)])
        above = mass_of(left, middle, right, padding, blur) + alike  # C_{j+1}
        for k in range(n_samples):
            u = uniforms[row, k]
            if ti.static(stratified):
                u = (k + u) / n_samples
            while above <= u * total and above < total and bin < n_bins - 1:
                bin += 1
                below = above
                left, middle = middle, right
                right = valid(weights[ray, ti.min(bin + 1, n_bins - 1)])
                above += mass_of(left, middle, right, padding, blur) + alike
            near = bin_edges[ray, bin]
            far = bin_edges[ray, bin + 1]
            fraction = ti.max((u * total - below) / (above - below), 0)
            # near + (far - near) rounds, and may miss far by a digit.
            out_t[ray, k] = ti.select(fraction < 1, ti.min(near + fraction * (far - near), far), far)
