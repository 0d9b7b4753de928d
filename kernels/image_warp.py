"""Bilinear lookup of many channels in feature images, and its adjoints. `image_projection.py` finds the pixels.

The lookups take images as one row of memory: a store through one array makes the compiler reload the address and sizes of
all the others, and without sizes to multiply they take half the time. On the CPU they find the corners of `n_lanes` pixels at
once and add up `group` channels at once, in loops over local arrays, which become SIMD instructions: 2.6 ms became 1.6 for
three channels, 24 became 16 for 64. On GPUs both are 1, and 2^log_parts threads share the channels of a point, for
neighbouring threads to read neighbouring memory.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import lanes_of, real


@ti.func
def neighbours(coordinate, size, zeros: ti.template()):
    """Both neighbours along an axis, kept inside, their weights, and the derivative of the upper weight.

    With zeros, neighbours outside weigh nothing; without, the coordinate is clamped to the border. NaN counts as far left.
    """
    low = real(coordinate, -1 if zeros else 0)
    high = real(coordinate, 1) * (size if ti.static(zeros) else size - 1)
    slope = ti.select((coordinate > low) & (coordinate < high), real(coordinate, 1), real(coordinate, 0))
    clamped = ti.min(ti.select(coordinate > low, coordinate, low), high)
    index = ti.cast(clamped - low, ti.i32)  # truncation rounds down, for this is not negative
    fraction = clamped - low - index
    lower = index - 1 if ti.static(zeros) else index
    inside = ti.Vector([real(coordinate, 1), real(coordinate, 1)])
    if ti.static(zeros):
        inside[0] = ti.select((lower >= 0) & (lower < size), real(coordinate, 1), real(coordinate, 0))
        inside[1] = ti.select(lower + 1 < size, real(coordinate, 1), real(coordinate, 0))
    kept = ti.Vector([ti.max(ti.min(lower, size - 1), 0), ti.min(lower + 1, size - 1)])
    return kept, ti.Vector([(1 - fraction) * inside[0], fraction * inside[1]]), inside * ti.Vector([-slope, slope])


@ti.func
def corners(u, v, view, height, width, n_channels, zeros: ti.template()):
    """Where the four features around a pixel begin, their weights, and the derivatives of these by u and v."""
    x, weight_x, slope_x = neighbours(u, width, zeros)
    y, weight_y, slope_y = neighbours(v, height, zeros)
    top, bottom = (view * height + y[0]) * width, (view * height + y[1]) * width
    starts = ti.Vector([top + x[0], top + x[1], bottom + x[0], bottom + x[1]]) * n_channels
    weights, by_u, by_v = [
        ti.Vector([b[0] * a[0], b[0] * a[1], b[1] * a[0], b[1] * a[1]])
        for a, b in ti.static(((weight_x, weight_y), (slope_x, weight_y), (weight_x, slope_y)))
    ]
    return starts, weights, by_u, by_v, y


@ti.func
def coordinates(pixels: ti.template(), first, end, shift, n_lanes: ti.template()):
    """Those of n_lanes pixels in units of features; the last before `end` stands in for those that are missing."""
    u, v = lanes_of(real(pixels, 0), n_lanes), lanes_of(real(pixels, 0), n_lanes)
    if first + n_lanes <= end:  # without a minimum in the index the loads are vectors, too
        for lane in range(n_lanes):
            u[lane], v[lane] = pixels[2 * (first + lane)] - shift, pixels[2 * (first + lane) + 1] - shift
    else:
        for lane in range(n_lanes):
            i = ti.min(first + lane, end - 1)
            u[lane], v[lane] = pixels[2 * i] - shift, pixels[2 * i + 1] - shift
    return u, v


@ti.kernel
def gather_features(
    features: ti.types.ndarray(ndim=1),  # [n_views * height * width * n_channels]
    pixels: ti.types.ndarray(ndim=1),  # [n_views * n_points * 2]
    n_points: ti.i32,
    height: ti.i32,
    width: ti.i32,
    n_channels: ti.i32,
    shift: ti.f32,  # index of a feature = pixel - shift
    zeros: ti.template(),
    chunk: ti.i32,
    n_chunks: ti.i32,
    n_lanes: ti.template(),
    group: ti.template(),
    log_parts: ti.i32,
    out: ti.types.ndarray(ndim=1),  # [n_views * n_points * n_channels]
):
    for q in range((pixels.shape[0] // (2 * n_points) * n_chunks) << log_parts):
        task = q >> log_parts
        part = q - (task << log_parts)
        view = task // n_chunks
        share = (n_channels // group + (1 << log_parts) - 1) >> log_parts
        last_group = ti.min((part + 1) * share, n_channels // group)
        begin = view * n_points + (task - view * n_chunks) * chunk
        end = ti.min(begin + chunk, (view + 1) * n_points)
        for block in range((end - begin + n_lanes - 1) // n_lanes):
            first = begin + block * n_lanes
            u, v = coordinates(pixels, first, end, shift, n_lanes)
            starts = [lanes_of(0, n_lanes) for _ in range(4)]
            weights = [lanes_of(real(pixels, 0), n_lanes) for _ in range(4)]
            for lane in range(n_lanes):
                start, weight, _u, _v, _y = corners(u[lane], v[lane], view, height, width, n_channels, zeros)
                for c in ti.static(range(4)):
                    starts[c][lane], weights[c][lane] = start[c], weight[c]
            for lane in range(ti.min(n_lanes, end - first)):
                start = ti.Vector([starts[c][lane] for c in range(4)])
                weight = ti.Vector([weights[c][lane] for c in range(4)])
                for k in range(part * share, last_group):
                    sample = lanes_of(real(features, 0), group)
                    for j in range(group):
                        for c in ti.static(range(4)):
                            sample[j] += weight[c] * features[start[c] + k * group + j]
                    for j in range(group):
                        out[(first + lane) * n_channels + k * group + j] = sample[j]


@ti.kernel
def gather_features_pixels_adjoint(
    features: ti.types.ndarray(ndim=1),  # [n_views * height * width * n_channels]
    pixels: ti.types.ndarray(ndim=1),  # [n_views * n_points * 2]
    grad_out: ti.types.ndarray(ndim=1),  # [n_views * n_points * n_channels]
    n_points: ti.i32,
    height: ti.i32,
    width: ti.i32,
    n_channels: ti.i32,
    shift: ti.f32,
    zeros: ti.template(),
    chunk: ti.i32,
    n_chunks: ti.i32,
    group: ti.template(),
    out_pixels: ti.types.ndarray(ndim=1),  # [n_views * n_points * 2]
):
    for q in range(pixels.shape[0] // (2 * n_points) * n_chunks):
        view = q // n_chunks
        first = view * n_points + (q - view * n_chunks) * chunk
        for i in range(first, ti.min(first + chunk, (view + 1) * n_points)):
            u, v = pixels[2 * i] - shift, pixels[2 * i + 1] - shift
            start, _w, by_u, by_v, _y = corners(u, v, view, height, width, n_channels, zeros)
            products = [lanes_of(real(features, 0), group) for _ in range(4)]
            for k in range(n_channels // group):
                for j in range(group):
                    for c in ti.static(range(4)):
                        products[c][j] += grad_out[i * n_channels + k * group + j] * features[start[c] + k * group + j]
            of_corners = ti.Vector([products[c].sum() for c in range(4)])
            out_pixels[2 * i] = by_u.dot(of_corners)
            out_pixels[2 * i + 1] = by_v.dot(of_corners)


@ti.kernel
def gather_features_adjoint(
    pixels: ti.types.ndarray(ndim=1),  # [n_views * n_points * 2]
    grad_out: ti.types.ndarray(ndim=1),  # [n_views * n_points * n_channels]
    n_points: ti.i32,
    height: ti.i32,
    width: ti.i32,
    n_channels: ti.i32,
    shift: ti.f32,
    zeros: ti.template(),
    log_parts: ti.i32,
    out_features: ti.types.ndarray(ndim=1),  # [n_views * height * width * n_channels], added to
):
    """The gradient of the features, with atomic additions: for GPUs."""
    for q in range((pixels.shape[0] // 2) << log_parts):
        i = q >> log_parts
        part = q - (i << log_parts)
        share = (n_channels + (1 << log_parts) - 1) >> log_parts
        u, v = pixels[2 * i] - shift, pixels[2 * i + 1] - shift
        start, weight, _u, _v, _y = corners(u, v, i // n_points, height, width, n_channels, zeros)
        for c in ti.static(range(4)):
            for k in range(part * share, ti.min((part + 1) * share, n_channels)):
                out_features[start[c] + k] += weight[c] * grad_out[i * n_channels + k]


@ti.kernel
def gather_features_owned_adjoint(
    features: ti.types.ndarray(ndim=1),  # [n_views * height * width * n_channels]
    pixels: ti.types.ndarray(ndim=1),  # [n_views * n_points * 2]
    grad_out: ti.types.ndarray(ndim=1),  # [n_views * n_points * n_channels]
    n_points: ti.i32,
    height: ti.i32,
    width: ti.i32,
    n_channels: ti.i32,
    shift: ti.f32,
    zeros: ti.template(),
    owners: ti.types.ndarray(ndim=2),  # [n_views, height] int32
    views: ti.types.ndarray(ndim=2),  # [n_owners, 2] int32: the first view with rows of this thread, and one past the last
    n_lanes: ti.template(),
    group: ti.template(),
    with_pixels: ti.template(),
    out_features: ti.types.ndarray(ndim=1),  # [n_views * height * width * n_channels], added to
    out_pixels: ti.types.ndarray(ndim=1),  # [n_views * n_points * 2], if with_pixels
):
    """Both gradients without atomics: row y of a view, and the pixels just below, belong to thread owners[view, y].

    A thread reads all pixels of its views and adds what falls on its own rows. 512 iterations a thread, of which one works,
    because Taichi runs shorter loops on one core.
    """
    for q in range(views.shape[0] * 512):
        n_blocks = (n_points + n_lanes - 1) // n_lanes
        view_0, view_1 = views[q // 512, 0], views[q // 512, 1]
        for step in range((view_1 - view_0) * n_blocks if q % 512 == 0 else 0):
            view = view_0 + step // n_blocks
            first, end = view * n_points + step % n_blocks * n_lanes, (view + 1) * n_points
            u, v = coordinates(pixels, first, end, shift, n_lanes)
            starts, rows = [lanes_of(0, n_lanes) for _ in range(4)], [lanes_of(0, n_lanes) for _ in range(2)]
            weights, by_u, by_v = [[lanes_of(real(pixels, 0), n_lanes) for _ in range(4)] for _ in range(3)]
            for lane in range(n_lanes):
                start, weight, of_u, of_v, y = corners(u[lane], v[lane], view, height, width, n_channels, zeros)
                rows[0][lane], rows[1][lane] = y[0], y[1]
                for c in ti.static(range(4)):
                    starts[c][lane], weights[c][lane], by_u[c][lane], by_v[c][lane] = start[c], weight[c], of_u[c], of_v[c]
            for lane in range(ti.min(n_lanes, end - first)):
                owns = [owners[view, rows[dy][lane]] == q // 512 for dy in range(2)]
                if owns[0] or owns[1]:
                    i = first + lane
                    products = [lanes_of(real(features, 0), group) for _ in range(4)]
                    for k in range(n_channels // group):
                        cotangent = lanes_of(real(features, 0), group)
                        for j in range(group):
                            cotangent[j] = grad_out[i * n_channels + k * group + j]
                            if ti.static(with_pixels):
                                for c in ti.static(range(4)):
                                    products[c][j] += cotangent[j] * features[starts[c][lane] + k * group + j]
                        for c in ti.static(range(4)):
                            if owns[c // 2]:
                                total = lanes_of(real(features, 0), group)
                                to = starts[c][lane] + k * group
                                for j in range(group):
                                    total[j] = out_features[to + j] + weights[c][lane] * cotangent[j]
                                for j in range(group):
                                    out_features[to + j] = total[j]
                    if ti.static(with_pixels):
                        if owns[0]:
                            of_u, of_v = real(pixels, 0), real(pixels, 0)
                            for c in ti.static(range(4)):
                                of_u += by_u[c][lane] * products[c].sum()
                                of_v += by_v[c][lane] * products[c].sum()
                            out_pixels[2 * i] = of_u
                            out_pixels[2 * i + 1] = of_v
