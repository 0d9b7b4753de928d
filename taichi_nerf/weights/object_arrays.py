"""Read an .npy file that holds a list of arrays, as NumPy writes one with allow_pickle, without executing it.

Behind the header stands a pickle. Of all that a pickle may call, only what rebuilds arrays of numbers is admitted: NumPy's
_reconstruct, ndarray and dtype, and the codec of bytes that Python 2 wrote. Anything else is refused before it is looked up.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from taichi_nerf.weight_files import WeightsError

LARGEST = 2**31  # bytes of a file
ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which is no part of an array")
        return super().find_class("numpy._core.multiarray" if name == "_reconstruct" else module, name)


def read_arrays(file: Path) -> list[NDArray[Any]]:
    """The arrays of numbers that the file lists."""
    if not file.is_file():
        raise WeightsError(file, "no such file")
    if file.stat().st_size > LARGEST:
        raise WeightsError(file, f"is larger than {LARGEST >> 30} GiB; expected a list of arrays")
    try:
        with open(file, "rb") as stream:
            version = npy.read_magic(stream)
            shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
            if not dtype.hasobject:
                raise WeightsError(file, f"is one array of {dtype} and shape {shape}; expected a list of arrays")
            found = _ArraysOnly(io.BytesIO(stream.read()), encoding="latin1").load()
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise WeightsError(file, f"is no list of arrays ({' '.join(str(error).split())[:120]})") from None
    arrays = list(found.ravel()) if isinstance(found, np.ndarray) else found
    if not isinstance(arrays, list) or not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays):
        raise WeightsError(file, "expected a list of arrays of floating point numbers")
    return arrays


def write_arrays(file: Path, arrays: list[NDArray[Any]]) -> None:
    """The same, as the TensorFlow code reads it."""
    listed = np.empty(len(arrays), object)
    listed[:] = arrays
    with open(file, "wb") as stream:
        np.save(stream, listed, allow_pickle=True)
