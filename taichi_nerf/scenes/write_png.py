"""PNGs, encoded in memory."""

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray


def write_png(file: Path, pixels: NDArray[Any], **options: Any) -> None:  # [height, width] or [height, width, channels]
    """A picture, encoded before its file is opened: a file that imageio itself cannot fill, for want of room, it fails to close
    once more when it is forgotten, past every handler, and prints a traceback then."""
    file.write_bytes(png_bytes(pixels, **options))


def png_bytes(pixels: NDArray[Any], **options: Any) -> bytes:
    """The content of a PNG."""
    found: bytes = imageio.imwrite("<bytes>", pixels, extension=".png", plugin="pillow", **options)
    return found


def eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Of 16 bits, or of floats from 0 to 1."""
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels / 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 1) * 255.0
    return np.rint(values).astype(np.uint8)
