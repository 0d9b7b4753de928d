"""LLFF: axes and order as the format has them, intrinsics in the pictures' pixels, and COLMAP's lens and points if they agree."""

import shutil

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_llff as sample

from taichi_nerf.cameras import OPENCV, PINHOLE, make_cameras
from taichi_nerf.scenes import colmap_binary, llff
from taichi_nerf.scenes.check import check_scene
from taichi_nerf.scenes.colmap_model import ColmapCamera, ColmapImage, ColmapModel, make_points
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import read_image
from taichi_nerf.scenes.load import load_scene

from real_data import data_folder


@pytest.fixture
def scene(tmp_path):
    sample.make(tmp_path)
    return tmp_path


def test_axes_and_intrinsics_are_ours(scene):
    source = llff.read(scene, False)
    np.testing.assert_allclose(source.cameras.camera_to_worlds, sample.poses(), atol=1e-12)
    np.testing.assert_allclose(source.cameras.intrinsics[0], [60, 60, 32, 24])
    assert source.near_far == pytest.approx((4.5, 40.0))
    assert source.forward_facing
    assert source.image_files[3] == scene / "images" / "image003.png"
    assert any("images_2" in note for note in source.notes)


def test_smaller_pictures_scale_the_intrinsics(scene):
    shutil.rmtree(scene / "images")
    source = llff.read(scene, False)
    np.testing.assert_allclose(source.cameras.intrinsics[0], [30, 30, 16, 12])
    assert source.cameras.sizes[0].tolist() == [32, 24]


def test_every_eighth_view_is_held_out(scene):
    loaded = load_scene(scene)
    assert loaded.kind == "llff"
    assert loaded.splits["test"].tolist() == [0]
    assert loaded.bounds.forward_facing


def test_poses_follow_the_names_letter_by_letter(scene):
    shutil.rmtree(scene / "images")
    shutil.rmtree(scene / "images_2")
    (scene / "images").mkdir()
    for i in (8, 9, 10, 11, 12, 13, 14):
        imageio.imwrite(scene / "images" / f"{i}.png", np.zeros((48, 64, 3), np.uint8))
    assert [file.stem for file in llff.read(scene, False).image_files] == ["10", "11", "12", "13", "14", "8", "9"]


def test_cameras_around_an_object_are_not_forward_facing(scene):
    around = []
    for angle in np.linspace(0, 2 * np.pi, sample.N_VIEWS, endpoint=False):
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        around.append(np.concatenate([rotation, rotation @ [[0], [0], [-4.0]]], -1))
    np.save(scene / "poses_bounds.npy", sample.table(around, (2.0, 6.0)))
    source = llff.read(scene, False)
    assert not source.forward_facing
    assert any("not forward-facing" in note for note in source.notes)


def test_a_camera_ahead_of_the_nearest_depth_is_not_forward_facing(scene):
    poses = sample.poses()
    poses[0, 2, 3] = 6.0
    np.save(scene / "poses_bounds.npy", sample.table(poses))
    assert not llff.read(scene, False).forward_facing


def test_impossible_bounds_are_ignored_with_a_warning(scene):
    np.save(scene / "poses_bounds.npy", sample.table(sample.poses(), (0.0, 0.0)))
    source = llff.read(scene, False)
    assert source.near_far is None
    assert len(source.warnings) == 1


def colmap_model(poses, n_points=60, distortion=0.05, focal=sample.FOCAL):
    positions = np.random.default_rng(0).uniform([-3, -3, 8], [6, 3, 30], (n_points, 3))
    width, height = sample.SIZE
    lens = (focal, width / 2, height / 2, distortion)
    cameras = make_cameras(poses, [focal, focal, width / 2, height / 2], sample.SIZE, OPENCV, [distortion, *[0] * 7])
    images = []
    for i, pose in enumerate(poses):
        turn, place = pose[:, :3].T, -pose[:, :3].T @ pose[:, 3]
        w = np.sqrt(1 + np.trace(turn)) / 2
        quaternion = np.array([w, turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
        quaternion[1:] /= 4 * w
        seen = cameras.project(i, positions)[0]
        images.append(ColmapImage(i + 1, quaternion, place, 1, f"IMG_{i:03d}.JPG", seen, np.arange(n_points)))
    rows = [[*position, 10, 20, 30, 0.1] for position in positions]
    track_images = np.tile(np.arange(1, len(poses) + 1), n_points)
    points = make_points(
        list(range(n_points)), rows, [len(poses)] * n_points, track_images, np.repeat(np.arange(n_points), len(poses))
    )
    return ColmapModel([ColmapCamera(1, "SIMPLE_RADIAL", width, height, lens)], images, points)


def test_a_complete_model_gives_its_lens_and_tracks(scene):
    colmap_binary.write(scene / "sparse/0", colmap_model(sample.poses()))
    shutil.rmtree(scene / "images")  # only the halved pictures
    source = llff.read(scene, False)
    assert source.cameras.models.tolist() == [OPENCV] * 7
    assert source.cameras.distortion[0, 0] == 0.05
    assert check_scene(source)[0].value < 1e-9


def test_a_model_without_images_is_believed_if_its_depths_are_the_bounds(scene):
    model = colmap_model(sample.poses())
    colmap_binary.write(scene / "sparse/0", model)
    (scene / "sparse/0/images.bin").unlink()
    assert llff.read(scene, False).points is None  # the bounds are others
    rows = sample.table(sample.poses())
    for row, pose in zip(rows, sample.poses(), strict=True):
        row[15:] = np.percentile((model.points.positions - pose[:, 3]) @ pose[:, 2], (0.1, 99.9))
    np.save(scene / "poses_bounds.npy", rows)
    source = llff.read(scene, False)
    assert len(source.points.positions) == 60
    assert source.cameras.distortion[0, 0] == 0.05


@pytest.mark.parametrize("what", ["moved", "focal", "fewer", "damaged"])
def test_a_model_that_disagrees_is_left_out_and_said_so(scene, what):
    poses = sample.poses()
    if what == "moved":
        poses[:, :, 3] *= 1.2
    model = colmap_model(poses[:5] if what == "fewer" else poses, focal=80.0 if what == "focal" else sample.FOCAL)
    colmap_binary.write(scene / "sparse/0", model)
    if what == "damaged":
        (scene / "sparse/0/images.bin").write_bytes(b"12345678901")
    source = llff.read(scene, False)
    assert source.cameras.models.tolist() == [PINHOLE] * 7
    assert any("not used" in note for note in source.notes)
    assert (source.points is not None) == (what == "focal")


def table_with(row, column, value):
    rows = sample.table(sample.poses())
    rows[row, column] = value
    return rows


BROKEN = {
    "wrong shape": (np.zeros((7, 15)), r"shape \(n, 17\)"),
    "one number": (np.float64(3), r"shape \(n, 17\)"),
    "text": (np.full((7, 17), "a"), r"shape \(n, 17\)"),
    "no poses": (np.zeros((0, 17)), "no poses"),
    "more poses than pictures": (sample.table([*sample.poses(), sample.poses()[0]]), "no folder has as many"),
    "nan": (table_with(2, 3, np.nan), "not finite"),
    "huge": (table_with(2, 3, 1e30), "absurdly large"),
    "stretched": (table_with(2, 1, 5.0), "not orthonormal"),
    "mirrored": (sample.table(sample.poses() * [1, 1, -1, 1]), "mirror"),
    "no focal length": (table_with(0, 14, 0), "focal length"),
    "negative height": (table_with(0, 4, -3), "height"),
    "other shape": (table_with(0, 4, 30), "another shape"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_poses_are_one_line(scene, case):
    content, said = BROKEN[case]
    np.save(scene / "poses_bounds.npy", content)
    with pytest.raises(SceneError, match=said) as caught:
        llff.read(scene, False)
    assert "\n" not in str(caught.value)


def test_pickles_and_truncations_are_refused(scene):
    file = scene / "poses_bounds.npy"
    whole = file.read_bytes()
    for length in (0, 5, 60, 127, 128, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(SceneError):
            llff.read(scene, False)
    np.save(file, np.array([{"a": 1}], object))
    with pytest.raises(SceneError):
        llff.read(scene, False)


def test_real_fern_has_the_lens_that_its_poses_file_leaves_out():
    """Points' colors are the pictures' where they project to: with COLMAP's k1 (16.9 of 255 off), not without it (24.2)."""
    source = llff.read(data_folder("fern_8"), False)
    assert source.forward_facing
    assert source.near_far == pytest.approx((15.29, 80.0), rel=1e-3)
    assert len(source.points.positions) == 10091
    np.testing.assert_allclose(source.cameras.intrinsics[0], [407.566, 407.566, 252, 189], rtol=1e-5)
    without = make_cameras(source.cameras.camera_to_worlds, source.cameras.intrinsics, source.cameras.sizes)
    points = colmap_binary.read_points(data_folder("fern_8") / "sparse/0/points3D.bin")
    owners = np.repeat(np.arange(len(points.ids)), points.track_lengths)
    differences = [[], []]
    for i in range(0, 20, 5):
        image = read_image(source.image_files[i])[..., :3].astype(float)
        mine = owners[points.track_images == i + 1]  # COLMAP numbers images from 1
        for found, cameras in zip(differences, (source.cameras, without), strict=True):
            pixels, _ = cameras.project(i, points.positions[mine])
            good = (pixels > 1).all(-1) & (pixels < cameras.sizes[i] - 1).all(-1)
            columns, rows = np.floor(pixels[good]).astype(int).T
            found.append(np.abs(image[rows, columns] - points.colors[mine][good]).mean())
    assert np.mean(differences[0]) < 0.75 * np.mean(differences[1])
