"""The ranges of settings, checked where they are made, so that a wrong one is told by its name and before any work is done.

In `__post_init__` of a dataclass: `check_ranges(self, n_levels=AT_LEAST_ONE, dropout=SHARE)`.
"""

import math
import sys
from typing import Any

Range = tuple[float, float]  # least and most
ABOVE_ZERO, BELOW_ONE = sys.float_info.min, math.nextafter(1.0, 0.0)
AT_LEAST_ONE, AT_LEAST_ZERO, POSITIVE = (1, math.inf), (0, math.inf), (ABOVE_ZERO, math.inf)
SEEDS = (-(2.0**63), 2.0**63)  # that torch takes; commands take fewer
# Beyond these nothing is learned better, and a typing error would take all memory, or minutes, before it failed.
LAYERS, WIDTHS, LEVELS, FEATURES = (1, 64), (1, 10_000), (1, 64), (1, 256)  # of networks and of grids
RATE, RATE_ABOVE_ZERO = (0, 100), (ABOVE_ZERO, 100)  # of learning
INTERVALS = (1, 10_000)  # of a ray
RAYS, SAMPLES = (1, 10_000_000), (1, 50_000_000)  # of a step
SHARE, SOME_SHARE, SHARE_BELOW_ONE = (0, 1), (ABOVE_ZERO, 1), (0, BELOW_ONE)


def check_ranges(settings: Any, **ranges: Range) -> None:
    """A `ValueError` that names the first setting outside of its range; None, where nothing is chosen, is in any."""
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name}: expected {_words(least, most)}, got {value:g}")


def _words(least: float, most: float) -> str:
    low = "more than 0" if least == ABOVE_ZERO else f"at least {least:g}"
    if most == math.inf:
        return low
    if most == BELOW_ONE:
        return f"{low} and less than 1"
    return f"{low} and at most {most:g}" if least == ABOVE_ZERO else f"{least:g} to {most:g}"
