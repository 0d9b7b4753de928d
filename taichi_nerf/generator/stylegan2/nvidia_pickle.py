"""Read the networks in NVIDIA's .pkl files (stylegan2-ada-pytorch, stylegan3, and what was trained with them), executing nothing.

Such a file is a pickle of {G, D, G_ema, …}. Each module in it carries its source, which NVIDIA's loader runs; here the source
stays a text. Of all that a pickle may call, only what rebuilds tensors and dictionaries is admitted, and it is refused before
anything else is looked up. A module becomes a plain dictionary of its state, from which parameters and buffers are gathered.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.file_error import FileError, one_line
from taichi_nerf.weight_files import is_whole

LARGEST = 2**33  # bytes of a file
MOST_MODULES = 1000  # of a network; StyleGAN2 has about a hundred
Contents = dict[str, Any]


class PickleError(FileError):
    """A .pkl file that cannot be used. The message is one line and names the file."""


class _Module:
    """What stands for a pickled module: its state, and never its source."""

    def __init__(self, meta: Any):
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            raise pickle.UnpicklingError("holds a module without a state")
        self.state: Contents = meta["state"]


class _Attributes(dict):
    """NVIDIA's dictionary whose entries are attributes as well; a pickle may set them either way."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


class _FromNumPy:
    """What stands for NumPy's types, numbers and arrays, which no network has: NumPy would believe whatever types a file makes
    up, also that its bytes are addresses of objects."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _storage(data: bytes) -> Any:
    """A tensor's numbers, which torch pickled on their own."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    return data


def _tensor(storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool, hooks: Any, metadata: Any = None) -> Tensor:
    found = torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())
    if not is_whole(found):
        raise pickle.UnpicklingError("holds a tensor of more numbers than the file has")
    return found


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Module,
    ("dnnlib.util", "EasyDict"): _Attributes,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "device"): lambda *name: "device",
    ("numpy", "dtype"): _FromNumPy,
    ("numpy", "ndarray"): _FromNumPy,
    **{(f"{core}.multiarray", name): _FromNumPy for core in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")},
}


class _TensorsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ADMITTED:
            return ADMITTED[module, name]
        if module.startswith("dnnlib.tflib"):
            raise pickle.UnpicklingError("is of the TensorFlow era; convert it with NVIDIA's legacy.py first")
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which is no part of a network; nothing was run")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("refers to something outside of the file")


def read_networks(file: Path) -> dict[str, dict[str, Tensor]]:
    """The state dicts of the networks in the file: G, D and G_ema, or which of them there are."""
    if not file.is_file():
        raise PickleError(file, "no such file")
    if file.stat().st_size > LARGEST:
        raise PickleError(file, f"is larger than {LARGEST >> 30} GiB; expected a StyleGAN2")
    try:
        with open(file, "rb") as stream:
            found = _TensorsOnly(stream).load()
        if isinstance(found, _Module):
            found = {"G_ema": found}
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"holds a {type(found).__name__}; expected networks by name")
        networks = {name: _gathered(value) for name, value in found.items() if isinstance(value, _Module)}
    except Exception as error:  # a hostile or damaged pickle may raise anything
        raise PickleError(file, f"{one_line(error, 160) or type(error).__name__}") from None
    if not networks:
        raise PickleError(file, "holds no network; expected G_ema, as NVIDIA's training writes it")
    return networks


def _gathered(network: _Module) -> dict[str, Tensor]:
    """Parameters and buffers by their dotted names."""
    found: dict[str, Tensor] = {}
    pending, n = [("", network)], 0
    while pending:
        prefix, module = pending.pop()
        n += 1
        if n > MOST_MODULES:  # a few that hold each other several times are as many as one likes
            raise pickle.UnpicklingError("holds more modules than any network has")
        for kind in ("_parameters", "_buffers"):
            for name, value in (module.state.get(kind) or {}).items():
                if isinstance(value, Tensor):
                    found[f"{prefix}{name}"] = value.detach()
        for name, inner in (module.state.get("_modules") or {}).items():
            if isinstance(inner, _Module):
                pending.append((f"{prefix}{name}.", inner))
    return found
