"""Pictures of every kind of pixel come as grey, RGB or RGBA."""

import numpy as np
import pytest
from PIL import Image

from taichi_nerf.scenes import SceneError
from taichi_nerf.scenes.images import read_image, read_small_jpeg

ORANGE = (200, 100, 30)


@pytest.mark.parametrize(("mode", "extension"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("YCbCr", ".tif"), ("LAB", ".tif")])
def test_inks_become_colors(tmp_path, mode, extension):
    file = tmp_path / f"a{extension}"
    Image.new("RGB", (12, 8), ORANGE).convert(mode).save(file)
    assert read_image(file).shape == (8, 12, 3)
    assert np.abs(read_image(file).astype(int) - ORANGE).max() <= 3
    if extension == ".jpg":
        assert np.abs(read_small_jpeg(file, 6).astype(int) - ORANGE).max() <= 3


def test_the_alpha_of_a_palette_is_kept(tmp_path):
    pixels = np.zeros((8, 12, 4), np.uint8)
    pixels[:4] = (*ORANGE, 255)
    pixels[4] = (*ORANGE, 128)
    Image.fromarray(pixels).quantize(8).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 3], pixels[..., 3])


def test_sixteen_bits_may_begin_with_the_large_end(tmp_path):
    Image.fromarray(np.full((8, 12), 40000, ">u2")).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif") == 40000).all()


def test_what_16_bits_do_not_hold_is_refused(tmp_path):
    Image.fromarray(np.full((8, 12), 70000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(SceneError, match="unusual layout: int32"):
        read_image(tmp_path / "a.tif")
