"""Sizes of pictures come from their headers, as they are meant to be seen."""

import struct
import zlib

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from taichi_nerf.scenes import images as images_module
from taichi_nerf.scenes.images import Images, image_size, read_image, stored_size

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 8])
def test_sizes_follow_the_orientation_as_the_pixels_do(tmp_path, extension, orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    file = tmp_path / f"a{extension}"
    Image.fromarray(PIXELS).save(file, exif=exif)
    assert stored_size(file) == ((12, 8), orientation or 1)
    expected = (8, 12) if orientation in (5, 6, 8) else (12, 8)
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


def detailed(width, height):
    """Colors that change within a pixel or two."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b + a * b * np.sin(x / 40)) for a, b in ((0.8, 0.3), (0.1, 1.1), (1.9, 0.05))]
    return np.rint(127.5 + 70 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize(("downscale", "decoded"), [(2, 1), (3, 1), (4, 2), (8, 4), (16, 4)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_shrunk_while_it_is_decoded_as_far_as_nobody_sees(tmp_path, monkeypatch, downscale, decoded, orientation):
    """Against the means of all of its pixels: one more rounding is 0.29 levels."""
    file, (width, height) = tmp_path / "a.jpg", (480, 288)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(detailed(width, height)).save(file, quality=95, subsampling=0, exif=exif)
    whole = read_image(file).astype(float)
    rows, columns = whole.shape[0] // downscale, whole.shape[1] // downscale
    seen = []
    shrink = images_module.shrink
    monkeypatch.setattr(images_module, "shrink", lambda image, *size: seen.append(image.shape) or shrink(image, *size))
    found = Images([file], np.array([[columns, rows]]))[0]
    assert seen == [(whole.shape[0] // decoded, whole.shape[1] // decoded, 3)]
    difference = found - whole.reshape(rows, downscale, columns, downscale, 3).mean((1, 3))
    assert np.abs(difference).max() < 2  # measured: 1.5
    assert np.sqrt((difference**2).mean()) < 0.45  # measured: 0.29 where all pixels are decoded, 0.39 where not
    assert np.abs(difference.mean((0, 1))).max() < 0.05


@pytest.mark.parametrize("size", [(481, 290), (480, 287)])
def test_a_jpeg_that_the_decoders_blocks_do_not_cover_evenly_is_decoded_in_full(tmp_path, size):
    """At a quarter it would have a column that is half empty, and everything would lie beside its place."""
    file = tmp_path / "a.jpg"
    Image.fromarray(detailed(*size)).save(file)
    found = Images([file], np.array([[60, 36]]))[0]
    assert np.array_equal(found, images_module.shrink(read_image(file), 60, 36))
