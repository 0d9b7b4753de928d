"""Bilinear lookup in three planes of features (EG3D, Chan et al. 2022; TensoRF's and K-Planes' spatial half), and its adjoints.

Plane 0 is spanned by x and y, plane 1 by x and z, plane 2 by y and z; the first of the two axes runs along the width, the
second along the height. Grid points lie on the corners of the unit square: position u in [0, 1] is u (width - 1) in units of
the spacing. Positions outside take the value of the border and, along that axis, have no gradient. NaN counts as 0.

The three samples are joined by REDUCE: mean, sum, product, or side by side. For the adjoints a product first becomes
cotangents of the three samples, side by side, so that they know two cases only: one cotangent for all planes, or three.

A store through one array makes the compiler reload the address and sizes of all the others, so channels go in groups of
`lanes` (a divisor of their number): all loads of a group, then its stores. `log_parts` spreads the groups of a position
over 2^log_parts threads, for neighbouring threads of a GPU to read neighbouring memory; 0 on the CPU.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import real

REDUCE = {"mean": 0, "sum": 1, "product": 2, "concatenate": 3}
MEAN, PRODUCT, CONCATENATE = REDUCE["mean"], REDUCE["product"], REDUCE["concatenate"]


@ti.func
def lattice(position, size):
    """Lower neighbour, fraction towards the upper one, and d(index)/d(position), which is 0 where clamping holds it."""
    index = position * (size - 1)
    slope = ti.select((index > 0) & (index < size - 1), real(position, 1) * (size - 1), real(position, 0))
    clamped = ti.min(ti.select(index > 0, index, real(position, 0)), real(position, 1) * (size - 1))
    lower = ti.min(ti.cast(clamped, ti.i32), ti.max(size - 2, 0))
    return lower, clamped - lower, slope


@ti.func
def on_planes(x, y, z, width, height):
    """Per plane: column, row (lower, upper), fractions and slopes along both."""
    xw, fxw, sxw = lattice(x, width)
    yw, fyw, syw = lattice(y, width)
    yh, fyh, syh = lattice(y, height)
    zh, fzh, szh = lattice(z, height)
    columns = ti.Matrix([[xw, ti.min(xw + 1, width - 1)], [xw, ti.min(xw + 1, width - 1)], [yw, ti.min(yw + 1, width - 1)]])
    rows = ti.Matrix([[yh, ti.min(yh + 1, height - 1)], [zh, ti.min(zh + 1, height - 1)], [zh, ti.min(zh + 1, height - 1)]])
    fractions = ti.Matrix([[fxw, fyh], [fxw, fzh], [fyw, fzh]])
    slopes = ti.Matrix([[sxw, syh], [sxw, szh], [syw, szh]])
    return columns, rows, fractions, slopes


@ti.func
def weight_of(fraction, upper: ti.template()):
    return fraction if ti.static(upper) else 1 - fraction


@ti.kernel
def sample_tri_planes(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    reduce: ti.template(),
    lanes: ti.template(),
    log_parts: ti.i32,
    out: ti.types.ndarray(ndim=2),  # [n, n_channels] or, side by side, [n, 3 * n_channels]
):
    for q in range(positions.shape[0] << log_parts):
        i = q >> log_parts
        part = q - (i << log_parts)
        columns, rows, fractions, _slopes = on_planes(
            positions[i, 0], positions[i, 1], positions[i, 2], planes.shape[2], planes.shape[1]
        )
        n_groups = planes.shape[3] // lanes
        share = (n_groups + (1 << log_parts) - 1) >> log_parts
        for group in range(part * share, ti.min((part + 1) * share, n_groups)):
            first = group * lanes
            joined = ti.Vector([real(planes, 1 if reduce == PRODUCT else 0) for _ in range(lanes)])
            for plane in ti.static(range(3)):
                sample = ti.Vector([real(planes, 0) for _ in range(lanes)])
                for dv, du in ti.static(ti.ndrange(2, 2)):
                    weight = weight_of(fractions[plane, 1], dv) * weight_of(fractions[plane, 0], du)
                    for lane in ti.static(range(lanes)):
                        sample[lane] += weight * planes[plane, rows[plane, dv], columns[plane, du], first + lane]
                if ti.static(reduce == CONCATENATE):
                    for lane in ti.static(range(lanes)):
                        out[i, plane * planes.shape[3] + first + lane] = sample[lane]
                elif ti.static(reduce == PRODUCT):
                    joined *= sample
                else:
                    joined += sample
            if ti.static(reduce != CONCATENATE):
                for lane in ti.static(range(lanes)):
                    out[i, first + lane] = joined[lane] / (3 if ti.static(reduce == MEAN) else 1)


@ti.kernel
def sample_tri_planes_product_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    grad_out: ti.types.ndarray(ndim=2),  # [n, n_channels]
    out_samples: ti.types.ndarray(ndim=2),  # [n, 3 * n_channels]
):
    """The cotangents of the three samples of a product: each is multiplied by the other two samples."""
    for i in range(positions.shape[0]):
        columns, rows, fractions, _slopes = on_planes(
            positions[i, 0], positions[i, 1], positions[i, 2], planes.shape[2], planes.shape[1]
        )
        n_channels = planes.shape[3]
        for channel in range(n_channels):
            samples = ti.Vector([real(planes, 0) for _ in range(3)])
            for plane, dv, du in ti.static(ti.ndrange(3, 2, 2)):
                weight = weight_of(fractions[plane, 1], dv) * weight_of(fractions[plane, 0], du)
                samples[plane] += weight * planes[plane, rows[plane, dv], columns[plane, du], channel]
            cotangent = grad_out[i, channel]
            for plane in ti.static(range(3)):
                others = samples[(plane + 1) % 3] * samples[(plane + 2) % 3]
                out_samples[i, plane * n_channels + channel] = cotangent * others


@ti.kernel
def sample_tri_planes_positions_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    grad_samples: ti.types.ndarray(ndim=2),  # [n, n_channels] for all planes, or [n, 3 * n_channels]
    divisor: ti.i32,  # 3 for a mean
    out_positions: ti.types.ndarray(ndim=2),  # [n, 3]
):
    """With the products p of the cotangent and each corner's features, ∂L/∂u = slope Σ ±(weight along v) p."""
    for i in range(positions.shape[0]):
        columns, rows, fractions, slopes = on_planes(
            positions[i, 0], positions[i, 1], positions[i, 2], planes.shape[2], planes.shape[1]
        )
        products = ti.Vector([real(planes, 0) for _ in range(12)])
        stride = ti.select(grad_samples.shape[1] == planes.shape[3], 0, planes.shape[3])
        for channel in range(planes.shape[3]):
            for plane in ti.static(range(3)):
                cotangent = grad_samples[i, plane * stride + channel]
                for dv, du in ti.static(ti.ndrange(2, 2)):
                    value = planes[plane, rows[plane, dv], columns[plane, du], channel]
                    products[plane * 4 + dv * 2 + du] += cotangent * value
        gradient = ti.Vector([real(planes, 0) for _ in range(3)])
        for plane, dv, du in ti.static(ti.ndrange(3, 2, 2)):
            product = products[plane * 4 + dv * 2 + du] / divisor
            of_u = (2 * du - 1) * weight_of(fractions[plane, 1], dv) * product
            of_v = (2 * dv - 1) * weight_of(fractions[plane, 0], du) * product
            gradient[plane // 2] += slopes[plane, 0] * of_u  # x, x, y
            gradient[(plane + 3) // 2 if plane else 1] += slopes[plane, 1] * of_v  # y, z, z
        for axis in ti.static(range(3)):
            out_positions[i, axis] = gradient[axis]


@ti.kernel
def sample_tri_planes_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grad_samples: ti.types.ndarray(ndim=2),  # [n, n_channels] for all planes, or [n, 3 * n_channels]
    divisor: ti.i32,  # 3 for a mean
    lanes: ti.template(),
    log_parts: ti.i32,
    out_planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels], added to
):
    """The gradient of the planes, with atomic additions: for GPUs."""
    for q in range(positions.shape[0] << log_parts):
        i = q >> log_parts
        part = q - (i << log_parts)
        columns, rows, fractions, _slopes = on_planes(
            positions[i, 0], positions[i, 1], positions[i, 2], out_planes.shape[2], out_planes.shape[1]
        )
        stride = ti.select(grad_samples.shape[1] == out_planes.shape[3], 0, out_planes.shape[3])
        n_groups = out_planes.shape[3] // lanes
        share = (n_groups + (1 << log_parts) - 1) >> log_parts
        for group in range(part * share, ti.min((part + 1) * share, n_groups)):
            first = group * lanes
            for plane, dv, du in ti.static(ti.ndrange(3, 2, 2)):
                weight = weight_of(fractions[plane, 1], dv) * weight_of(fractions[plane, 0], du) / divisor
                for lane in ti.static(range(lanes)):
                    cotangent = grad_samples[i, plane * stride + first + lane]
                    out_planes[plane, rows[plane, dv], columns[plane, du], first + lane] += weight * cotangent


@ti.kernel
def sample_tri_planes_owned_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grad_samples: ti.types.ndarray(ndim=2),  # [n, n_channels] for all planes, or [n, 3 * n_channels]
    divisor: ti.i32,  # 3 for a mean
    owners: ti.types.ndarray(ndim=1),  # [height] int32
    n_owners: ti.i32,
    lanes: ti.template(),
    out_planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels], added to
):
    """The gradient of the planes without atomics: row v of every plane belongs to thread owners[v].

    A thread reads all positions and adds what falls on its own rows. 512 iterations a thread, of which one works,
    because Taichi runs shorter loops on one core.
    """
    for q in range(n_owners * 512):
        if q % 512 == 0:
            stride = ti.select(grad_samples.shape[1] == out_planes.shape[3], 0, out_planes.shape[3])
            for i in range(positions.shape[0]):
                columns, rows, fractions, _slopes = on_planes(
                    positions[i, 0], positions[i, 1], positions[i, 2], out_planes.shape[2], out_planes.shape[1]
                )
                for plane, dv in ti.static(ti.ndrange(3, 2)):
                    if owners[rows[plane, dv]] == q // 512:
                        for group in range(out_planes.shape[3] // lanes):
                            first = group * lanes
                            for du in ti.static(range(2)):
                                weight = weight_of(fractions[plane, 1], dv) * weight_of(fractions[plane, 0], du) / divisor
                                row, column = rows[plane, dv], columns[plane, du]
                                total = ti.Vector(
                                    [
                                        out_planes[plane, row, column, first + k]
                                        + weight * grad_samples[i, plane * stride + first + k]
                                        for k in range(lanes)
                                    ]
                                )
                                for lane in ti.static(range(lanes)):
                                    out_planes[plane, row, column, first + lane] = total[lane]
