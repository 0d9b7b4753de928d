"""PNGs, encoded in memory."""

import struct
import zlib
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
    """The content of a PNG, of 16 bits where the pixels have them; `options` are Pillow's."""
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return _deep_png_bytes(pixels)
    found: bytes = imageio.imwrite("<bytes>", pixels, extension=".png", plugin="pillow", **options)
    return found


def _deep_png_bytes(pixels: NDArray[np.uint16]) -> bytes:
    """Of three or four channels of 16 bits, which Pillow cannot write: the large end first, each row less the one above it."""
    height, width, n_channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    rows = np.concatenate([rows[:1], rows[1:] - rows[:-1]])  # modulo 256: filter 2
    data = zlib.compress(np.insert(rows, 0, 2, axis=1).tobytes())

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[n_channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Of 16 bits, or of floats from 0 to 1."""
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels / 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 1) * 255.0
    return np.rint(values).astype(np.uint8)


def sixteen_bits(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    """Of floats from 0 to 1, or as they are."""
    return pixels if pixels.dtype == np.uint16 else np.rint(np.clip(pixels, 0, 1) * 65535.0).astype(np.uint16)
