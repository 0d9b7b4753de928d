"""Files that torch.save wrote, which may come from anywhere: tensors, numbers and names are read, and nothing is executed.

Training programs put their options beside the weights, as argparse has them: a `Namespace`, which only holds names and values.

data = read_weights(file, "a checkpoint of nerf-pytorch")     # or WeightsError(file, "… expected …")
"""

import re
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import serialization

BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of what torch.save writes: a ZIP archive, or a pickle by old versions


class WeightsError(ValueError):
    """A file of weights that cannot be used. The message is one line and names the file."""

    def __init__(self, file: Path | str, message: str):
        super().__init__(f"{file}: {message}")


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
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:  # torch raises whatever a damaged file makes it meet
        asked = re.search(r"GLOBAL ([\w.]+)", str(reason))
        why = f"asks for {asked[1]}, and nothing in a file is executed" if asked else "is damaged, or something else"
        raise error(file, f"is no checkpoint of weights alone: it {why}; expected {expected}") from None


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
