"""Read an .npy file that holds a list of arrays, as NumPy writes one with allow_pickle, without executing it.

Behind the header stands a pickle. Of all that a pickle may call, only what rebuilds arrays of numbers is admitted: NumPy's
_reconstruct, ndarray and dtype, and the codec of bytes that Python 2 wrote. Anything else is refused before it is looked up.
For those, too, stand-ins of our own are called: NumPy would believe whatever types a file makes up, also that its bytes are
addresses of objects.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from taichi_nerf.file_error import one_line
from taichi_nerf.weight_files import WeightsError

LARGEST = 2**31  # bytes of a file
NUMBERS = re.compile("[fiu][1248]")


class _Type:
    """What a pickle says of the type of an array's elements."""

    def __init__(self, name: str, *arguments: Any):
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """An array of numbers, or a list of such: `value`, once the pickle has told its state."""

    value: Any = None

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        if kind.name.startswith("O"):
            self.value = [element.value for element in data]
        elif not NUMBERS.fullmatch(kind.name) or kind.order not in "<>=|":
            raise pickle.UnpicklingError(f"holds elements of type {kind.name}")
        else:
            data = _bytes(data) if isinstance(data, str) else data  # Python 2's
            self.value = np.frombuffer(bytearray(data), kind.order + kind.name).reshape(shape, order="F" if by_columns else "C")


def _bytes(text: str, codec: str = "latin1") -> bytes:
    return text.encode("latin1")


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _bytes,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which is no part of an array")
        return ADMITTED[module, name]


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
        raise WeightsError(file, f"is no list of arrays ({one_line(error, 120)})") from None
    arrays = found.value if isinstance(found, _Array) else found
    arrays = [each.value if isinstance(each, _Array) else each for each in arrays] if isinstance(arrays, list) else arrays
    if not isinstance(arrays, list) or not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays):
        raise WeightsError(file, "expected a list of arrays of floating point numbers")
    return arrays


def write_arrays(file: Path, arrays: list[NDArray[Any]]) -> None:
    """The same, as the TensorFlow code reads it."""
    listed = np.empty(len(arrays), object)
    listed[:] = arrays
    with open(file, "wb") as stream:
        np.save(stream, listed, allow_pickle=True)
