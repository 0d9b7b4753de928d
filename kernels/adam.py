"""Adam (Kingma and Ba 2015, algorithm 1), dense and for the touched rows of a table, with the gradient cleared on the way.

    g ← gradient + decay p      m ← m + (1 - β1) (g - m)      v ← β2 v + (1 - β2) g²
    p ← p - rate m / (1 - β1^t) / (sqrt(v) / sqrt(1 - β2^t) + ε)

Dense, t is the number of steps. In a table (a hash grid's, say) a row whose gradient is zero in every column is left
alone, its m and v too, and t is the row's own: how many steps have touched it (Müller 2021, tiny-cuda-nn). So each row
has exactly the Adam of the steps that concern it: its first step is `rate` long whenever it comes, where the step
number of the whole run would make it (1 - β1) / sqrt(1 - β2) times that, and a row nobody looks at does not drift on by old
momentum. Weight decay likewise acts on touched rows only.

`corrections` holds 1 / (1 - β1^t) and 1 / sqrt(1 - β2^t) for t = 1, 2, …, worked out in 64 bits by the caller; the last
stands for all later steps, when they no longer differ from 1. A loop over lanes reads, computes and writes in separate
loops (see `device_functions.lanes_of`); a block of rows that nobody touched costs the reading of its gradient only.
Measured on two Zen 5 cores, 12 million numbers in rows of two, milliseconds of processor time: dense 27; with all, a tenth, a
hundredth of the rows touched 48, 26, 26. torch's fused step and a clearing take 11: where its memory can be torch's, that
is the faster one; these are for arrays that have to stay on a device. Whole blocks apart from the tail gain nothing.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import lanes_of, real

# The places of the settings.
RATE, REST_1, BETA_2, REST_2, EPSILON, DECAY = range(6)  # REST: 1 - β


@ti.func
def index_of(array: ti.template(), i):
    """The indices of element i of an array of any number of dimensions."""
    n_axes = ti.static(len(array.shape))
    index = ti.Vector([i] + [0] * (n_axes - 1))
    for back in ti.static(range(n_axes - 1)):
        axis = ti.static(n_axes - 1 - back)
        index[axis] = index[0] % array.shape[axis]
        index[0] = index[0] // array.shape[axis]
    return index


@ti.func
def moved(value, gradient, mean, mean_square, correction_1, correction_2, settings):
    """New value, mean and mean square of one parameter."""
    g = gradient + settings[DECAY] * value
    m = mean + settings[REST_1] * (g - mean)
    v = settings[BETA_2] * mean_square + settings[REST_2] * g * g
    new = value - settings[RATE] * correction_1 * m / (ti.sqrt(v) * correction_2 + settings[EPSILON])
    return new, m, v


@ti.func
def loaded(settings: ti.template()):
    return ti.Vector([settings[place] for place in ti.static(range(6))])


@ti.kernel
def adam(
    settings: ti.types.ndarray(ndim=1),  # [6]
    corrections: ti.types.ndarray(ndim=2),  # [1, 2]
    n: ti.i32,
    n_lanes: ti.template(),
    clears: ti.template(),
    values: ti.types.ndarray(),  # n elements in any shape, and so on
    grad: ti.types.ndarray(),
    mean: ti.types.ndarray(),
    mean_square: ti.types.ndarray(),
):
    for block in range((n + n_lanes - 1) // n_lanes):
        constants, c_1, c_2 = loaded(settings), corrections[0, 0], corrections[0, 1]
        p, g = lanes_of(real(settings, 0), n_lanes), lanes_of(real(settings, 0), n_lanes)
        m, v = lanes_of(real(settings, 0), n_lanes), lanes_of(real(settings, 0), n_lanes)
        first, n_here = block * n_lanes, ti.min(n_lanes, n - block * n_lanes)
        for lane in range(n_here):
            p[lane] = values[index_of(values, first + lane)]
            g[lane] = grad[index_of(grad, first + lane)]
            m[lane] = mean[index_of(mean, first + lane)]
            v[lane] = mean_square[index_of(mean_square, first + lane)]
        for lane in range(n_lanes):
            p[lane], m[lane], v[lane] = moved(p[lane], g[lane], m[lane], v[lane], c_1, c_2, constants)
        for lane in range(n_here):
            values[index_of(values, first + lane)] = p[lane]
            mean[index_of(mean, first + lane)] = m[lane]
            mean_square[index_of(mean_square, first + lane)] = v[lane]
            if ti.static(clears):
                grad[index_of(grad, first + lane)] = 0


@ti.kernel
def sparse_adam(
    settings: ti.types.ndarray(ndim=1),  # [6]
    corrections: ti.types.ndarray(ndim=2),  # [n_known, 2]
    n_columns: ti.template(),
    n_lanes: ti.template(),
    clears: ti.template(),
    values: ti.types.ndarray(ndim=2),  # [n_rows, n_columns]
    grad: ti.types.ndarray(ndim=2),  # [n_rows, n_columns]
    mean: ti.types.ndarray(ndim=2),  # [n_rows, n_columns]
    mean_square: ti.types.ndarray(ndim=2),  # [n_rows, n_columns]
    counts: ti.types.ndarray(ndim=1),  # [n_rows] int32: how many steps have touched the row
):
    for block in range((values.shape[0] + n_lanes - 1) // n_lanes):
        first, n_here = block * n_lanes, ti.min(n_lanes, values.shape[0] - block * n_lanes)
        g = [lanes_of(real(settings, 0), n_lanes) for _ in range(n_columns)]
        touched, n_touched = lanes_of(0, n_lanes), 0
        for lane in range(n_here):
            for column in ti.static(range(n_columns)):
                g[column][lane] = grad[first + lane, column]
        for lane in range(n_lanes):
            for column in ti.static(range(n_columns)):
                touched[lane] |= ti.select(g[column][lane] == 0, 0, 1)  # for `!=` a NaN would be zero
            n_touched += touched[lane]
        if n_touched > 0:
            constants = loaded(settings)
            for lane in range(n_here):
                if touched[lane] != 0:
                    row = first + lane
                    count = counts[row] + 1
                    counts[row] = count
                    known = ti.min(count, corrections.shape[0]) - 1
                    c_1, c_2 = corrections[known, 0], corrections[known, 1]
                    for column in ti.static(range(n_columns)):
                        p, m, v = values[row, column], mean[row, column], mean_square[row, column]
                        p_new, m_new, v_new = moved(p, g[column][lane], m, v, c_1, c_2, constants)
                        values[row, column] = p_new
                        mean[row, column] = m_new
                        mean_square[row, column] = v_new
                        if ti.static(clears):
                            grad[row, column] = 0
