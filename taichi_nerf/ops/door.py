"""What every op asks of its arguments before a kernel runs.

Taichi's own complaints come late and obscurely, and some mistakes (a wrong length, a tensor of another device) read
foreign memory. So shapes, types and devices are checked here, in Python, and the message names argument and expectation.
"""

import ctypes
import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.runtime import DeviceArray, current

LARGEST = 2**31 - 1  # Taichi indexes with 32 bits
PAGE, LARGE = 4096, 8 * 2**20  # bytes
HUGE_PAGES = 14  # Linux's MADV_HUGEPAGE: advice, which the system may ignore
_advise = ctypes.CDLL(None).madvise if sys.platform == "linux" else None


def check(op: str, *, lasting: tuple[str, ...] = (), **arrays: Any) -> dict[str, int]:
    """Check tensors against shapes like "n_rays 3" and return the sizes that the names stand for.

    Each keyword is `name=(tensor, shape)` for floats, which all have to share one type, or `(tensor, shape, torch.int32)`.
    An optional argument that is None is skipped; one named in `lasting` may be a DeviceArray.

        sizes = check("composite_rays", density=(density, "n_samples"), spans=(spans, "n_rays 2", torch.int32))
    """
    backend, sizes = current(), dict[str, int]()
    real: tuple[str, torch.dtype] | None = None
    for name, (tensor, shape, *expected) in arrays.items():
        if tensor is None:
            continue
        is_tensor = type(tensor) is Tensor or isinstance(tensor, Tensor)  # the latter costs as much as all else here
        if not (is_tensor or (name in lasting and isinstance(tensor, DeviceArray))):
            raise TypeError(f"{op}: {name} has to be a tensor of shape [{_spell(shape)}], got {type(tensor).__name__}")
        dtype = tensor.dtype
        if expected:
            if dtype != expected[0]:
                raise TypeError(f"{op}: {name} has to be {expected[0]}, got {dtype}")
        else:
            _check_real(op, name, dtype, backend.arch)
            real = real or (name, dtype)
            if dtype != real[1]:
                raise TypeError(f"{op}: {name} is {dtype} but {real[0]} is {real[1]}; they have to agree")
        if is_tensor and tensor.device.type != backend.torch_device.type:
            raise ValueError(
                f"{op}: {name} is on {tensor.device}, but the {backend.arch} backend takes tensors on "
                f"{backend.torch_device}: use {name}.to({str(backend.torch_device)!r})"
            )
        _check_shape(op, name, tensor.shape, shape, sizes)
    return sizes


def _check_real(op: str, name: str, dtype: torch.dtype, arch: str) -> None:
    if dtype == torch.float64 and arch in ("vulkan", "metal"):
        raise TypeError(f"{op}: {name} is float64, which the {arch} backend does not compute in: use float32")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: {name} has to be float32 (or float64 on the CPU), got {dtype}")


def _check_shape(op: str, name: str, actual: Sequence[int], shape: str, sizes: dict[str, int]) -> None:
    words = _words(shape)
    if not _fits(actual, words, sizes):
        told = {word: f"{word}={sizes[word]}" for word in words if isinstance(word, str) and word in sizes}
        where = f" with {', '.join(told.values())}" if told else ""
        raise ValueError(f"{op}: {name} has to have shape [{_spell(shape)}]{where}, got {list(actual)}")
    for size, word in zip(actual, words, strict=True):
        if isinstance(word, str):
            sizes[word] = size
    if (n_elements := math.prod(actual)) > LARGEST:
        raise ValueError(f"{op}: {name} has {n_elements} elements, more than 32-bit indices reach: split the call")


def _fits(actual: Sequence[int], words: tuple[int | str, ...], sizes: dict[str, int]) -> bool:
    if len(actual) != len(words):
        return False
    for size, word in zip(actual, words, strict=True):
        if size != (sizes.get(word, size) if isinstance(word, str) else word):
            return False
    return True


@lru_cache(maxsize=512)
def _words(shape: str) -> tuple[int | str, ...]:
    """The words of "n_rays 3", numbers as numbers."""
    return tuple(int(word) if word.isdigit() else word for word in shape.split())


def _spell(shape: str) -> str:
    return ", ".join(shape.split())


def check_indices(op: str, name: str, indices: Tensor, last: int) -> None:
    """Refuse indices that would read foreign memory. On a GPU, asking would wait for it: there the caller answers for them."""
    if indices.device.type == "cpu" and indices.numel():
        low, high = torch.aminmax(indices)
        if low < 0 or high > last:
            raise ValueError(f"{op}: {name} has to be in 0 to {last}, got {int(low)} to {int(high)}")


def check_spans(op: str, spans: Tensor, n_samples: int) -> None:
    """Refuse spans (first, count) that reach beyond the samples, where asking is free."""
    check_indices(op, "spans", spans, n_samples)
    if spans.device.type == "cpu" and spans.numel() and (end := int((spans[:, 0] + spans[:, 1]).max())) > n_samples:
        raise ValueError(f"{op}: spans has to stay within the {n_samples} samples, one ends at {end}")


def fresh(like: Tensor, *shape: int) -> Tensor:
    """An output that a kernel will fill. On Linux the host's large ones ask for huge pages.

    Memory fresh from the system costs a page fault for every 4 KiB, more than most kernels need to fill it.
    """
    out = like.new_empty(shape)
    if out.device.type == "cpu" and out.nbytes >= LARGE and _advise is not None:
        begin = -(-out.data_ptr() // PAGE) * PAGE
        _advise(ctypes.c_void_p(begin), ctypes.c_size_t((out.data_ptr() + out.nbytes - begin) // PAGE * PAGE), HUGE_PAGES)
    return out


def upload(numbers: list[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a kernel takes them. `torch.tensor(…, device=…)` would wait until a GPU is through with all it was given."""
    return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)


def plain(tensor: Any) -> Any:
    """A tensor as a kernel takes it: contiguous, and without history (Taichi would write to `.grad` of a leaf).

    A DeviceArray gives its array on the device.
    """
    if isinstance(tensor, DeviceArray):
        return tensor.data
    return (tensor.detach() if tensor.requires_grad or tensor.grad is not None else tensor).contiguous()
