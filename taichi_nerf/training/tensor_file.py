"""The safetensors format: eight bytes of length, a header in JSON, then the numbers of each tensor.

Written and read tensor by tensor, so that beside the tensors at most one of them is in memory a second time (one of another
device, or with gaps). A CRC-32 of header and numbers stands in the header's metadata, so that a flipped bit is noticed.
Any reader of safetensors opens these files, and nothing in them is ever run.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

LARGEST_HEADER = 100_000_000  # bytes, as in the reference implementation
CHECKSUM = '{"__metadata__": {"checksum": "%08x"'  # how a header of ours begins
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {kind: name for name, kind in TYPES.items()}


class Place(NamedTuple):
    """Where a tensor stands in the file, from the end of the header on."""

    name: str
    dtype: torch.dtype
    shape: list[int]
    start: int
    end: int


def write_tensors(stream: BinaryIO, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a whole file. TypeError for a type that the format lacks."""
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())  # so that each starts at a multiple of its size
    header = _header(tensors, order, metadata)
    stream.write(len(header).to_bytes(8, "little") + header)
    checksum = zlib.crc32(header)
    for name in order:
        numbers = _bytes_of(tensors[name].detach().resolve_conj().resolve_neg().cpu().contiguous())
        checksum = zlib.crc32(numbers, checksum)
        stream.write(numbers)
    stream.seek(8)
    stream.write((CHECKSUM % checksum).encode())


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata of what `write_tensors` wrote; ValueError tells what is wrong with others."""
    with open(file, "rb") as stream:
        n_bytes = stream.seek(0, 2)
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        if n_bytes < 8 or length > LARGEST_HEADER:
            raise ValueError("is no safetensors file")
        raw = stream.read(length)
        if len(raw) < length:
            raise ValueError(f"is cut off: has {n_bytes} bytes, its header alone has {8 + length}")
        places, metadata, checksum = _parsed(raw)
        n_expected = 8 + length + max((place.end for place in places), default=0)
        if n_bytes != n_expected:
            raise ValueError(f"is {'cut off' if n_bytes < n_expected else 'too long'}: has {n_bytes} of {n_expected} bytes")
        found = zlib.crc32(raw.replace((CHECKSUM % checksum).encode(), (CHECKSUM % 0).encode(), 1))
        tensors = {}
        for place in places:
            tensors[place.name] = tensor = torch.empty(place.shape, dtype=place.dtype)
            numbers = _bytes_of(tensor)
            stream.readinto(numbers)
            found = zlib.crc32(numbers, found)
    if found != checksum:
        raise ValueError(f"is damaged: its checksum is {found:08x}, not {checksum:08x}")
    return tensors, metadata


def _header(tensors: dict[str, Tensor], order: list[str], metadata: dict[str, str]) -> bytes:
    """With a checksum of 0, to be written over, and spaces up to a multiple of eight bytes."""
    header: dict[str, Any] = {"__metadata__": {"checksum": "00000000", **metadata}}
    at = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in NAMES:
            raise TypeError(f"{name}: a checkpoint cannot hold a tensor of {tensor.dtype}")
        n_bytes = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    encoded = json.dumps(header).encode()
    if len(encoded) > LARGEST_HEADER - 8:
        raise ValueError(
            f"a checkpoint's numbers and texts may take {LARGEST_HEADER} bytes, not {len(encoded)}; keep long ones in tensors"
        )
    return encoded + b" " * (-len(encoded) % 8)


def _parsed(raw: bytes) -> tuple[list[Place], dict[str, str], int]:
    """Places in the file's order, metadata and checksum of a header."""
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__")
        checksum = int(metadata.pop("checksum"), 16)
        places = [Place(name, TYPES[e["dtype"]], e["shape"], *e["data_offsets"]) for name, e in header.items()]
        places.sort(key=lambda place: (place.start, place.end))
        follow = [0, *(place.end for place in places[:-1])] == [place.start for place in places] if places else True
        fit = all(p.dtype.itemsize * math.prod(p.shape) == p.end - p.start and min(p.shape, default=0) >= 0 for p in places)
        texts = all(isinstance(text, str) for text in metadata.values())
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ValueError("is no safetensors file of taichi_nerf, or its header is damaged") from None
    if not (follow and fit and texts):
        raise ValueError("its header is damaged: the tensors in it do not follow each other")
    return places, metadata, checksum


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor. Of one or no element the stride may be any, and `view` wants 1."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
