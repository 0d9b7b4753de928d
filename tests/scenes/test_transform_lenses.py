"""The lenses of transforms.json: every spelling of focal lengths and every meaning of k1 to k6."""

import json
import math

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_transforms
from deep_pictures import write_deep_png
from PIL import Image
from sample_transforms import LENS

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, OPENCV, PINHOLE
from taichi_nerf.scenes import SceneError, load_scene, transforms
from taichi_nerf.scenes.images import read_image, stored_size
from taichi_nerf.scenes.write import write_transforms

from opengl_views import POINTS, project, to_camera, write_picture


def change(folder, edit):
    file = folder / "transforms.json"
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


def assert_projects(source, poses, *intrinsics, bend=lambda x, y: (x, y), within=1e-9):
    for view, matrix in enumerate(poses):
        truth = project(matrix, *intrinsics, bend=bend)
        assert np.abs(source.cameras.project(view, POINTS)[0] - truth).max() < within


def opencv(k1=0.0, k2=0.0, p1=0.0, p2=0.0, k3=0.0, k4=0.0, k5=0.0, k6=0.0, eighth=0.0):
    """OpenCV's lens, written from its documentation; `eighth` is nerfstudio's r^8."""

    def bend(x, y):
        r2 = x * x + y * y
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + eighth * r2**4) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y

    return bend


def fisheye(*k):
    def bend(x, y):
        r = np.hypot(x, y)
        theta = np.arctan(r)
        return tuple(c / r * theta * (1 + sum(k[i] * theta ** (2 * i + 2) for i in range(4))) for c in (x, y))

    return bend


CAMERA = (15.0, 14.0, 6.3, 3.8)
ONLY_FOCAL = {name: LENS[name] for name in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
K = {"k1": 0.1, "k2": -0.05, "k3": 0.02, "k4": 0.01}
LENSES = {
    "pinhole": ({}, PINHOLE, opencv()),
    "opencv": ({"k1": 0.05, "k2": -0.02, "p1": 0.001, "p2": -0.002}, OPENCV, opencv(0.05, -0.02, 0.001, -0.002)),
    "k3": ({"k1": 0.05, "k3": -0.02}, OPENCV, opencv(0.05, k3=-0.02)),
    "rational": ({**K, "k5": 0.003, "k6": 0.002}, OPENCV, opencv(0.1, -0.05, k3=0.02, k4=0.01, k5=0.003, k6=0.002)),
    "full opencv": ({**K, "camera_model": "FULL_OPENCV"}, OPENCV, opencv(0.1, -0.05, k3=0.02, k4=0.01)),
    "fisheye": ({**K, "camera_model": "OPENCV_FISHEYE"}, FISHEYE, fisheye(0.1, -0.05, 0.02, 0.01)),
    "is_fisheye": ({**K, "p1": 0, "p2": 0, "is_fisheye": True}, FISHEYE, fisheye(0.1, -0.05, 0.02, 0.01)),
    "pinhole by name but bent": ({"k1": 0.05, "camera_model": "PINHOLE"}, OPENCV, opencv(0.05)),
}


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("where", ["shared", "in each frame"])
def test_points_project_through_every_lens(tmp_path, name, where):
    fields, model, bend = LENSES[name]
    poses = sample_transforms.make(tmp_path, lens=ONLY_FOCAL, camera_model=None)
    change(tmp_path, lambda data: [place.update(fields) for place in ([data] if where == "shared" else data["frames"])])
    source = transforms.read(tmp_path, False)
    assert set(source.cameras.models.tolist()) == {model}
    assert_projects(source, poses, *CAMERA, bend=bend)


def test_k4_alone_is_nerfstudios_eighth_power(tmp_path):
    poses = sample_transforms.make(tmp_path, lens={**ONLY_FOCAL, **K})
    source = transforms.read(tmp_path, False)
    assert_projects(source, poses, *CAMERA, bend=opencv(0.1, -0.05, k3=0.02, eighth=0.01), within=1e-5)
    assert any("r^8" in note for note in source.notes)
    assert not any("followed" in warning for warning in source.warnings)


def test_equirectangular_pictures_see_the_whole_sphere(tmp_path):
    poses = sample_transforms.make(
        tmp_path, lens={"fl_x": 8, "fl_y": 8, "w": 16, "h": 8}, size=(16, 8), camera_model="EQUIRECTANGULAR"
    )
    source = transforms.read(tmp_path, False)
    assert set(source.cameras.models.tolist()) == {EQUIRECTANGULAR}
    around = 9 * np.random.default_rng(0).normal(size=(50, 3))
    for view, matrix in enumerate(poses):
        x, y, z = to_camera(matrix, around).T  # y up, z backward
        azimuth, elevation = np.arctan2(x, -z), np.arctan2(y, np.hypot(x, z))
        truth = np.stack([8 * (1 + azimuth / math.pi), 8 * (0.5 - elevation / math.pi)], -1)
        assert np.abs(source.cameras.project(view, around)[0] - truth).max() < 1e-9


ANGLES = {
    "fl_x alone": ({"fl_x": 15.0}, 15.0, 15.0),
    "fl_y alone": ({"fl_y": 14.0}, 14.0, 14.0),
    "camera_angle_x alone": ({"camera_angle_x": 0.8}, 6 / math.tan(0.4), 6 / math.tan(0.4)),
    "both angles": ({"camera_angle_x": 0.8, "camera_angle_y": 0.5}, 6 / math.tan(0.4), 4 / math.tan(0.25)),
    "degrees": ({"x_fov": 40.0, "y_fov": 30.0}, 6 / math.tan(math.radians(20)), 4 / math.tan(math.radians(15))),
    "pixels before angles": ({"fl_x": 15.0, "camera_angle_x": 0.1}, 15.0, 15.0),
}


@pytest.mark.parametrize("name", ANGLES)
def test_focal_lengths_are_read_in_every_spelling(tmp_path, name):
    fields, fx, fy = ANGLES[name]
    poses = sample_transforms.make(tmp_path, lens=fields)
    assert_projects(transforms.read(tmp_path, False), poses, fx, fy, 6, 4)


def test_a_frames_own_lens_goes_before_the_files(tmp_path):
    poses = sample_transforms.make(tmp_path)
    write_picture(tmp_path / "images/002.png", 20, 10, 3)
    own = {"camera_angle_x": 0.8, "cx": 9.0, "cy": 5.5, "w": 20, "h": 10, "k1": 0.0, "k2": 0, "p1": 0, "p2": 0}
    change(tmp_path, lambda data: data["frames"][2].update({**own, "mask_path": None, "depth_file_path": None}))
    cameras = transforms.read(tmp_path, False).cameras
    assert cameras.sizes.tolist() == [[12, 8], [12, 8], [20, 10], [12, 8], [12, 8]]
    focal = 10 / math.tan(0.4)
    assert np.abs(cameras.project(2, POINTS)[0] - project(poses[2], focal, focal, 9, 5.5)).max() < 1e-9
    assert cameras.intrinsics[3].tolist() == [15, 14, 6.3, 3.8]
    assert cameras.models.tolist() == [OPENCV, OPENCV, PINHOLE, OPENCV, OPENCV]


def test_pictures_of_another_size_scale_the_intrinsics(tmp_path):
    poses = sample_transforms.make(tmp_path, size=(6, 4))
    source = transforms.read(tmp_path, False)
    assert_projects(source, poses, 7.5, 7.0, 3.15, 1.9, bend=opencv(0.05, -0.02, 0.001, -0.002))
    assert "intrinsics for 12 x 8 scaled to pictures of 6 x 4 (5 pictures)" in source.notes


@pytest.mark.parametrize(("k1", "folds"), [(-0.1, False), (-0.6, True), (-1.5, True)])
def test_a_lens_that_folds_back_inside_the_picture_is_warned_of(tmp_path, k1, folds):
    """r (1 + k1 r²) is largest where r² = -1 / 3 k1: pixels farther out have no direction."""
    sample_transforms.make(tmp_path, lens={"fl_x": 12, "fl_y": 12, "w": 12, "h": 8, "k1": k1})
    x, y = np.meshgrid((np.arange(600) + 0.5) / 50 - 6, (np.arange(400) + 0.5) / 50 - 4)
    reach = 12 * 2 / 3 / math.sqrt(-3 * k1)
    truth = (np.hypot(x, y) > reach).mean()
    told = [warning for warning in load_scene(tmp_path).warnings if "folds back" in warning]
    assert len(told) == folds == bool(truth)
    for warning in told:
        assert "of 5 views" in warning
        assert abs(int(warning.split("up to ")[1].split("%")[0]) / 100 - truth) < 0.02


def turned_by_exif(folder, orientation):
    """The same scene with JPEGs that are to be shown turned; its points and pixels, as the pixels are stored, [n_views, n, 2]."""
    poses = sample_transforms.make(folder, size=(12, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for file in sorted((folder / "images").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"), exif=exif)
        file.unlink()

    def edit(data):
        for frame in data["frames"]:
            frame.update(file_path=frame["file_path"].replace(".png", ".jpg"), mask_path=None, depth_file_path=None)

    change(folder, edit)
    return np.stack([project(pose, 15, 14, 6.3, 3.8, bend=opencv(0.05, -0.02, 0.001, -0.002)) for pose in poses])


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_pictures_that_exif_turns_turn_their_cameras(tmp_path, orientation, turns):
    """COLMAP, instant-ngp and nerfstudio look at pixels as they are stored; converted, nothing is left to turn."""
    stored = turned_by_exif(tmp_path / "in", orientation)
    u, v = stored[..., 0], stored[..., 1]
    for height in (8, 12, 8)[:turns]:
        u, v = height - v, u
    source = transforms.read(tmp_path / "in", False)
    assert any("5 pictures have an EXIF orientation" in note for note in source.notes) == bool(turns)
    write_transforms(source, tmp_path / "out")
    for found in (source, transforms.read(tmp_path / "out", False)):
        assert found.cameras.sizes[0].tolist() == ([8, 12] if turns % 2 else [12, 8])
        for i in range(5):
            np.testing.assert_allclose(found.cameras.project(i, POINTS)[0], np.stack([u[i], v[i]], -1), atol=1e-9)
    pictures = [imageio.imread(file) for file in sorted((tmp_path / "out/images").iterdir())]
    assert all(np.array_equal(picture, read_image(file)) for picture, file in zip(pictures, source.image_files, strict=True))


def grey_tiff(file, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels[..., 0]).save(file, exif=exif)


@pytest.mark.parametrize(
    ("extension", "channels", "write"), [(".png", n, write_deep_png) for n in (1, 3, 4)] + [(".tif", 1, grey_tiff)]
)
def test_pictures_that_exif_turns_keep_their_16_bits(tmp_path, extension, channels, write):
    sample_transforms.make(tmp_path / "in", size=(12, 8))
    stored = np.random.default_rng(0).integers(0, 2**16, (5, 8, 12, channels), dtype=np.uint16)
    for number, file in enumerate(sorted((tmp_path / "in/images").iterdir())):
        file.unlink()
        write(file.with_suffix(extension), stored[number], 6)

    def edit(data):
        for frame in data["frames"]:
            frame.update(file_path=frame["file_path"].replace(".png", extension), mask_path=None, depth_file_path=None)

    change(tmp_path / "in", edit)
    write_transforms(transforms.read(tmp_path / "in", False), tmp_path / "out")
    for pixels, file in zip(stored, sorted((tmp_path / "out/images").iterdir()), strict=True):
        assert np.array_equal(read_image(file), np.rot90(pixels, -1))
        assert stored_size(file) == ((8, 12), 1)


def test_cameras_of_pictures_as_they_are_shown_are_not_turned(tmp_path):
    turned_by_exif(tmp_path, 6)
    change(tmp_path, lambda data: data.update(w=8, h=12, cx=3.8, cy=6.3))
    cameras = transforms.read(tmp_path, False).cameras
    assert cameras.intrinsics[0].tolist() == [15, 14, 3.8, 6.3]


def test_what_exif_mirrors_or_turns_without_its_mask_is_refused(tmp_path):
    turned_by_exif(tmp_path / "a", 2)
    with pytest.raises(SceneError, match="mirrored EXIF orientation 2"):
        transforms.read(tmp_path / "a", False)
    turned_by_exif(tmp_path / "b", 3)
    change(tmp_path / "b", lambda data: data["frames"][1].update(mask_path="masks/001.png"))
    with pytest.raises(SceneError, match=r"001\.jpg: is turned by its EXIF orientation, and 001\.png is not"):
        transforms.read(tmp_path / "b", False)


def test_intrinsics_that_cannot_be_of_the_pictures_size_are_warned_of(tmp_path):
    sample_transforms.make(tmp_path, lens={**LENS, "w": None, "h": None}, size=(6, 4))
    assert "the principal point (6.3, 3.8) lies outside of pictures of 6 x 4" in transforms.read(tmp_path, False).warnings[0]


def test_pictures_that_are_turned_are_refused(tmp_path):
    sample_transforms.make(tmp_path, size=(8, 12))
    with pytest.raises(SceneError, match=r"states 12 x 8 for a picture of 8 x 12 .*EXIF"):
        transforms.read(tmp_path, False)
