"""Pictures of 16 bits a color, of which Pillow keeps 8: ffmpeg reads PNGs and TIFFs whole."""

import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = {2: "ya16le", 3: "rgb48le", 4: "rgba64le"}  # by the number of channels; one, grey, Pillow reads whole
PNG_CHANNELS = {2: 3, 4: 2, 6: 4}  # by PNG's color type
BITS = 258  # TIFF's tag


def is_deep_png(file: Path) -> bool:
    """Whether it is a PNG of more than one channel with 16 bits each."""
    head = _head(file)
    return len(head) == 26 and head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] == 16 and head[25] in PNG_CHANNELS


def read_deep_png(file: Path) -> NDArray[Any]:
    """[height, width, channels] uint16 as stored: EXIF is not heeded."""
    head = _head(file)
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return read_deep(file, height, width, PNG_CHANNELS[head[25]])


def is_deep_tiff(file: Path) -> bool:
    """Whether it is a TIFF of RGB or RGBA with 16 bits each."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return False
    with Image.open(file) as opened:
        return getattr(opened, "tag_v2", {}).get(BITS) in ((16,) * 3, (16,) * 4)


def read_deep(file: Path, height: int, width: int, n_channels: int) -> NDArray[Any]:
    """[height, width, channels] uint16 as stored; a ValueError says what is wrong."""
    form = FORMATS[n_channels]
    read = ["-v", "error", "-xerror", "-noautorotate", "-i", f"file:{file}", "-f", "rawvideo", "-pix_fmt", form, "pipe:1"]
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *read], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode or len(done.stdout) != 2 * n_channels * width * height:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else "the picture is cut off")
    return np.frombuffer(done.stdout, "<u2").reshape(height, width, n_channels)


def _head(file: Path) -> bytes:
    """Up to the bits and the color type."""
    with file.open("rb") as opened:
        return opened.read(26)
