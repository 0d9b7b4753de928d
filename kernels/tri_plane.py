"""Bilinear lookup in three planes of features (EG3D, Chan et al. 2022; TensoRF's and K-Planes' spatial half), and its adjoints.

Plane 0 is spanned by x and y, plane 1 by x and z, plane 2 by y and z; the first of the two axes runs along the width, the
second along the height. Grid points lie on the corners of the unit square: position u in [0, 1] is u (width - 1) in units of
the spacing. Positions outside take the value of the border and, along that axis, have no gradient. NaN counts as 0.

The three samples are joined by REDUCE: mean, sum, product, or side by side. For the adjoints a product first becomes
cotangents of the three samples, side by side, so that they know two cases only: one cotangent for all planes, or three.

On the CPU a thread takes `n_lanes` positions and `group` channels (a divisor of their number) at once. Loads, arithmetic and
stores stand in loops of their own, because a store makes the compiler reload the address and sizes of every array, which
keeps a mixed loop from becoming SIMD instructions. On GPUs n_lanes is 1, and 2^log_parts threads share the groups of a
position, for neighbouring threads to read neighbouring memory.

Large planes fall out of the CPU's caches when positions jump about, so `order` may list the positions by neighbourhood:
for 32 channels and random positions that takes a third off the adjoint's time. Its loops over a group are unrolled, which
there takes a quarter off compared with loops of local arrays; the lookup is fastest with whole rows of 32.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import lanes_of, lattice, real, weight_of

REDUCE = {"mean": 0, "sum": 1, "product": 2, "concatenate": 3}
MEAN, PRODUCT, CONCATENATE = REDUCE["mean"], REDUCE["product"], REDUCE["concatenate"]
# The lattices of a position: x and y along the width, y and z along the height; and which of them span each plane.
AXES, ALONG_WIDTH = (0, 1, 1, 2), (True, True, False, False)
ACROSS, DOWN = (0, 0, 1), (2, 3, 3)


@ti.func
def in_turn(order: ti.template(), first, n_positions, n_lanes: ti.template()):
    """Which positions to look at; the last stands in for those that are missing. An order of one element is no order."""
    which = lanes_of(0, n_lanes)
    for lane in range(n_lanes):
        which[lane] = ti.min(first + lane, n_positions - 1)
    if order.shape[0] > 1:
        for lane in range(n_lanes):
            which[lane] = order[which[lane]]
    return which


@ti.func
def find_lattices(positions: ti.template(), which, planes: ti.template(), n_lanes: ti.template(), out: ti.template()):
    """The lower neighbours, fractions and slopes of n_lanes positions on the four lattices."""
    places = [lanes_of(real(positions, 0), n_lanes) for _ in range(3)]
    for lane in range(n_lanes):
        for axis in ti.static(range(3)):
            places[axis][lane] = positions[which[lane], axis]
    for lane in range(n_lanes):
        for k in ti.static(range(4)):
            size = planes.shape[2] if ti.static(ALONG_WIDTH[k]) else planes.shape[1]
            out[0][k][lane], out[1][k][lane], out[2][k][lane] = lattice(places[AXES[k]][lane], size)


@ti.func
def square_of(lattices: ti.template(), lane, plane: ti.template(), planes: ti.template()):
    """Rows and columns of the four features around a position on a plane, and the fractions across and down."""
    column, row = lattices[0][ACROSS[plane]][lane], lattices[0][DOWN[plane]][lane]
    columns = ti.Vector([column, ti.min(column + 1, planes.shape[2] - 1)])
    rows = ti.Vector([row, ti.min(row + 1, planes.shape[1] - 1)])
    return columns, rows, lattices[1][ACROSS[plane]][lane], lattices[1][DOWN[plane]][lane]


@ti.kernel
def sample_tri_planes(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    order: ti.types.ndarray(ndim=1),  # [n] int32, or [1] for the positions' own
    reduce: ti.template(),
    n_lanes: ti.template(),
    group: ti.template(),
    log_parts: ti.i32,
    out: ti.types.ndarray(ndim=2),  # [n, n_channels] or, side by side, [n, 3 * n_channels]
):
    for q in range(((positions.shape[0] + n_lanes - 1) // n_lanes) << log_parts):
        first = (q >> log_parts) * n_lanes
        part = q - (q >> log_parts << log_parts)
        n_groups, n_positions = planes.shape[3] // group, positions.shape[0]
        share = (n_groups + (1 << log_parts) - 1) >> log_parts
        lattices = [[lanes_of(like, n_lanes) for _ in range(4)] for like in (0, real(positions, 0), real(positions, 0))]
        which = in_turn(order, first, n_positions, n_lanes)
        find_lattices(positions, which, planes, n_lanes, lattices)
        for lane in range(ti.min(n_lanes, n_positions - first)):
            for k in range(part * share, ti.min((part + 1) * share, n_groups)):
                joined = lanes_of(real(planes, 1 if reduce == PRODUCT else 0), group)
                for plane in ti.static(range(3)):
                    columns, rows, fraction_u, fraction_v = square_of(lattices, lane, plane, planes)
                    sample = lanes_of(real(planes, 0), group)
                    for dv, du in ti.static(ti.ndrange(2, 2)):
                        weight = weight_of(fraction_v, dv) * weight_of(fraction_u, du)
                        for j in range(group):
                            sample[j] += weight * planes[plane, rows[dv], columns[du], k * group + j]
                    if ti.static(reduce == CONCATENATE):
                        for j in range(group):
                            out[which[lane], plane * planes.shape[3] + k * group + j] = sample[j]
                    else:
                        for j in range(group):
                            joined[j] = joined[j] * sample[j] if ti.static(reduce == PRODUCT) else joined[j] + sample[j]
                if ti.static(reduce != CONCATENATE):
                    for j in range(group):
                        out[which[lane], k * group + j] = joined[j] / (3 if ti.static(reduce == MEAN) else 1)


@ti.kernel
def sample_tri_planes_product_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    grad_out: ti.types.ndarray(ndim=2),  # [n, n_channels]
    out_samples: ti.types.ndarray(ndim=2),  # [n, 3 * n_channels]
):
    """The cotangents of the three samples of a product: each is multiplied by the other two samples."""
    for i in range(positions.shape[0]):
        lattices = [[lanes_of(like, 1) for _ in range(4)] for like in (0, real(positions, 0), real(positions, 0))]
        find_lattices(positions, ti.Vector([i]), planes, 1, lattices)
        n_channels = planes.shape[3]
        for channel in range(n_channels):
            samples = ti.Vector([real(planes, 0) for _ in range(3)])
            for plane in ti.static(range(3)):
                columns, rows, fraction_u, fraction_v = square_of(lattices, 0, plane, planes)
                for dv, du in ti.static(ti.ndrange(2, 2)):
                    weight = weight_of(fraction_v, dv) * weight_of(fraction_u, du)
                    samples[plane] += weight * planes[plane, rows[dv], columns[du], channel]
            cotangent = grad_out[i, channel]
            for plane in ti.static(range(3)):
                others = samples[(plane + 1) % 3] * samples[(plane + 2) % 3]
                out_samples[i, plane * n_channels + channel] = cotangent * others


@ti.func
def slopes_on_plane(products: ti.template(), lattices: ti.template(), lane, plane: ti.template()):
    """∂L/∂u and ∂L/∂v of a plane from the products p of the cotangent and each corner's features: slope Σ ±weight p."""
    of_u, of_v = products[0][0] * 0, products[0][0] * 0
    for dv, du in ti.static(ti.ndrange(2, 2)):
        product = products[2 * dv + du].sum()
        of_u += (2 * du - 1) * weight_of(lattices[1][DOWN[plane]][lane], dv) * product
        of_v += (2 * dv - 1) * weight_of(lattices[1][ACROSS[plane]][lane], du) * product
    return of_u * lattices[2][ACROSS[plane]][lane], of_v * lattices[2][DOWN[plane]][lane]


@ti.kernel
def sample_tri_planes_positions_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    grad_samples: ti.types.ndarray(ndim=2),  # [n, n_channels] for all planes, or [n, 3 * n_channels]
    divisor: ti.i32,  # 3 for a mean
    group: ti.template(),
    out_positions: ti.types.ndarray(ndim=2),  # [n, 3]
):
    for i in range(positions.shape[0]):
        lattices = [[lanes_of(like, 1) for _ in range(4)] for like in (0, real(positions, 0), real(positions, 0))]
        find_lattices(positions, ti.Vector([i]), planes, 1, lattices)
        stride = ti.select(grad_samples.shape[1] == planes.shape[3], 0, planes.shape[3])
        gradient = ti.Vector([real(planes, 0) for _ in range(3)])
        for plane in ti.static(range(3)):
            columns, rows, _u, _v = square_of(lattices, 0, plane, planes)
            products = [lanes_of(real(planes, 0), group) for _ in range(4)]
            for k in range(planes.shape[3] // group):
                for j in ti.static(range(group)):
                    for dv, du in ti.static(ti.ndrange(2, 2)):
                        value = planes[plane, rows[dv], columns[du], k * group + j]
                        products[2 * dv + du][j] += grad_samples[i, plane * stride + k * group + j] * value
            of_u, of_v = slopes_on_plane(products, lattices, 0, plane)
            gradient[AXES[ACROSS[plane]]] += of_u
            gradient[AXES[DOWN[plane]]] += of_v
        for axis in ti.static(range(3)):
            out_positions[i, axis] = gradient[axis] / divisor


@ti.kernel
def sample_tri_planes_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grad_samples: ti.types.ndarray(ndim=2),  # [n, n_channels] for all planes, or [n, 3 * n_channels]
    divisor: ti.i32,  # 3 for a mean
    group: ti.template(),
    log_parts: ti.i32,
    out_planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels], added to
):
    """The gradient of the planes, with atomic additions: for GPUs."""
    for q in range(positions.shape[0] << log_parts):
        i = q >> log_parts
        part = q - (i << log_parts)
        lattices = [[lanes_of(like, 1) for _ in range(4)] for like in (0, real(positions, 0), real(positions, 0))]
        find_lattices(positions, ti.Vector([i]), out_planes, 1, lattices)
        stride = ti.select(grad_samples.shape[1] == out_planes.shape[3], 0, out_planes.shape[3])
        n_groups = out_planes.shape[3] // group
        share = (n_groups + (1 << log_parts) - 1) >> log_parts
        for k in range(part * share, ti.min((part + 1) * share, n_groups)):
            for plane in ti.static(range(3)):
                columns, rows, fraction_u, fraction_v = square_of(lattices, 0, plane, out_planes)
                for dv, du in ti.static(ti.ndrange(2, 2)):
                    weight = weight_of(fraction_v, dv) * weight_of(fraction_u, du) / divisor
                    for j in ti.static(range(group)):
                        cotangent = grad_samples[i, plane * stride + k * group + j]
                        out_planes[plane, rows[dv], columns[du], k * group + j] += weight * cotangent


@ti.kernel
def sample_tri_planes_owned_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels]
    grad_samples: ti.types.ndarray(ndim=2),  # [n, n_channels] for all planes, or [n, 3 * n_channels]
    divisor: ti.i32,  # 3 for a mean
    order: ti.types.ndarray(ndim=1),  # [n] int32, or [1] for the positions' own
    owners: ti.types.ndarray(ndim=1),  # [height] int32
    n_owners: ti.i32,
    n_lanes: ti.template(),
    group: ti.template(),
    with_positions: ti.template(),
    out_planes: ti.types.ndarray(ndim=4),  # [3, height, width, n_channels], added to
    out_positions: ti.types.ndarray(ndim=3),  # [2, n, 3], if with_positions: from the two planes of each axis, to add up
):
    """Both gradients without atomics: row v of every plane, and the samples just below, belong to thread owners[v].

    A thread reads all positions and adds what falls on its own rows. 512 iterations a thread, of which one works,
    because Taichi runs shorter loops on one core.
    """
    for q in range(n_owners * 512):
        n_positions, n_groups = positions.shape[0], planes.shape[3] // group
        stride = ti.select(grad_samples.shape[1] == planes.shape[3], 0, planes.shape[3])
        for block in range((n_positions + n_lanes - 1) // n_lanes if q % 512 == 0 else 0):
            lattices = [[lanes_of(like, n_lanes) for _ in range(4)] for like in (0, real(positions, 0), real(positions, 0))]
            which = in_turn(order, block * n_lanes, n_positions, n_lanes)
            find_lattices(positions, which, planes, n_lanes, lattices)
            for lane in range(ti.min(n_lanes, n_positions - block * n_lanes)):
                i = which[lane]
                for plane in ti.static(range(3)):
                    columns, rows, fraction_u, fraction_v = square_of(lattices, lane, plane, planes)
                    owns = [owners[rows[dv]] == q // 512 for dv in range(2)]
                    if owns[0] or owns[1]:
                        products = [lanes_of(real(planes, 0), group) for _ in range(4)]
                        for k in range(n_groups):
                            cotangent = lanes_of(real(planes, 0), group)
                            for j in ti.static(range(group)):
                                cotangent[j] = grad_samples[i, plane * stride + k * group + j] / divisor
                            for dv, du in ti.static(ti.ndrange(2, 2)):
                                if ti.static(with_positions):
                                    for j in ti.static(range(group)):
                                        value = planes[plane, rows[dv], columns[du], k * group + j]
                                        products[2 * dv + du][j] += cotangent[j] * value
                                if owns[dv]:
                                    weight = weight_of(fraction_v, dv) * weight_of(fraction_u, du)
                                    total = lanes_of(real(planes, 0), group)
                                    for j in ti.static(range(group)):
                                        old = out_planes[plane, rows[dv], columns[du], k * group + j]
                                        total[j] = old + weight * cotangent[j]
                                    for j in ti.static(range(group)):
                                        out_planes[plane, rows[dv], columns[du], k * group + j] = total[j]
                        if ti.static(with_positions):
                            if owns[0]:
                                of_u, of_v = slopes_on_plane(products, lattices, lane, plane)
                                out_positions[0 if ti.static(plane == 0) else 1, i, AXES[ACROSS[plane]]] = of_u
                                out_positions[1 if ti.static(plane == 2) else 0, i, AXES[DOWN[plane]]] = of_v
