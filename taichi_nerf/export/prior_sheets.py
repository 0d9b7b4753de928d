"""Sheets of patches: colors above depths, near light and far dark."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.export.colors import as_array, color_depth, to_bytes

ENLARGED = 3  # times
GAP = 2  # pixels between patches, before they are enlarged
NEAR, FAR = 0.4, 8.0  # metres


def sheet(patches: Tensor, variant: str, nearest: float, n_columns: int = 12) -> NDArray[Any]:  # [n, channels, h, w] in [-1, 1]
    """[height, width, 3] bytes."""
    unit = as_array((patches + 1) / 2)
    rows = []
    for first in range(0, len(unit), n_columns):
        some = unit[first : first + n_columns]
        if variant != "d":
            rows.append([to_bytes(np.moveaxis(patch[:3], 0, -1)) for patch in some])
        if variant != "rgb":
            depths = [nearest / np.maximum(patch[-1], 1e-6) for patch in some]
            rows.append([color_depth(depth, NEAR, FAR, inverse=True) for depth in depths])
    height, width = unit.shape[2] + GAP, unit.shape[3] + GAP
    page = np.full((len(rows) * height, n_columns * width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            page[i * height : (i + 1) * height - GAP, j * width : (j + 1) * width - GAP] = picture
    return page.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
