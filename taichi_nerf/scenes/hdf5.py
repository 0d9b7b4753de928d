"""One array out of an HDF5 file, without trust: nothing outside of it is followed, and its shape is judged before it is read.

Needs h5py, which the extra `hypersim` brings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taichi_nerf.file_error import one_line
from taichi_nerf.scenes.errors import SceneError

NAME = "dataset"  # of the array, as Hypersim has it
LARGEST_ARRAY = 2**30  # numbers


def read_hdf5(file: Path) -> NDArray[Any]:
    """The array, of integers or floats."""
    with _opened(file) as found:
        return np.asarray(found[()])


def hdf5_shape(file: Path, least: int) -> tuple[int, ...]:
    """The array's shape, of at least so many dimensions."""
    with _opened(file) as found:
        if found.ndim < least:
            raise SceneError(file, f"expected at least {least} dimensions, got {found.ndim}", NAME)
        return tuple(found.shape)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise SceneError(file, "reading HDF5 needs h5py: pip install taichi-nerf[hypersim]") from None
    if not file.is_file():
        raise SceneError(file, "no such file")
    try:
        with h5py.File(file, "r") as opened:
            if not isinstance(opened.get(NAME, getlink=True), h5py.HardLink):  # other links may lead to other files
                raise SceneError(file, f"holds no array of the name {NAME!r}")
            found = opened[NAME]
            if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
                raise SceneError(file, "expected an array that is in the file itself", NAME)
            if found.dtype.kind not in "fiu" or not 0 < found.size <= LARGEST_ARRAY:
                raise SceneError(file, f"expected numbers, got {found.dtype} of shape {found.shape}"[:200], NAME)
            yield found
    except SceneError:
        raise
    except Exception as error:  # h5py passes on whatever the C library says, under half a dozen exceptions
        raise SceneError(file, f"is no readable HDF5 file: {one_line(error, 160)}") from None
