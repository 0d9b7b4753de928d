"""Positional encoding by sines and cosines of octaves. See `kernels/frequency_encoding.py` for the formulas."""

import math
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import frequency_encoding as kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.runtime import current

ORDERS = ("per_frequency", "per_function")
MOST_FREQUENCIES = 30  # 2^k is a 32-bit integer


def frequency_encoding(
    x: Tensor,  # [n_points, n_dimensions]
    *,
    n_frequencies: int,
    base_frequency: float = 1.0,
    include_identity: bool = True,
    order: str = "per_frequency",
    window: Tensor | None = None,  # [n_frequencies]
) -> Tensor:  # [n_points, 2 * n_frequencies * n_dimensions (+ n_dimensions)]
    """Encode coordinates as [x, w_k sin(2^k φ), w_k cos(2^k φ)] of φ = base_frequency · x, k = 0 … n_frequencies - 1.

    The order of the columns after x (which `include_identity=False` leaves out), with all coordinates innermost:

    - "per_frequency": sin(φ), cos(φ), sin(2φ), cos(2φ), … as NeRF and pixelNeRF;
    - "per_function": sin(φ), sin(2φ), …, cos(φ), cos(2φ), … as jaxnerf and mip-NeRF.

    NeRF's paper multiplies x by π, its code does not: `base_frequency` is 1 for the code, `math.pi` for the paper and BARF,
    1.5 for pixelNeRF. `window` weighs both waves of each frequency (see `barf_window`); it is a schedule, without gradient.
    """
    if order not in ORDERS:
        raise ValueError(f"frequency_encoding: order has to be one of {', '.join(ORDERS)}, got {order!r}")
    if not 1 <= n_frequencies <= MOST_FREQUENCIES:
        raise ValueError(f"frequency_encoding: n_frequencies has to be 1 to {MOST_FREQUENCIES}, got {n_frequencies}")
    check("frequency_encoding", x=(x, "n_points n_dimensions"), window=(window, str(n_frequencies)))
    if window is None:
        window = x.new_ones(n_frequencies)
    return _FrequencyEncoding.apply(x, window, float(base_frequency), include_identity, order)


def barf_window(alpha: float, n_frequencies: int) -> Tensor:  # [n_frequencies]
    """BARF's weights w_k = (1 - cos(π clip(alpha - k, 0, 1))) / 2 (Lin et al. 2021, equation 14), from coarse to fine.

    Octave k opens smoothly while `alpha` goes from k to k + 1: 0 hides all, `n_frequencies` shows all.
    """
    opened = (alpha - torch.arange(n_frequencies, dtype=torch.float32, device=current().torch_device)).clamp(0, 1)
    return (1 - torch.cos(math.pi * opened)) / 2


class _FrequencyEncoding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, window, base_frequency, include_identity, order):  # type: ignore[no-untyped-def]
        (n_points, n_dimensions), n_frequencies = x.shape, len(window)
        first_column = n_dimensions if include_identity else 0
        # Distance from one frequency to the next, and from a sine to its cosine.
        strides = (2 * n_dimensions, n_dimensions) if order == "per_frequency" else (n_dimensions, n_dimensions * n_frequencies)
        out = fresh(x, n_points, first_column + 2 * n_dimensions * n_frequencies)
        check("frequency_encoding", output=(out, "n_points n_columns"))
        if out.numel():
            n_lanes, n_parts = (8, 1) if current().arch == "cpu" else (1, n_frequencies)
            layout = (base_frequency, first_column, *strides, n_lanes, n_parts)
            launch(kernels.encode_frequencies, plain(x), plain(window), *layout, out)
        ctx.save_for_backward(out)
        ctx.layout = (n_frequencies, base_frequency, first_column, *strides)
        ctx.shape = x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out):  # type: ignore[no-untyped-def]
        out = ctx.saved_tensors[0].detach()
        of_x = out.new_empty(ctx.shape)
        if of_x.numel():
            launch(kernels.encode_frequencies_adjoint, out, plain(grad_out), *ctx.layout, of_x)
        return of_x, None, None, None, None
