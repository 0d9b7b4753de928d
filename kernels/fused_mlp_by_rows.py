"""The multilayer perceptron of `kernels/fused_mlp.py` for GPUs without matrix units: nothing but additions and products.

A thread takes 8 rows through all layers, 8 units at a time: 64 sums in registers, which 8 activations and 8 weights, the
same for all threads, feed at each step. What lies between the layers goes through memory that only this thread touches,
32 threads side by side, so neither shared memory nor barriers are needed. `n_threads` of them work at a time, for that
memory to stay small; the caller goes on from `start` to `start`.

For the weights' gradients the roles change: a thread adds up 8 x 8 entries of a matrix over its share of the rows, into
a sum of its own (`partial`), and the shares are added last: no atomics.

Measured on lavapipe (GFLOP per processor second, forward, 64 wide): 4.7; one row per thread in a private array 1.9; tiles
of 64 rows in shared memory by groups of 64 threads, 8 x 8 sums each, 1.4: barriers are dear where a processor plays GPU.
Larger sums (8 x 16) gain nothing there and compile for minutes. On paper 16 loads for 64 products are what the first cache
of a GPU delivers; none was at hand. Compiled for CUDA (sm_90): about 170 registers, none spilled. Results are stored without
asking whether there is such a unit, as there always is room: with a branch for each the passes took 15 s to compile, not 8.
"""

import taichi as ti

from taichi_nerf.kernels import activations
from taichi_nerf.kernels.device_functions import lanes_of, real

SIDE = 64  # the widest layer
BLOCK = 8  # rows of a thread, units at a time
GROUP = 32  # threads whose values lie side by side


@ti.func
def room_of(thread, n_values):
    """Where the values of a thread's rows begin: value x of row r lies `spot(x, r)` behind it."""
    return thread // GROUP * n_values * (BLOCK * GROUP) + thread % GROUP


@ti.func
def spot(x, r):
    return (x * BLOCK + r) * GROUP


@ti.func
def multiply_rows(
    values: ti.template(), x, weights: ti.template(), place, step, unit, unit_step, n_units, n_steps, sums: ti.template()
):
    """sums[u][r] += Σ_k values[x + spot(k, r)] weights[place + k step + (unit + u) unit_step]."""
    for k in range(n_steps):
        line = lanes_of(real(weights, 0), BLOCK)
        for r in ti.static(range(BLOCK)):
            line[r] = values[x + spot(k, r)]
        for u in ti.static(range(BLOCK)):
            weight = weights[place + k * step + ti.min(unit + u, n_units - 1) * unit_step]  # beyond the last: not used
            for r in ti.static(range(BLOCK)):
                sums[u][r] += weight * line[r]


@ti.func
def threads_for(n, start, n_threads):
    """As many as have 8 rows each, and a group to share the rest: row r of a thread is start + r threads + thread."""
    wanted = (ti.max(n - start, 0) + BLOCK - 1) // BLOCK
    return ti.min((wanted + GROUP - 1) // GROUP * GROUP, n_threads)


@ti.func
def fetch_rows(rows: ti.template(), first, last, thread, n_threads, hidden: ti.template(), room):
    """A thread's rows first + thread, first + thread + n_threads, …; the last row stands in for those behind it."""
    for k in range(rows.shape[1]):
        for r in range(BLOCK):
            hidden[room + spot(k, r)] = rows[ti.min(first + r * n_threads + thread, last), k]


@ti.kernel
def forward_by_rows(
    n: ti.types.ndarray(ndim=1),  # [>= 1] first of all: how many rows there are, which the host need not know
    rows: ti.types.ndarray(ndim=2),  # [>= n, n_in]
    weights: ti.types.ndarray(ndim=1),  # [n_weights]
    layers: ti.types.ndarray(ndim=2),  # [n_layers, 3]: first weight, n_in, n_out
    output: ti.i32,  # one of activations.OUTPUT
    start: ti.i32,
    most_threads: ti.i32,
    hidden: ti.types.ndarray(ndim=1),  # [n_threads * 8 * 2 * 64] room to work in
    out: ti.types.ndarray(ndim=2),  # [>= n, n_out]
):
    """Rows start to start + 8 most_threads."""
    for thread in range(threads_for(n[0], start, most_threads)):
        n_threads = threads_for(n[0], start, most_threads)
        n_layers, room = layers.shape[0], room_of(thread, 2 * SIDE)
        fetch_rows(rows, start, n[0] - 1, thread, n_threads, hidden, room)
        for layer in range(n_layers):
            first, n_in, n_out = layers[layer, 0], layers[layer, 1], layers[layer, 2]
            x, to = [room + spot(each % 2 * SIDE, 0) for each in (layer, layer + 1)]
            for block in range((n_out + BLOCK - 1) // BLOCK):
                sums = [lanes_of(real(weights, 0), BLOCK) for _ in range(BLOCK)]
                unit = block * BLOCK
                multiply_rows(hidden, x, weights, first, 1, unit, n_in, n_out, n_in, sums)
                for u in ti.static(range(BLOCK)):  # units past the last have room too, and are not used
                    for r in ti.static(range(BLOCK)):
                        is_off = layer < n_layers - 1 and sums[u][r] < 0  # a NaN stays one
                        hidden[to + spot(unit + u, r)] = ti.select(is_off, real(weights, 0), sums[u][r])
        last = room + spot(n_layers % 2 * SIDE, 0)
        for o in range(out.shape[1]):
            for r in range(BLOCK):
                i = start + r * n_threads + thread
                if i < n[0]:
                    out[i, o] = activations.activated(hidden[last + spot(o, r)], output)


@ti.kernel
def forward_by_rows_adjoint(
    n: ti.types.ndarray(ndim=1),  # [>= 1] first of all: how many rows there are, which the host need not know
    rows: ti.types.ndarray(ndim=2),  # [>= n, n_in]
    weights: ti.types.ndarray(ndim=1),  # [n_weights]
    layers: ti.types.ndarray(ndim=2),  # [n_layers, 3]
    out: ti.types.ndarray(ndim=2),  # [>= n, n_out] what the forward pass gave
    grad: ti.types.ndarray(ndim=2),  # [>= n, n_out]
    output: ti.i32,  # one of activations.OUTPUT
    with_rows: ti.template(),
    start: ti.i32,
    most_threads: ti.i32,
    hidden: ti.types.ndarray(ndim=1),  # [n_threads * 8 * n_layers * 64], the layers' inputs
    deltas: ti.types.ndarray(ndim=1),  # [n_threads * 8 * n_layers * 64], the cotangents of their outputs
    out_rows: ti.types.ndarray(ndim=2),  # [>= n, n_in], if with_rows
):
    """Rows start to start + 8 most_threads: the hidden layers once more, then the cotangents from the last layer to the first."""
    for thread in range(threads_for(n[0], start, most_threads)):
        n_threads = threads_for(n[0], start, most_threads)
        n_layers, room = layers.shape[0], room_of(thread, layers.shape[0] * SIDE)
        fetch_rows(rows, start, n[0] - 1, thread, n_threads, hidden, room)
        for layer in range(n_layers - 1):
            first, n_in, n_out = layers[layer, 0], layers[layer, 1], layers[layer, 2]
            x, to = [room + spot(each * SIDE, 0) for each in (layer, layer + 1)]
            for block in range((n_out + BLOCK - 1) // BLOCK):
                sums = [lanes_of(real(weights, 0), BLOCK) for _ in range(BLOCK)]
                unit = block * BLOCK
                multiply_rows(hidden, x, weights, first, 1, unit, n_in, n_out, n_in, sums)
                for u in ti.static(range(BLOCK)):
                    for r in ti.static(range(BLOCK)):
                        hidden[to + spot(unit + u, r)] = activations.rectified(sums[u][r])
        for o in range(out.shape[1]):
            for r in range(BLOCK):
                i = start + r * n_threads + thread
                delta = real(weights, 0)
                if i < n[0]:
                    delta = grad[i, o] * activations.slope(real(weights, 1) * out[i, o], output)
                deltas[room + spot((n_layers - 1) * SIDE + o, r)] = delta
        for back in range(n_layers if ti.static(with_rows) else n_layers - 1):
            layer = n_layers - 1 - back
            first, n_in, n_out = layers[layer, 0], layers[layer, 1], layers[layer, 2]
            x = room + spot(layer * SIDE, 0)
            for block in range((n_in + BLOCK - 1) // BLOCK):
                sums = [lanes_of(real(weights, 0), BLOCK) for _ in range(BLOCK)]
                unit = block * BLOCK
                multiply_rows(deltas, x, weights, first, n_in, unit, 1, n_in, n_out, sums)
                if layer > 0:
                    for u in ti.static(range(BLOCK)):
                        for r in ti.static(range(BLOCK)):
                            is_off = hidden[x + spot(unit + u, r)] <= 0
                            deltas[x + spot(unit + u - SIDE, r)] = ti.select(is_off, real(weights, 0), sums[u][r])
                elif ti.static(with_rows):
                    for r in ti.static(range(BLOCK)):
                        i = start + r * n_threads + thread
                        if i < n[0]:
                            for u in ti.static(range(BLOCK)):  # past the last unit comes the last once more
                                out_rows[i, ti.min(unit + u, n_in - 1)] = sums[u][r]


@ti.func
def block_of(layers: ti.template(), task):
    """Which layer, outputs and inputs are the `task`-th block of 8 x 8 weights; a layer past the last if there is none."""
    layer, left, n_blocks, n_across = 0, task, 0, 1
    for candidate in range(layers.shape[0]):
        if layer == candidate:
            n_across = (layers[candidate, 1] + BLOCK - 1) // BLOCK
            n_blocks = n_across * ((layers[candidate, 2] + BLOCK - 1) // BLOCK)
            if left >= n_blocks:
                left -= n_blocks
                layer += 1
    return layer, left // n_across * BLOCK, left % n_across * BLOCK


@ti.kernel
def weights_by_blocks_adjoint(
    n: ti.types.ndarray(ndim=1),  # [>= 1]
    layers: ti.types.ndarray(ndim=2),  # [n_layers, 3]
    hidden: ti.types.ndarray(ndim=1),  # [n_threads * 8 * n_layers * 64]
    deltas: ti.types.ndarray(ndim=1),  # [n_threads * 8 * n_layers * 64]
    start: ti.i32,
    most_threads: ti.i32,
    n_blocks: ti.i32,  # of 8 x 8 weights, in all layers
    n_shares: ti.i32,
    partial: ti.types.ndarray(ndim=2),  # [n_weights, n_shares], added to but by the first
):
    """Σ over the rows of delta[o] x[i]: each share takes the rows of every n_shares-th thread of the pass before."""
    for q in range(n_blocks * n_shares):
        share = q % n_shares
        layer, output, inner = block_of(layers, q // n_shares)
        first, n_in, n_out = layers[layer, 0], layers[layer, 1], layers[layer, 2]
        sums = [lanes_of(real(deltas, 0), BLOCK) for _ in range(BLOCK)]
        n_threads = threads_for(n[0], start, most_threads)
        for turn in range((n_threads - share + n_shares - 1) // n_shares * BLOCK):
            room = room_of(share + turn // BLOCK * n_shares, layers.shape[0] * SIDE)
            x = room + spot(layer * SIDE, turn % BLOCK)
            line = lanes_of(real(deltas, 0), BLOCK)
            for j in ti.static(range(BLOCK)):
                line[j] = hidden[x + spot(ti.min(inner + j, n_in - 1), 0)]
            for u in ti.static(range(BLOCK)):
                delta = deltas[x + spot(ti.min(output + u, n_out - 1), 0)]
                for j in ti.static(range(BLOCK)):
                    sums[u][j] += delta * line[j]
        for u in ti.static(range(BLOCK)):
            for j in ti.static(range(BLOCK)):
                if output + u < n_out and inner + j < n_in:
                    place = first + (output + u) * n_in + inner + j
                    old = partial[place, share] if start != 0 else real(deltas, 0)
                    partial[place, share] = old + sums[u][j]


@ti.kernel
def weights_adjoint(
    partial: ti.types.ndarray(ndim=2),  # [n_weights, n_shares]
    out_weights: ti.types.ndarray(ndim=1),  # [n_weights], added to
):
    for place in range(out_weights.shape[0]):
        total = real(partial, 0)
        for share in range(partial.shape[1]):
            total += partial[place, share]
        out_weights[place] = out_weights[place] + total
