"""Compositing as a cartoon: colors in four steps, and bands of equal distance from the camera that end in a line.

A file like this one holds kernels by the names of those that it replaces, with the same arguments: examples/look_through.py.
"""

import taichi as ti

STEPS = 4  # of each color
BAND = 0.12  # scene units
LINE = 0.2  # of a band


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
        for channel in range(color.shape[1]):
            out_color[ray, channel] = 0
        transmittance, depth = 1.0, 0.0
        for i in range(spans[ray, 0], spans[ray, 0] + spans[ray, 1]):
            alpha = 1 - ti.exp(-density[i] * (t_ends[i] - t_starts[i]))
            weight = transmittance * alpha
            transmittance *= 1 - alpha
            out_weights[i] = weight
            depth += weight * (t_starts[i] + t_ends[i]) / 2
            for channel in range(color.shape[1]):
                out_color[ray, channel] += weight * color[i, channel]
        opacity = 1 - transmittance
        solid = ti.max(opacity, 1e-6)
        band = depth / solid / BAND
        is_line = band - ti.floor(band) < LINE
        for channel in range(color.shape[1]):
            step = ti.min(1.0, ti.ceil(out_color[ray, channel] / solid * STEPS) / STEPS)
            shade = ti.select(is_line, 0.25 * step, step)
            out_color[ray, channel] = opacity * shade + transmittance * background[ray, channel]
        out_opacity[ray] = opacity
        out_depth[ray] = depth
