"""Pictures in rows and columns."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taichi_nerf.export.files import write_png

SHOWN = 96  # pixels that a picture of a grid has at least, a side


def grid(pictures: NDArray[np.uint8], n_columns: int) -> NDArray[np.uint8]:
    """[rows · size, columns · size, 3] of pictures [n, size, size, 3]; white where the last row ends early."""
    n, height, width, _ = pictures.shape
    n_rows = -(-n // n_columns)
    filled = np.full((n_rows * n_columns, height, width, 3), 255, np.uint8)
    filled[:n] = pictures
    return filled.reshape(n_rows, n_columns, height, width, 3).swapaxes(1, 2).reshape(n_rows * height, n_columns * width, 3)


def save_grid(file: Path, pictures: NDArray[np.uint8], n_columns: int) -> None:
    """As a PNG; small pictures are enlarged by whole factors."""
    factor = max(1, -(-SHOWN // pictures.shape[1]))
    write_png(file, grid(pictures, n_columns).repeat(factor, 0).repeat(factor, 1))


def save_rows(file: Path, rows: list[NDArray[np.uint8]]) -> None:
    """Rows of as many pictures [n, size, size, 3] each."""
    save_grid(file, np.concatenate(rows), len(rows[0]))
