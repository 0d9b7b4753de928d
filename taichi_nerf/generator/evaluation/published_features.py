"""Features by networks that the user has as TorchScript files: Inception for FID and KID, an embedder for identity.

A TorchScript file holds a program of tensor operations, not Python, parts of which torch runs as soon as it loads it. Among the
operations are two that write a file and that read one as a tensor; a program that names these is refused before it is loaded.
"""

import re
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor
from torch.nn.functional import normalize

from taichi_nerf.file_error import FileError, one_line
from taichi_nerf.generator.evaluation.report import Embed

OF_FILES = re.compile(rb"\b(save|from_file)\b")


class FeatureFileError(FileError):
    """A file of a network that cannot be used. The message is one line and names the file."""


def inception_features(file: Path) -> Embed:
    """[n, 2048] by NVIDIA's inception-2015-12-05.pt, which scales bytes itself as the TensorFlow network did."""
    network = _load(file)

    def features(images: Tensor) -> Tensor:
        pixels = (images.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
        return network(pixels, return_features=True)

    return features


def embedder(file: Path) -> Embed:
    """Unit vectors by any network that takes images [n, 3, h, w] from −1 to 1."""
    network = _load(file)

    def identity(images: Tensor) -> Tensor:
        return normalize(network(images).flatten(1), dim=-1)

    return identity


def _load(file: Path) -> torch.jit.ScriptModule:
    if not file.is_file():
        raise FeatureFileError(file, "no such file")
    try:
        with ZipFile(file) as archive:
            parts = [archive.read(entry) for entry in archive.infolist() if entry.filename.endswith(".py")]
        if any(OF_FILES.search(part) for part in parts):
            raise ValueError("its program reads or writes files; nothing was run")
        return torch.jit.load(str(file), map_location="cpu").eval()
    except Exception as error:  # torch raises whatever a damaged file makes it meet
        raise FeatureFileError(file, f"is no TorchScript file ({one_line(error, 100)})") from None
