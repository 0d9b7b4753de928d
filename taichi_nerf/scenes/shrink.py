"""Pictures of another size, by averages over areas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taichi_nerf.bands import bands

Array = NDArray[Any]
AT_ONCE = 2**20  # numbers that are floats at a time: of 134 megapixels, a panorama's, they would take gigabytes


def shrink(image: Array, width: int, height: int) -> Array:
    """Area-averaged to a smaller size, alpha-weighted where there is alpha, in the type it has."""
    if image.shape[:2] == (height, width):
        return image
    low = np.empty((height, image.shape[1], image.shape[2]), np.float32)
    for columns in bands(image.shape[1], len(image) * image.shape[2], AT_ONCE):
        values = image[:, columns].astype(np.float32)
        if image.shape[2] == 4:
            values[..., :3] *= values[..., 3:]
        low[:, columns] = _average_rows(values, height)
    small = np.empty((height, width, image.shape[2]), image.dtype)
    for rows in bands(height, low[0].size, AT_ONCE):
        values = _average_rows(low[rows].swapaxes(0, 1), width).swapaxes(0, 1)
        if image.shape[2] == 4:
            values[..., :3] /= np.maximum(values[..., 3:], 1e-6)
        if np.issubdtype(image.dtype, np.integer):
            values = np.clip(np.rint(values), 0, np.iinfo(image.dtype).max)
        small[rows] = values
    return small


def _average_rows(values: Array, n: int) -> Array:
    """[h, w, c] to [n, w, c]: exact averages over n equal strips; to more rows, linear interpolation."""
    h = len(values)
    if n > h:
        at = np.clip((np.arange(n) + 0.5) * h / n - 0.5, 0, h - 1)
        low = np.floor(at).astype(int)
        t = (at - low)[:, None, None].astype(np.float32)
        return values[low] * (1 - t) + values[np.minimum(low + 1, h - 1)] * t
    if h % n == 0:
        total = values[:: h // n].copy()  # row by row: NumPy's `mean` over an axis in the middle takes twice the time
        for i in range(1, h // n):
            total += values[i :: h // n]
        return total / (h // n)
    edges = np.arange(n + 1) * h / n
    sums = np.concatenate([np.zeros_like(values[:1], np.float64), values.cumsum(0, dtype=np.float64)])
    low = np.minimum(np.floor(edges).astype(int), h - 1)
    at_edges = sums[low] + (edges - low)[:, None, None] * values[low]
    return (np.diff(at_edges, axis=0) * n / h).astype(np.float32)
