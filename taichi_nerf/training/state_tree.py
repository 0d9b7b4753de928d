"""A program's state as JSON and tensors, and back.

    {"step": 3, "model": {"a.weight": tensor}, "betas": (0.9, 0.99)}
    -> {"step": 3, "model": {"a.weight": {"~tensor": "model.a.weight"}}, "betas": {"~tuple": [0.9, 0.99]}},
       {"model.a.weight": tensor}

State is dicts, lists and tuples of tensors, NumPy arrays, numbers, strings, booleans and None, nested to any depth: what torch's
modules, optimisers and generators and NumPy's bit generators give. What JSON lacks is an object with one key that begins with
a tilde: keys that are no strings, tuples, infinities. Subclasses come back as what they are subclasses of: an OrderedDict as
a dict. A tensor that stands in several places is kept once and comes back as one.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

TILDE = "~"


class Flattened:
    """The tensors of a state by name, gathered while `json` is made."""

    def __init__(self, state: Any):
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}  # of tensors that were met, by the memory that they show
        self.json = self._flatten(state, ())

    def _flatten(self, value: Any, path: tuple[str, ...]) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, Tensor):
            return {"~tensor": self._name(value, path)}
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biufc":
                raise TypeError(f"{_dotted(path)}: a checkpoint cannot hold an array of {value.dtype}")
            return {"~array": self._name(torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C")), path)}
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"~float": str(float(value))}
        if isinstance(value, dict):
            if all(isinstance(key, str) and not key.startswith(TILDE) for key in value):
                return {key: self._flatten(item, (*path, key)) for key, item in value.items()}
            pairs = [[self._key(key, path), self._flatten(item, (*path, str(key)))] for key, item in value.items()]
            return {"~dict": pairs}
        if isinstance(value, list | tuple):
            items = [self._flatten(item, (*path, str(i))) for i, item in enumerate(value)]
            return {"~tuple": items} if isinstance(value, tuple) else items
        raise TypeError(f"{_dotted(path)}: a checkpoint cannot hold a {type(value).__name__}")

    def _key(self, key: Any, path: tuple[str, ...]) -> Any:
        if key is None or isinstance(key, str | int | float | tuple):
            return self._flatten(key, path)
        raise TypeError(f"{_dotted(path)}: a checkpoint cannot hold a key that is a {type(key).__name__}")

    def _name(self, tensor: Tensor, path: tuple[str, ...]) -> str:
        """The path with dots, made unique; of a tensor that was met before, its name then."""
        tensor = tensor.detach()
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"{_dotted(path)}: a checkpoint cannot hold a sparse or quantized tensor")
        memory = (
            tensor.device,
            tensor.data_ptr(),
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
            tensor.is_conj(),
            tensor.is_neg(),
        )
        if memory in self._names:
            return self._names[memory]
        name, n = _dotted(path), 1
        while name in self.tensors or name == "__metadata__":
            n += 1
            name = f"{_dotted(path)}~{n}"
        self.tensors[name], self._names[memory] = tensor, name
        return name


def unflattened(json: Any, tensors: dict[str, Tensor]) -> Any:
    """The state again. KeyError, TypeError or ValueError if the two do not belong together."""
    if isinstance(json, list):
        return [unflattened(item, tensors) for item in json]
    if not isinstance(json, dict):
        return json
    for tag, value in json.items():
        if tag == "~tensor":
            return tensors[value]
        if tag == "~array":
            return tensors[value].numpy()
        if tag == "~float":
            return float(value)
        if tag == "~tuple":
            return tuple(unflattened(value, tensors))
        if tag == "~dict":
            return {_hashable(unflattened(key, tensors)): unflattened(item, tensors) for key, item in value}
    return {key: unflattened(item, tensors) for key, item in json.items()}


def _hashable(key: Any) -> Any:
    hash(key)
    return key


def _dotted(path: Iterable[str]) -> str:
    return ".".join(path) or "state"
