"""Which implementation of a small network to take: torch's matrix products or the fused kernel.

Measured on the device itself where that is cheap, on GPUs whose memory torch shares. On processors torch multiplies bfloat16 or
is as fast as the kernel (benchmarks/RESULTS.md), and where a backend copies torch's tensors, the copies decide: there torch is
taken without asking, except in a training that stays on the device, which takes the kernel.
"""

import time
from functools import lru_cache
from typing import NamedTuple

import torch

from taichi_nerf.fields.mlp import Implementation, Mlp, Precision
from taichi_nerf.runtime import current

N_ROWS, N_REPEATS = 2**15, 5


class Times(NamedTuple):
    """Milliseconds of a forward and a backward pass."""

    torch: float
    taichi: float


def chosen(implementation: Implementation, widths: tuple[int, ...], precision: Precision) -> Implementation:
    """What "auto" stands for."""
    fits = max(widths) <= 64 and 3 <= len(widths) <= 5
    if implementation == "taichi" and not fits:
        told = " to ".join(map(str, widths))
        raise ValueError(
            f"mlp.implementation=taichi: takes two to four layers of at most 64 numbers, not {told}; torch takes any"
        )
    if implementation != "auto":
        return implementation
    if current().arch != "cuda" or not fits:
        return "torch"
    found = measured(widths, precision)
    return "taichi" if found.taichi < found.torch else "torch"


@lru_cache(maxsize=16)
def measured(widths: tuple[int, ...], precision: Precision, n_rows: int = N_ROWS) -> Times:
    """Both, on the backend that runs; the median of a few."""
    return Times(*(_milliseconds(widths, precision, kind, n_rows) for kind in ("torch", "taichi")))


def _milliseconds(widths: tuple[int, ...], precision: Precision, implementation: Implementation, n_rows: int) -> float:
    device = current().torch_device
    generator = torch.Generator().manual_seed(0)
    mlp = Mlp(widths, generator, precision, implementation=implementation).to(device)
    rows = torch.rand(n_rows, widths[0], generator=generator).to(device)
    found = []
    for _ in range(N_REPEATS + 1):  # the first compiles
        _wait(device)
        before = time.perf_counter()
        mlp(rows).float().sum().backward()
        _wait(device)
        found.append(1e3 * (time.perf_counter() - before))
    return sorted(found[1:])[N_REPEATS // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
