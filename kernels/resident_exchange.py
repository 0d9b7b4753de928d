"""What passes between the device and torch in a step of training that stays on the device: arrays of one row a ray, and counts.

Torch's side of each kernel is exactly as long as there are rays; the device's has room for more.
"""

import taichi as ti

COLOR, OPACITY, DEPTH, SPREAD = 0, 3, 4, 5  # columns of a rendered ray


@ti.kernel
def take_rays(
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_origins: ti.types.ndarray(ndim=2),  # [room, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [room, 3]
):
    for ray in range(origins.shape[0]):
        for axis in ti.static(range(3)):
            out_origins[ray, axis] = origins[ray, axis]
            out_directions[ray, axis] = directions[ray, axis]


@ti.kernel
def hand_over(
    color: ti.types.ndarray(ndim=2),  # [room, 3]
    opacity: ti.types.ndarray(ndim=1),  # [room]
    depth: ti.types.ndarray(ndim=1),  # [room]
    spread: ti.types.ndarray(ndim=1),  # [room]
    marched: ti.types.ndarray(ndim=1),  # [2] samples of the first march
    later_marched: ti.types.ndarray(ndim=1),  # [2] of the second
    kept: ti.types.ndarray(ndim=1),  # [2] that were looked at in full
    out: ti.types.ndarray(ndim=2),  # [n_rays, 5 or 6]
    out_counts: ti.types.ndarray(ndim=1),  # [4] marched, marched later, kept (for which there was room), kept
):
    for ray in range(out.shape[0]):
        for channel in ti.static(range(3)):
            out[ray, COLOR + channel] = color[ray, channel]
        out[ray, OPACITY] = opacity[ray]
        out[ray, DEPTH] = depth[ray]
        if out.shape[1] > SPREAD:
            out[ray, SPREAD] = spread[ray]
    for _ in range(1):
        out_counts[0] = marched[1]
        out_counts[1] = later_marched[1]
        out_counts[2] = kept[0]
        out_counts[3] = kept[1]


@ti.kernel
def hand_over_adjoint(
    grad: ti.types.ndarray(ndim=2),  # [n_rays, 5 or 6]
    out_color: ti.types.ndarray(ndim=2),  # [room, 3]
    out_opacity: ti.types.ndarray(ndim=1),  # [room]
    out_depth: ti.types.ndarray(ndim=1),  # [room]
    out_spread: ti.types.ndarray(ndim=1),  # [room]
):
    for ray in range(out_opacity.shape[0]):
        is_there = ray < grad.shape[0]
        for channel in ti.static(range(3)):
            out_color[ray, channel] = grad[ray, COLOR + channel] if is_there else 0.0
        out_opacity[ray] = grad[ray, OPACITY] if is_there else 0.0
        out_depth[ray] = grad[ray, DEPTH] if is_there else 0.0
        out_spread[ray] = 0.0
        if is_there and grad.shape[1] > SPREAD:
            out_spread[ray] = grad[ray, SPREAD]


@ti.kernel
def hand_over_samples(
    values: ti.types.ndarray(ndim=1),  # [room]
    t_starts: ti.types.ndarray(ndim=1),  # [room]
    t_ends: ti.types.ndarray(ndim=1),  # [room]
    ray_indices: ti.types.ndarray(ndim=1),  # [room]
    spans: ti.types.ndarray(ndim=2),  # [ray room, 2]
    out: ti.types.ndarray(ndim=2),  # [n_samples, 3] weight, t_start, t_end
    out_ray_indices: ti.types.ndarray(ndim=1),  # [n_samples]
    out_spans: ti.types.ndarray(ndim=2),  # [n_rays, 2]
):
    """For terms of the loss that look at single samples."""
    for i in range(out.shape[0]):
        out[i, 0] = values[i]
        out[i, 1] = t_starts[i]
        out[i, 2] = t_ends[i]
        out_ray_indices[i] = ray_indices[i]
    for ray in range(out_spans.shape[0]):
        out_spans[ray, 0] = spans[ray, 0]
        out_spans[ray, 1] = spans[ray, 1]


@ti.kernel
def take_gradients(
    grad: ti.types.ndarray(ndim=1),  # [n] of samples, or of a network's weights
    out: ti.types.ndarray(ndim=1),  # [n or more]
):
    """Added to those that are there."""
    for i in range(grad.shape[0]):
        out[i] = out[i] + grad[i]


@ti.kernel
def spread_intervals(
    t_starts: ti.types.ndarray(ndim=1),  # [room]
    t_ends: ti.types.ndarray(ndim=1),  # [room]
    out_starts: ti.types.ndarray(ndim=1),  # [room]
    out_ends: ti.types.ndarray(ndim=1),  # [room]
):
    """s = t / (1 + t), in which `losses.spread` measures."""
    for i in range(t_starts.shape[0]):
        out_starts[i] = t_starts[i] / (1 + t_starts[i])
        out_ends[i] = t_ends[i] / (1 + t_ends[i])
