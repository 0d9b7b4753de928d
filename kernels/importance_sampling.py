"""Where to sample rays: evenly, jittered, or more where a histogram of weights is high (Mildenhall et al. 2020, section 5.2).

`importance_sample` inverts a cumulative distribution. Bin j of a ray covers [edge_j, edge_{j+1}] and has the mass
m_j = weight_j + padding, spread evenly over it. With C_j = Σ_{i<j} m_i and M the sum of all, the sample for u in [0, 1] is

    t = edge_j + (edge_{j+1} - edge_j) (u M - C_j) / (C_{j+1} - C_j)      where C_j <= u M < C_{j+1}

Because u ascends, one walk along bins and samples together finds every j: no search and no buffer for C. The walk adds up
the masses in the order in which M was added up, so it meets M exactly and stops at the last bin that has mass: u = 1 is
that bin's far edge, and no rounding leads past it.

`jittered_samples` draws each t between the midpoints to its evenly spaced neighbours (section 4 of the same paper).
`blur_weights` is the max-then-mean filter of mip-NeRF (Barron et al. 2021, equation 18).

One thread walks one ray. Where to sample is a choice, not a part of the model, so only the blur has an adjoint.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real


@ti.func
def mass_of(weight, padding):
    """A weight that is negative or NaN counts as none; the limits keep sums and quotients of masses finite in 32 bits."""
    valid = ti.select(weight > real(weight, 1e-30), weight, real(weight, 0))
    return ti.min(valid, real(weight, 1e30)) + padding


@ti.kernel
def importance_sample(
    bin_edges: ti.types.ndarray(ndim=2),  # [n_rays, n_bins + 1] ascending
    weights: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
    uniforms: ti.types.ndarray(ndim=2),  # [n_rays, n_samples] ascending (if stratified: any order), or one row for all rays
    padding: ti.f32,
    stratified: ti.template(),  # one uniform number for each of n_samples equal parts of [0, 1]
    out_t: ti.types.ndarray(ndim=2),  # [n_rays, n_samples]
):
    n_bins = weights.shape[1]
    n_samples = out_t.shape[1]
    for ray in range(weights.shape[0]):
        row = ti.min(ray, uniforms.shape[0] - 1)
        total = real(weights, 0)
        for j in range(n_bins):
            total += mass_of(weights[ray, j], padding)
        has_mass = total > 0
        if not has_mass:  # then all bins are alike
            total = n_bins
        bin = 0
        below = real(weights, 0)  # C_j
        above = ti.select(has_mass, mass_of(weights[ray, 0], padding), real(weights, 1))  # C_{j+1}
        for k in range(n_samples):
            u = uniforms[row, k]
            if ti.static(stratified):
                u = (k + u) / n_samples
            while above <= u * total and above < total and bin < n_bins - 1:
                bin += 1
                below = above
                above += ti.select(has_mass, mass_of(weights[ray, bin], padding), real(weights, 1))
            near = bin_edges[ray, bin]
            far = bin_edges[ray, bin + 1]
            fraction = ti.max((u * total - below) / (above - below), 0)
            # near + (far - near) rounds, and may miss far by a digit.
            out_t[ray, k] = ti.select(fraction < 1, ti.min(near + fraction * (far - near), far), far)


@ti.func
def evenly(near, far, k, n, inverse: ti.template()):
    """The k-th of n numbers from near to far, evenly spaced or with evenly spaced inverses; rounding keeps their order."""
    s = real(near, 1) * k / ti.max(n - 1, 1)
    t = near + (far - near) * s
    if ti.static(inverse):
        t = 1 / (1 / near + (1 / far - 1 / near) * s)
    return ti.max(near, ti.min(t, far))


@ti.kernel
def even_samples(
    t_near: ti.types.ndarray(ndim=1),  # [n_rays]
    t_far: ti.types.ndarray(ndim=1),  # [n_rays]
    inverse: ti.template(),
    out_t: ti.types.ndarray(ndim=2),  # [n_rays, n_samples]
):
    for ray in range(t_near.shape[0]):
        for k in range(out_t.shape[1]):
            out_t[ray, k] = evenly(t_near[ray], t_far[ray], k, out_t.shape[1], inverse)


@ti.kernel
def jittered_samples(
    t_near: ti.types.ndarray(ndim=1),  # [n_rays]
    t_far: ti.types.ndarray(ndim=1),  # [n_rays]
    uniforms: ti.types.ndarray(ndim=2),  # [n_rays, n_samples]
    inverse: ti.template(),
    out_t: ti.types.ndarray(ndim=2),  # [n_rays, n_samples]
):
    n_samples = out_t.shape[1]
    for ray in range(t_near.shape[0]):
        t = t_near[ray]
        low = t
        for k in range(n_samples):
            following = evenly(t_near[ray], t_far[ray], ti.min(k + 1, n_samples - 1), n_samples, inverse)
            high = (t + following) / 2
            out_t[ray, k] = ti.min(low + (high - low) * uniforms[ray, k], high)
            low = high
            t = following


@ti.kernel
def blur_weights(
    weights: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
    out_blurred: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
):
    last = weights.shape[1] - 1
    for ray in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            weight = weights[ray, j]
            left = ti.max(weights[ray, ti.max(j - 1, 0)], weight)
            right = ti.max(weight, weights[ray, ti.min(j + 1, last)])
            out_blurred[ray, j] = (left + right) / 2


@ti.func
def share(weight, other):
    """How much of the gradient of max(weight, other) is weight's."""
    return ti.select(weight > other, real(weight, 1), ti.select(weight < other, real(weight, 0), real(weight, 0.5)))


@ti.kernel
def blur_weights_adjoint(
    weights: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
    grad_blurred: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
    out_weights: ti.types.ndarray(ndim=2),  # [n_rays, n_bins]
):
    """Bin j is in two maxima, one with each neighbour, and each maximum in the means of both its bins."""
    last = weights.shape[1] - 1
    for ray in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            weight = weights[ray, j]
            gradient = grad_blurred[ray, j]
            of_weight = real(weights, 0)
            if j > 0:
                of_weight += share(weight, weights[ray, j - 1]) * (grad_blurred[ray, j - 1] + gradient)
            else:
                of_weight += gradient
            if j < last:
                of_weight += share(weight, weights[ray, j + 1]) * (grad_blurred[ray, j + 1] + gradient)
            else:
                of_weight += gradient
            out_weights[ray, j] = of_weight / 2
