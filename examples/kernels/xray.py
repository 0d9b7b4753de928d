"""Compositing as an x-ray sees: matter weakens light and never hides what is behind it. What counts is the length of the way
through matter, whatever its density and color; the formula is Beer's, opacity = 1 - exp(-absorption · length).

A file like this one holds kernels by the names of those that it replaces, with the same arguments: examples/look_through.py.
"""

import taichi as ti

MATTER = 2.0  # what is denser than this counts
ABSORPTION = 1.1  # of matter, per scene unit


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
    for ray in range(spans.shape[0]):
        transmittance, depth = 1.0, 0.0
        for i in range(spans[ray, 0], spans[ray, 0] + spans[ray, 1]):
            length = ti.select(density[i] > MATTER, t_ends[i] - t_starts[i], 0.0)
            alpha = 1 - ti.exp(-ABSORPTION * length)
            out_weights[i] = transmittance * alpha
            depth += out_weights[i] * (t_starts[i] + t_ends[i]) / 2
            transmittance *= 1 - alpha
        for channel in range(color.shape[1]):
            tint = 0.55 + 0.2 * channel  # a plate is bluish
            out_color[ray, channel] = ti.min(1.0, tint * (1 - transmittance) * 1.3)
        out_opacity[ray] = 1  # the whole plate is exposed: no background shows
        out_depth[ray] = depth
