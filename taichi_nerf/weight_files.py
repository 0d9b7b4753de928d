"""Files that torch.save wrote, which may come from anywhere: tensors, numbers and names are read, and nothing is executed.

A tensor may claim any shape by repeating a number. Those that are more than the file holds for them are refused: what is made
after the shapes in a file is then as large as the file allows, and no larger.

Training programs put their options beside the weights, as argparse has them: a `Namespace`, which only holds names and values.

data = read_weights(file, "a checkpoint of nerf-pytorch")     # or WeightsError(file, "… expected …")
data = weight_bytes(state)                                    # for a file of ours
"""

import io
import re
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, serialization

from taichi_nerf.file_error import FileError

BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of what torch.save writes: a ZIP archive, or a pickle by old versions


class WeightsError(FileError):
    """A file of weights that cannot be used. The message is one line and names the file."""


def read_weights(file: Path, expected: str, error: Callable[[Path, str], Exception] = WeightsError) -> Any:
    """What the file holds; `expected` is said where that cannot be read."""
    if not file.is_file():
        raise error(file, "no such file")
    with open(file, "rb") as stream:
        beginning = stream.read(4)
    if not beginning.startswith(BEGINNINGS):
        raise error(file, f"is no file of weights, but something else; expected {expected}")
    try:
        with warnings.catch_warnings(), _options_allowed():
            warnings.simplefilter("ignore")  # of pickles in other versions, which fail or are read all the same
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:  # torch raises whatever a damaged file makes it meet
        asked = re.search(r"GLOBAL ([\w.]+)", str(reason))
        why = f"asks for {asked[1]}, and nothing in a file is executed" if asked else "is damaged, or something else"
        raise error(file, f"is no checkpoint of weights alone: it {why}; expected {expected}") from None
    if not all(is_whole(tensor) for tensor in _tensors_in(found)):
        raise error(file, f"claims more numbers than it holds; expected {expected}")
    return found


def weight_bytes(state: Any) -> memoryview:
    """What torch.save makes of it, for a file. Of a full disk torch itself says no more than "unexpected pos 704 vs 598"."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getbuffer()


def is_whole(tensor: Tensor) -> bool:
    """Whether every number of the tensor is one that was read."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors_in(found: Any) -> list[Tensor]:
    """Each container is looked into once: it may hold itself, or others so often that no walk through them ends."""
    tensors, pending, known = [], [found], set()
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, Mapping | list | tuple) and id(value) not in known:
            known.add(id(value))
            pending += value.values() if isinstance(value, Mapping) else value
    return tensors


@contextmanager
def _options_allowed() -> Iterator[None]:
    """What others allowed stays as it was. (torch has a context manager for this, from 2.5 on.)"""
    before = serialization.get_safe_globals()
    serialization.add_safe_globals([Namespace])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)
