"""Scenes in one .npz."""

import zipfile

import numpy as np
import pytest
import sample_arrays

from taichi_nerf.scenes import SceneError, arrays, load, load_scene
from taichi_nerf.scenes.images import Images, read_image
from taichi_nerf.scenes.write import write_transforms

from opengl_views import POINTS, project


@pytest.mark.parametrize("focal", [20.0, [20.0], [20.0, 22.0], [20.0, 21.0, 22.0, 23.0], [[20.0, 22.0]] * 4])
def test_points_project_where_the_poses_put_them(tmp_path, focal):
    poses = sample_arrays.make(tmp_path, focal=focal)
    source = arrays.read(tmp_path, False)
    values = np.asarray(focal)
    each = values[:, None] if values.shape == (4,) else values
    for view, (matrix, (fx, fy)) in enumerate(zip(poses, np.broadcast_to(each, (4, 2)), strict=True)):
        assert np.abs(source.cameras.project(view, POINTS)[0] - project(matrix, fx, fy, 6, 4)).max() < 1e-9


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_pictures_in_memory_are_read_shrunk_and_chosen_like_files(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(load, "READERS", ("arrays",))
    sample_arrays.make(tmp_path, dtype=dtype)
    original = np.load(tmp_path / "tiny.npz")["images"]
    for path in (tmp_path, tmp_path / "tiny.npz"):
        scene = load_scene(path)
        assert len(scene.images) == 4
        assert np.array_equal(scene.images[2], original[2].astype(np.uint8 if dtype == np.uint8 else np.float32))
        assert not scene.images[2].flags.writeable
        assert np.array_equal(scene.images.subset(np.array([3, 1]))[0], scene.images[3])
    half = load_scene(tmp_path, downscale=2).images[0]
    mean = original[0].astype(np.float64).reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(half - mean).max() <= (0.5 if dtype == np.uint8 else 1e-6)


def test_the_arrays_a_reader_keeps_stay_writeable(tmp_path):
    sample_arrays.make(tmp_path)
    source = arrays.read(tmp_path, False)
    Images(source.image_files, None, arrays=source.arrays)[0]
    assert source.arrays[0].flags.writeable


def test_pictures_of_16_bits_keep_them_as_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 2**16, (4, 8, 12, 3), dtype=np.uint16)
    sample_arrays.make(tmp_path / "in", images=images)
    assert write_transforms(arrays.read(tmp_path / "in", False), tmp_path / "out") == []
    for pixels, file in zip(images, sorted((tmp_path / "out/images").iterdir()), strict=True):
        assert np.array_equal(read_image(file), pixels)


def test_the_form_is_told_by_the_table_of_contents(tmp_path):
    sample_arrays.make(tmp_path)
    assert arrays.fits(tmp_path) == "tiny.npz with images, poses, focal"
    np.savez(tmp_path / "tiny.npz", images=np.zeros(3))
    assert arrays.fits(tmp_path) == ""
    (tmp_path / "tiny.npz").write_bytes(b"PK\x03\x04 broken")
    assert arrays.fits(tmp_path) == ""


def test_an_archive_that_is_cut_off_or_holds_something_else_is_told_so(tmp_path):
    sample_arrays.make(tmp_path)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "tiny.npz").read_bytes()[:1000])
    np.savez(tmp_path / "other.npz", bds=np.zeros(2), poses=np.zeros((2, 3, 4)))
    for name, told in (
        ("cut.npz", "is no readable .npz"),
        ("other.npz", "holds bds, poses; a scene has images, poses and focal"),
    ):
        with pytest.raises(SceneError, match=f"{name}: {told}"):
            load_scene(tmp_path / name)


def test_arrays_that_are_not_used_are_named(tmp_path):
    sample_arrays.make(tmp_path, bounds=np.zeros(2))
    assert arrays.read(tmp_path, False).warnings == ["arrays that are not used: bounds"]


NAN = np.full((4, 8, 12, 3), np.nan, np.float32)
WRONG = {
    "images of bytes as floats": ({"images": np.full((4, 8, 12, 3), 200.0)}, "divide bytes by 255"),
    "images nan": ({"images": NAN}, "expected floats from 0 to 1, got nan"),
    "images flat": ({"images": np.zeros((4, 96))}, "expected n x height x width x 3"),
    "images none": ({"images": np.zeros((0, 8, 12, 3)), "poses": np.zeros((0, 4, 4))}, "expected n x height x width x 3"),
    "images int64": ({"images": np.zeros((4, 8, 12, 3), np.int64)}, "got int64"),
    "images text": ({"images": np.full((4, 8, 12, 3), "a")}, "expected uint8 or floats"),
    "images object": ({"images": np.array([[None]], object)}, "no readable NumPy file"),
    "poses few": ({"poses": np.zeros((3, 4, 4))}, "expected 4 matrices, one a picture"),
    "poses zero": ({"poses": np.zeros((4, 4, 4))}, "not orthonormal"),
    "poses nan": ({"poses": np.full((4, 4, 4), np.nan)}, "not finite"),
    "poses complex": ({"poses": np.zeros((4, 4, 4), complex)}, "expected 4 matrices"),
    "poses wide": ({"poses": np.zeros((4, 4, 5))}, "expected 4 x 4 numbers"),
    "focal zero": ({"focal": np.array(0.0)}, "focal: expected a number from"),
    "focal nan": ({"focal": np.array(np.nan)}, "focal: expected a finite"),
    "focal many": ({"focal": np.ones(7)}, "focal: expected one number, two, or one a picture"),
    "focal text": ({"focal": np.array("20")}, "focal: expected one number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_array_is_one_line_that_names_it(tmp_path, name):
    changes, message = WRONG[name]
    sample_arrays.make(tmp_path, **changes)
    with pytest.raises(SceneError, match=message) as caught:
        arrays.read(tmp_path, False)
    assert "\n" not in str(caught.value)


def test_an_archive_that_claims_to_unpack_to_more_than_memory_is_refused(tmp_path):
    sample_arrays.make(tmp_path)
    file = tmp_path / "tiny.npz"
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo("images.npy")
    data = file.read_bytes()
    at = data.rindex(b"images.npy") - 46  # the entry in the archive's table of contents
    assert data[at + 24 : at + 28] == entry.file_size.to_bytes(4, "little")
    file.write_bytes(data[: at + 24] + (2**32 - 2).to_bytes(4, "little") + data[at + 28 :])
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("more.npy", b"x" * 1000)
    with pytest.raises(SceneError, match=r"unpacks to 4 GiB|no readable NumPy file"):
        arrays.read(tmp_path, False)


def test_a_header_that_lies_about_its_shape_is_one_line(tmp_path):
    sample_arrays.make(tmp_path)
    with zipfile.ZipFile(tmp_path / "tiny.npz") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["images.npy"] = parts["images.npy"].replace(b"(4, 8, 12, 3)", b"(4,8,9**9,3) ").replace(b"9**9", b"9999")
    with zipfile.ZipFile(tmp_path / "tiny.npz", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(SceneError, match="no readable NumPy file"):
        arrays.read(tmp_path, False)
