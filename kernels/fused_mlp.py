"""A small multilayer perceptron in one kernel, on CPUs: no biases, ReLU between the layers; and its adjoint.

    x_0 = rows      x_{l+1} = max(W_l x_l, 0)      out = activation(W_last x_last)

`weights` holds the matrices W_l [n_out, n_in] one after the other, `layers` where each begins and its two sizes, of at most 64.

A thread takes tiles of 64 rows through all layers (Müller 2021, tiny-cuda-nn, does so with tensor cores). Everything it
needs lies in squares of 64 x 64 in `work`, which a core's L2 cache holds: 4 for each layer. All three products, forward, of
the rows' cotangents and of the weights', are one: 16 rows times 16 lanes, of which LLVM keeps the 256 sums in vector
registers. The adjoint computes the hidden layers anew, as keeping them would cost more memory traffic than arithmetic; each
thread adds up its own gradient of the weights, and the few of them are added last: nothing is atomic.

Measured, 32-64-64-3 on a Zen 5 core against torch's float32 products in chunks: forward 0.8 of their speed, backward 0.55.
16 x 16 sums reach 84 GFLOP/s, 8 x 16 69, 4 x 16 46; 8 x 32 no longer fit the registers: 34. Stores in loops of their own
gave the forward pass a quarter.
`kernels/fused_mlp_by_rows.py` is the same for GPUs.
"""

import taichi as ti

from taichi_nerf.kernels import activations
from taichi_nerf.kernels.device_functions import lanes_of, real

SIDE = 64  # rows of a tile, and the widest layer
SQUARE = SIDE * SIDE
SLICE = 512  # as in kernels/hash_grid.py: of so many iterations one works, which gives each slice a thread
LANES = 16


@ti.func
def n_turns(first, n, step):
    """How many of first, first + step, … are below n."""
    return (n - first + step - 1) // step


@ti.func
def multiply_lanes(work: ti.template(), a, row_step: ti.template(), step: ti.template(), b, n_steps, sums: ti.template()):
    """sums[r][lane] += Σ_k A[r, k] B[k, lane], where A[r, k] is work[a + r row_step + k step]."""
    for k in range(n_steps):
        line = lanes_of(real(work, 0), LANES)
        for lane in range(LANES):
            line[lane] = work[b + k * SIDE + lane]
        for r in ti.static(range(LANES)):
            factor = work[a + r * row_step + k * step]
            for lane in range(LANES):
                sums[r][lane] += factor * line[lane]


@ti.func
def pack_weights(weights: ti.template(), first, n_in, n_out, is_turned: ti.template(), work: ti.template(), to):
    """A layer's matrix [n_out, n_in], or its transpose, with zeros around."""
    for entry in range(SQUARE):
        work[to + entry] = 0
    for o in range(n_out):
        for i in range(n_in):
            work[to + (i * SIDE + o if ti.static(is_turned) else o * SIDE + i)] = weights[first + o * n_in + i]


@ti.func
def fetch_rows(rows: ti.template(), start, n, work: ti.template(), to):
    """A tile's rows, zeros below the last."""
    n_in = rows.shape[1]
    for r in range(SIDE):
        for block in range((n_in + LANES - 1) // LANES if start + r < n else 0):
            line, n_lanes = lanes_of(real(work, 0), LANES), n_in - block * LANES
            if n_lanes >= LANES:
                for lane in range(LANES):
                    line[lane] = rows[start + r, block * LANES + lane]
            else:
                for lane in range(n_lanes):
                    line[lane] = rows[start + r, block * LANES + lane]
            for lane in range(LANES):
                work[to + r * SIDE + block * LANES + lane] = line[lane]
        for i in range(0 if start + r < n else SIDE):
            work[to + r * SIDE + i] = 0


@ti.func
def forward_lanes(work: ti.template(), x, matrix, n_in, n_out, is_hidden, to):
    for row_block, unit_block in ti.ndrange(SIDE // LANES, (n_out + LANES - 1) // LANES):
        sums = [lanes_of(real(work, 0), LANES) for _ in range(LANES)]
        r, u = row_block * LANES, unit_block * LANES
        multiply_lanes(work, x + r * SIDE, SIDE, 1, matrix + u, n_in, sums)
        for k in ti.static(range(LANES)):
            if is_hidden:
                for lane in range(LANES):
                    sums[k][lane] = activations.rectified(sums[k][lane])
            for lane in range(LANES):
                work[to + (r + k) * SIDE + u + lane] = sums[k][lane]


@ti.kernel
def forward_by_lanes(
    n: ti.i32,
    rows: ti.types.ndarray(ndim=2),  # [>= n, n_in]
    weights: ti.types.ndarray(ndim=1),  # [n_weights]
    layers: ti.types.ndarray(ndim=2),  # [n_layers, 3]: first weight, n_in, n_out
    output: ti.i32,  # one of activations.OUTPUT
    n_slices: ti.i32,
    n_work: ti.i32,  # of a slice: n_layers + 2 squares
    work: ti.types.ndarray(ndim=1),  # [n_slices * n_work]
    out: ti.types.ndarray(ndim=2),  # [>= n, n_out]
):
    for q in range(n_slices * SLICE):
        if q % SLICE == 0:
            n_layers, turned = layers.shape[0], q // SLICE * n_work
            x = turned + n_layers * SQUARE
            for layer in range(n_layers):
                first, n_in, n_out = layers[layer, 0], layers[layer, 1], layers[layer, 2]
                pack_weights(weights, first, n_in, n_out, True, work, turned + layer * SQUARE)
            for turn in range(n_turns(q // SLICE, (n + SIDE - 1) // SIDE, n_slices)):
                start = (q // SLICE + turn * n_slices) * SIDE
                fetch_rows(rows, start, n, work, x)
                for layer in range(n_layers):
                    source, target = x + layer % 2 * SQUARE, x + (layer + 1) % 2 * SQUARE
                    matrix, is_hidden = turned + layer * SQUARE, layer < n_layers - 1
                    forward_lanes(work, source, matrix, layers[layer, 1], layers[layer, 2], is_hidden, target)
                for r in range(ti.min(SIDE, n - start)):
                    for o in range(out.shape[1]):
                        out[start + r, o] = activations.activated(work[x + n_layers % 2 * SQUARE + r * SIDE + o], output)


@ti.func
def backward_lanes(work: ti.template(), delta, matrix, x, n_in, n_out, is_hidden, to):
    """Cotangents of a layer's inputs x from those of its outputs."""
    for row_block, unit_block in ti.ndrange(SIDE // LANES, (n_in + LANES - 1) // LANES):
        sums = [lanes_of(real(work, 0), LANES) for _ in range(LANES)]
        r, u = row_block * LANES, unit_block * LANES
        multiply_lanes(work, delta + r * SIDE, SIDE, 1, matrix + u, n_out, sums)
        for k in ti.static(range(LANES)):
            place = (r + k) * SIDE + u
            if is_hidden:
                values = lanes_of(real(work, 0), LANES)
                for lane in range(LANES):
                    values[lane] = work[x + place + lane]
                for lane in range(LANES):
                    sums[k][lane] = ti.select(values[lane] <= 0, real(work, 0), sums[k][lane])
            for lane in range(LANES):
                work[to + place + lane] = sums[k][lane]


@ti.func
def add_products(work: ti.template(), delta, x, n_in, n_out, to):
    """The gradient of a layer's matrix: Σ over the tile's rows of delta[o] x[i]."""
    for out_block, in_block in ti.ndrange((n_out + LANES - 1) // LANES, (n_in + LANES - 1) // LANES):
        sums = [lanes_of(real(work, 0), LANES) for _ in range(LANES)]
        o, i = out_block * LANES, in_block * LANES
        multiply_lanes(work, delta + o, 1, SIDE, x + i, SIDE, sums)
        for k in ti.static(range(LANES)):
            for lane in range(LANES):
                sums[k][lane] += work[to + (o + k) * SIDE + i + lane]
            for lane in range(LANES):
                work[to + (o + k) * SIDE + i + lane] = sums[k][lane]


@ti.kernel
def forward_by_lanes_adjoint(
    n: ti.i32,
    rows: ti.types.ndarray(ndim=2),  # [>= n, n_in]
    weights: ti.types.ndarray(ndim=1),  # [n_weights]
    layers: ti.types.ndarray(ndim=2),  # [n_layers, 3]
    out: ti.types.ndarray(ndim=2),  # [>= n, n_out] what the forward pass gave
    grad: ti.types.ndarray(ndim=2),  # [>= n, n_out]
    output: ti.i32,  # one of activations.OUTPUT
    with_rows: ti.i32,
    with_weights: ti.i32,
    n_slices: ti.i32,
    n_work: ti.i32,  # of a slice: 4 n_layers + 2 squares, the weights' gradients first
    work: ti.types.ndarray(ndim=1),  # [n_slices * n_work]
    out_rows: ti.types.ndarray(ndim=2),  # [>= n, n_in], if with_rows
):
    for q in range(n_slices * SLICE):
        if q % SLICE == 0:
            n_layers, sums = layers.shape[0], q // SLICE * n_work
            turned, upright, x = [sums + part * n_layers * SQUARE for part in range(1, 4)]
            delta = sums + 4 * n_layers * SQUARE
            for layer in range(n_layers):
                first, n_in, n_out = layers[layer, 0], layers[layer, 1], layers[layer, 2]
                pack_weights(weights, first, n_in, n_out, True, work, turned + layer * SQUARE)
                pack_weights(weights, first, n_in, n_out, False, work, upright + layer * SQUARE)
            for entry in range(n_layers * SQUARE):
                work[sums + entry] = 0
            for turn in range(n_turns(q // SLICE, (n + SIDE - 1) // SIDE, n_slices)):
                start = (q // SLICE + turn * n_slices) * SIDE
                fetch_rows(rows, start, n, work, x)
                for layer in range(n_layers - 1):
                    place = x + layer * SQUARE
                    matrix = turned + layer * SQUARE
                    forward_lanes(work, place, matrix, layers[layer, 1], layers[layer, 2], True, place + SQUARE)
                for r in range(SIDE):
                    for o in range(out.shape[1]):
                        place = delta + (n_layers - 1) % 2 * SQUARE + r * SIDE + o
                        if start + r < n:
                            work[place] = grad[start + r, o] * activations.slope(real(work, 1) * out[start + r, o], output)
                        else:
                            work[place] = 0
                for back in range(n_layers):
                    layer = n_layers - 1 - back
                    n_in, n_out, place = layers[layer, 1], layers[layer, 2], x + layer * SQUARE
                    known, found = delta + layer % 2 * SQUARE, delta + (layer + 1) % 2 * SQUARE
                    if with_weights != 0:
                        add_products(work, known, place, n_in, n_out, sums + layer * SQUARE)
                    if with_rows != 0 or layer > 0:
                        backward_lanes(work, known, upright + layer * SQUARE, place, n_in, n_out, layer > 0, found)
                if with_rows != 0:
                    for r in range(ti.min(SIDE, n - start)):
                        for i in range(out_rows.shape[1]):
                            out_rows[start + r, i] = work[delta + SQUARE + r * SIDE + i]


@ti.kernel
def weights_adjoint(
    layers: ti.types.ndarray(ndim=2),  # [n_layers, 3]
    n_slices: ti.i32,
    n_work: ti.i32,
    work: ti.types.ndarray(ndim=1),  # [n_slices * n_work], from `forward_by_lanes_adjoint`
    out_weights: ti.types.ndarray(ndim=1),  # [n_weights], added to
):
    for entry in range(layers.shape[0] * SQUARE):
        layer, o, i = entry // SQUARE, entry // SIDE % SIDE, entry % SIDE
        if o < layers[layer, 2] and i < layers[layer, 1]:
            total = real(work, 0)
            for piece in range(n_slices):
                total += work[piece * n_work + entry]
            place = layers[layer, 0] + o * layers[layer, 1] + i
            out_weights[place] = out_weights[place] + total
