"""Sizes of pictures come from their headers, as they are meant to be seen."""

import struct
import zlib

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from taichi_nerf.scenes.images import image_size, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_sizes_follow_the_orientation_as_the_pixels_do(tmp_path, extension, orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    file = tmp_path / f"a{extension}"
    Image.fromarray(PIXELS).save(file, exif=exif)
    expected = (8, 12) if orientation in (6, 8) else (12, 8)
    assert image_size(file) == expected
    assert read_image(file).shape[:2] == expected[::-1]


def test_the_size_of_a_png_is_known_without_its_pixels(tmp_path):
    file = tmp_path / "a.png"
    imageio.imwrite(file, PIXELS)
    data = file.read_bytes()
    at = data.index(b"IDAT") + 4
    file.write_bytes(data[:at] + bytes(20) + data[at + 20 :])
    assert image_size(file) == (12, 8)


def test_numpy_files_are_depth_maps(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((8, 12)))
    assert image_size(tmp_path / "a.npy") == (12, 8)
    assert read_image(tmp_path / "a.npy").dtype == np.float32


def test_the_largest_photos_of_phones_are_opened(tmp_path):
    """200 megapixels, more than Pillow opens by itself; the header is all that is looked at."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 16320, 12240, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, b"IDAT", b"IEND")
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert image_size(tmp_path / "a.png") == (16320, 12240)
