"""Positional encoding by sines and cosines of octaves (Mildenhall et al. 2020, equation 4), and its adjoint.

    φ = base_frequency · x      out = [x, w_k sin(2^k φ), w_k cos(2^k φ)],  k = 0 … n_frequencies - 1

The angle φ is reduced once in two words, of which powers of two are exact, so the highest octave is as accurate as the
lowest: 1.2e-7 up to angles of 1e6, where reducing each product on its own would need a longer π.

The columns of sin(2^k φ_c) start at `first_column + k * frequency_stride + c`; its cosine stands `cosine_offset` further.
A thread takes `n_lanes` rows and every n_parts-th frequency. A CPU wants SIMD lanes and each coordinate reduced once (8, 1):
that is thrice the speed of one row after another. On a GPU (1, n_frequencies) lets neighbors write neighboring memory.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import lanes_of, quarter_turns, real, sincos_of_quarter_turns


@ti.kernel
def encode_frequencies(
    x: ti.types.ndarray(ndim=2),  # [n_points, n_dimensions]
    window: ti.types.ndarray(ndim=1),  # [n_frequencies]
    base_frequency: ti.template(),
    first_column: ti.template(),  # n_dimensions, or 0 without identity
    frequency_stride: ti.i32,
    cosine_offset: ti.i32,
    n_lanes: ti.template(),
    n_parts: ti.i32,
    out: ti.types.ndarray(ndim=2),  # [n_points, n_columns]
):
    for block, part in ti.ndrange((x.shape[0] + n_lanes - 1) // n_lanes, n_parts):
        for c in range(x.shape[1]):
            high, low = lanes_of(real(x, 0), n_lanes), lanes_of(real(x, 0), n_lanes)
            for lane in range(n_lanes):
                i = ti.min(block * n_lanes + lane, x.shape[0] - 1)  # the last row stands in for those that are missing
                high[lane] = x[i, c]
                if ti.static(first_column > 0):
                    if part == 0:
                        out[i, c] = high[lane]
            for lane in range(n_lanes):
                turns, rest = quarter_turns(high[lane] * real(x, base_frequency))
                high[lane], low[lane] = turns * (1 << part), rest * (1 << part)
            column = first_column + c + part * frequency_stride
            for step in range(window.shape[0] // n_parts):
                sines, cosines = lanes_of(real(x, 0), n_lanes), lanes_of(real(x, 0), n_lanes)
                for lane in range(n_lanes):
                    sines[lane], cosines[lane] = sincos_of_quarter_turns(high[lane], low[lane])
                    high[lane], low[lane] = high[lane] * (1 << n_parts), low[lane] * (1 << n_parts)
                weight = window[part + step * n_parts]
                for lane in range(n_lanes):
                    i = ti.min(block * n_lanes + lane, x.shape[0] - 1)
                    out[i, column] = weight * sines[lane]
                    out[i, column + cosine_offset] = weight * cosines[lane]
                column += n_parts * frequency_stride


@ti.kernel
def encode_frequencies_adjoint(
    out: ti.types.ndarray(ndim=2),  # [n_points, n_columns]
    grad_out: ti.types.ndarray(ndim=2),  # [n_points, n_columns]
    n_frequencies: ti.i32,
    base_frequency: ti.template(),
    first_column: ti.template(),
    frequency_stride: ti.i32,
    cosine_offset: ti.i32,
    out_x: ti.types.ndarray(ndim=2),  # [n_points, n_dimensions]
):
    """The derivative of w sin is w cos, which the encoding holds already; where w is 0, so is the gradient."""
    for i, c in ti.ndrange(out_x.shape[0], out_x.shape[1]):
        total = real(out, 0)
        column = first_column + c
        for k in range(n_frequencies):
            sine, cosine = out[i, column], out[i, column + cosine_offset]
            total += (1 << k) * (cosine * grad_out[i, column] - sine * grad_out[i, column + cosine_offset])
            column += frequency_stride
        total *= real(out, base_frequency)
        if ti.static(first_column > 0):
            total += grad_out[i, c]
        out_x[i, c] = total
