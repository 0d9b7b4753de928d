"""Learning rates as pure functions of progress: 0 at the first step, 1 when the budget is spent.

Progress rather than steps, so that a budget of seconds has the same schedule as one of steps (`budget.Budget.progress`).
"""

import math


def late_decay(progress: float, start: float = 0.5, final: float = 0.02) -> float:
    """A factor: 1 up to `start`, from there exponentially down to `final`, which it reaches at 1.

    f(p) = final^((p - start) / (1 - start)) for p > start. instant-ngp holds its rate likewise before it decays.
    """
    if not (0 <= start < 1 and final > 0):
        raise ValueError(f"late_decay: expected 0 <= start < 1 and final > 0, got start {start} and final {final}")
    return float(final ** max((min(progress, 1.0) - start) / (1 - start), 0.0))


def ramp(progress: float, over: float) -> float:
    """A factor: up a straight line from 0 to 1 over the first `over` of the training."""
    return grown(progress, 0.0, over)


def grown(progress: float, first: float, full: float) -> float:
    """A factor: 0 up to the share `first` of the training, then up a straight line to 1 at `full`."""
    if progress >= full:
        return 1.0
    return (progress - first) / (full - first) if progress > first else 0.0


def log_linear(progress: float, first: float, last: float, delay: float = 0.0, delay_factor: float = 1.0) -> float:
    """A rate: a straight line between the logarithms of `first` and `last`, held back over the first `delay` of the training.

    f(p) = first^(1 - p) last^p (d + (1 - d) sin(π/2 min(p / delay, 1))) with d = `delay_factor`: JaxNeRF's schedule (Deng et al.
    2020), that of mip-NeRF and its successors.
    """
    if not (first > 0 and last > 0 and 0 <= delay <= 1 and 0 <= delay_factor <= 1):
        raise ValueError(
            f"log_linear: expected positive rates and a delay in [0, 1], got {first}, {last}, {delay}, {delay_factor}"
        )
    p = min(max(progress, 0.0), 1.0)
    held = delay_factor + (1 - delay_factor) * math.sin(math.pi / 2 * min(p / delay, 1.0)) if delay > 0 else 1.0
    return float(first ** (1 - p) * last**p * held)


def cosine(progress: float, final: float = 0.0, warm_up: float = 0.0) -> float:
    """A factor: up a straight line over the first `warm_up` of the training, then down half a cosine from 1 to `final`.

    f(p) = final + (1 - final) (1 + cos(π q)) / 2 with q = (p - warm_up) / (1 - warm_up) (Loshchilov and Hutter 2017).
    """
    if not (final >= 0 and 0 <= warm_up < 1):
        raise ValueError(f"cosine: expected final >= 0 and 0 <= warm_up < 1, got {final} and {warm_up}")
    p = min(max(progress, 0.0), 1.0)
    if p < warm_up:
        return p / warm_up
    return final + (1 - final) * (1 + math.cos(math.pi * (p - warm_up) / (1 - warm_up))) / 2
