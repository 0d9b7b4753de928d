"""Pictures of every kind of pixel come as grey, RGB or RGBA."""

import copy
import errno
import os
import pickle

import imageio.v3 as imageio
import numpy as np
import pytest
from deep_pictures import write_deep_png, write_deep_tiff
from PIL import Image

from taichi_nerf.scenes import SceneError
from taichi_nerf.scenes.images import Images, image_size, read_image, read_small_jpeg, stored_size

ORANGE = (200, 100, 30)


@pytest.mark.parametrize(("mode", "extension"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("YCbCr", ".tif"), ("LAB", ".tif")])
def test_inks_become_colors(tmp_path, mode, extension):
    file = tmp_path / f"a{extension}"
    Image.new("RGB", (12, 8), ORANGE).convert(mode).save(file)
    try:
        with Image.open(file) as opened:
            opened.load()
    except OSError as error:  # of Pillow 12.3 with YCbCr, the last for Python 3.10
        pytest.skip(f"Pillow does not read what it wrote: {error}")
    assert read_image(file).shape == (8, 12, 3)
    assert np.abs(read_image(file).astype(int) - ORANGE).max() <= 3
    if extension == ".jpg":
        assert np.abs(read_small_jpeg(file, 2).astype(int) - ORANGE).max() <= 3


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


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_png_of_16_bits_a_color_keeps_them(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 2**16, (8, 12, channels), dtype=np.uint16)
    write_deep_png(tmp_path / "a.png", pixels)
    found = read_image(tmp_path / "a.png")
    assert found.dtype == np.uint16
    assert np.array_equal(found, pixels[..., [0, 0, 0, 1]] if channels == 2 else pixels)


# Where a picture's stored rows begin and its stored columns: EXIF 2.3, "Orientation".
SHOWN = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left",
         5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom"}  # fmt: skip


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("orientation", SHOWN)
def test_a_png_of_16_bits_is_turned_as_one_of_8_is(tmp_path, orientation, channels, after):
    stored = np.random.default_rng(0).integers(0, 256, (8, 12, channels), dtype=np.uint8)
    write_deep_png(tmp_path / "deep.png", stored * np.uint16(257), orientation, after)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored.squeeze(-1) if channels == 1 else stored).save(tmp_path / "a.png", exif=exif)
    deep, plain = read_image(tmp_path / "deep.png"), read_image(tmp_path / "a.png")
    assert (deep.dtype, plain.dtype) == (np.uint16, np.uint8)
    assert np.array_equal(deep, plain * np.uint16(257))
    assert image_size(tmp_path / "deep.png") == image_size(tmp_path / "a.png") == plain.shape[1::-1]
    row, column = SHOWN[orientation].split()  # where the first stored row is shown, and the first stored column
    edge = {"top": plain[0], "bottom": plain[-1], "left": plain[:, 0], "right": plain[:, -1]}
    ahead = {"left": slice(None), "top": slice(None), "right": slice(None, None, -1), "bottom": slice(None, None, -1)}
    expected = stored[0][..., [0, 0, 0, 1]] if channels == 2 else stored[0]
    assert np.array_equal(edge[row][ahead[column]], expected)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("orientation", SHOWN)
def test_a_tiff_of_16_bits_a_color_keeps_them_and_is_turned_as_one_of_8_is(tmp_path, orientation, channels):
    pixels = np.random.default_rng(0).integers(0, 2**16, (8, 12, channels), dtype=np.uint16)
    write_deep_tiff(tmp_path / "a.tif", pixels, orientation)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(tmp_path / "plain.tif", exif=tags)
    found, upper = read_image(tmp_path / "a.tif"), read_image(tmp_path / "plain.tif")
    assert (found.dtype, upper.dtype) == (np.uint16, np.uint8)
    assert np.array_equal(found >> 8, upper)
    assert np.array_equal(np.sort(found, axis=None), np.sort(pixels, axis=None))
    assert image_size(tmp_path / "a.tif") == found.shape[1::-1]


def test_a_tiff_that_ffmpeg_reads_otherwise_than_pillow_keeps_its_upper_bits(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 2**16, (8, 12, 3), dtype=np.uint16)
    write_deep_tiff(tmp_path / "a.tif", pixels)

    def fails(*_):
        raise ValueError("not implemented")

    for other in (fails, lambda *_: pixels[::-1]):
        monkeypatch.setattr("taichi_nerf.scenes.images.read_deep", other)
        found = read_image(tmp_path / "a.tif")
        assert found.dtype == np.uint8
        assert np.array_equal(found, pixels >> 8)


def test_a_png_of_16_bits_that_is_cut_off_is_one_line(tmp_path):
    write_deep_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 2**16, (80, 120, 3), dtype=np.uint16))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:20000])
    with pytest.raises(SceneError, match=r"a.png: is no readable image") as caught:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "told"), [(b"hello", "of no form that is known"), (b"\xff\xd8\xff\xdb\x00C", "runcated")])
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_what_is_wrong_with_a_file_is_told_and_not_what_failed_in_a_library(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    for read in (read_image, stored_size):
        with pytest.raises(SceneError, match=f"{name}: is no readable image: .*{told}") as caught:
            read(tmp_path / name)
        assert "pillow" not in str(caught.value).lower()


def test_a_folder_in_the_place_of_a_picture_is_told_as_such(tmp_path):
    with pytest.raises(SceneError, match="is a folder, not a file"):
        read_image(tmp_path)


def test_a_picture_that_may_not_be_read_is_not_told_to_be_damaged(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a.png")

    (tmp_path / "a.png").write_bytes(b"anything")
    monkeypatch.setattr(imageio, "imopen", refused)  # permissions would not keep root from reading
    with pytest.raises(SceneError, match=r"a\.png: cannot be read: Permission denied$"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_empty_file_is_told_as_such(tmp_path, name):
    (tmp_path / name).touch()
    for read in (read_image, stored_size):
        with pytest.raises(SceneError, match=rf"{name}: is empty"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy"])
def test_who_is_ended_while_a_picture_is_read_is_not_told_that_it_is_damaged(tmp_path, monkeypatch, name):
    """SIGTERM makes a command exit wherever it is, in a decoder too."""
    (tmp_path / name).write_bytes(b"anything")

    def ended(*arguments, **options):
        raise SystemExit(143)

    monkeypatch.setattr(imageio, "imopen", ended)
    monkeypatch.setattr(np.lib.format, "open_memmap", ended)
    with pytest.raises(SystemExit) as end:
        stored_size(tmp_path / name)
    assert end.value.code == 143


def test_pictures_go_to_other_processes_and_into_copies(tmp_path):
    """By pickle, as loaders with workers and notebooks do it: what was read stays behind, what is only in memory goes along."""
    Image.new("RGB", (12, 8), ORANGE).save(tmp_path / "a.png")
    sizes, turns = np.array([[3, 6]]), (1,)
    for images in (
        Images([tmp_path / "a.png"], sizes, turns=turns),
        Images([None], np.array([[3, 6]]), arrays=[np.arange(54, dtype=np.uint8).reshape(6, 3, 3)]),
    ):
        expected = images[0]
        for other in (pickle.loads(pickle.dumps(images)), copy.deepcopy(images)):
            assert other.cache_bytes == images.cache_bytes
            assert np.array_equal(other[0], expected)
    assert len(pickle.dumps(Images([tmp_path / "a.png"]))) < 2000
