"""RGB-D sequences: 7-Scenes, 3DMatch and TUM."""

import dataclasses

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_rgbd
import sample_rgbd_tum
from sample_rgbd import INSIDE, K, off_the_walls

from taichi_nerf.cameras import OPENCV, PINHOLE, opengl_to_opencv
from taichi_nerf.scenes import SceneError, load_scene, rgbd
from taichi_nerf.scenes.check import check_scene
from taichi_nerf.scenes.rgbd_tum import rotations

from opengl_views import project, write_picture
from real_data import data_folder


def test_poses_lens_and_depths_are_those_of_the_room(tmp_path):
    poses = sample_rgbd.make(tmp_path / "a")
    source = rgbd.read(tmp_path / "a", False)
    for view, matrix in enumerate(poses):
        assert np.abs(source.cameras.project(view, INSIDE)[0] - project(matrix, *K, INSIDE)).max() < 1e-9
    assert len(source.points.positions) > 2000
    assert np.median(off_the_walls(source.points.positions)) < 5e-4  # depths are rounded to millimetres
    assert off_the_walls(source.points.positions).max() < 2e-3
    figure = next(figure for figure in check_scene(source) if figure.name == "depth disagreement")
    assert figure.value < 3  # per cent; the pictures have 40 pixels across


def test_a_scene_opens_in_metres(tmp_path):
    sample_rgbd.make(tmp_path / "a")
    scene = load_scene(tmp_path / "a")
    assert scene.kind == "rgbd"
    assert scene.bounds.unbounded
    assert scene.depths.unit == pytest.approx(0.001 * scene.scene_from_source.scale)
    assert scene.depths.invalid == 65535


def test_sequences_share_a_world_and_state_the_splits(tmp_path):
    for number in (1, 2, 10):
        sample_rgbd.make(tmp_path / "a", n=2, sequence=f"seq-{number:02d}")
    (tmp_path / "a/TrainSplit.txt").write_text("sequence1\nsequence10\n")
    (tmp_path / "a/TestSplit.txt").write_text("sequence2\n")
    source = rgbd.read(tmp_path / "a", False)
    assert source.names[:3] == ["seq-01/frame-000000.color.png", "seq-01/frame-000001.color.png", "seq-02/frame-000000.color.png"]
    assert {name: index.tolist() for name, index in source.splits.items()} == {"train": [0, 1, 4, 5], "test": [2, 3]}
    assert rgbd.fits(tmp_path / "a") == "sequences seq-01, seq-02, seq-10"
    (tmp_path / "a/TestSplit.txt").write_text("sequence2\nsequence1\n")
    with pytest.raises(SceneError, match="names sequences that TrainSplit"):
        rgbd.read(tmp_path / "a", False)
    (tmp_path / "a/TestSplit.txt").write_text("sequence7\n")
    assert rgbd.read(tmp_path / "a", False).splits == {}


def test_what_is_missing_is_counted(tmp_path):
    sample_rgbd.make(tmp_path / "a", n=6)
    (tmp_path / "a/frame-000001.color.png").unlink()
    (tmp_path / "a/frame-000002.pose.txt").unlink()
    (tmp_path / "a/frame-000003.depth.png").unlink()
    np.savetxt(tmp_path / "a/frame-000004.pose.txt", np.full((4, 4), -np.inf))
    source = rgbd.read(tmp_path / "a", False)
    assert source.names == [f"frame-{i:06d}.color.png" for i in (0, 3, 5)]
    assert source.depth.files[1] is None
    assert source.warnings == [
        "1 poses are skipped: they have no picture (the first is frame-000001)",
        "1 pictures are skipped: they have no pose (the first is frame-000002.color.png)",
        "1 frames are skipped: tracking was lost, their poses are not finite (the first is frame-000004)",
        "1 frames have no depth map (the first is frame-000003)",
    ]
    assert load_scene(tmp_path / "a").depths.missing.tolist() == [False, True, False]


def test_without_a_lens_the_published_one_is_taken_and_told(tmp_path):
    sample_rgbd.make(tmp_path / "a")
    (tmp_path / "a/camera-intrinsics.txt").unlink()
    source = rgbd.read(tmp_path / "a", False)
    assert np.allclose(source.cameras.intrinsics, [585 / 16, 585 / 16, 20, 15])
    assert any("is assumed" in note for note in source.notes)


WRONG = {
    "lens short": ("camera-intrinsics.txt", b"1 2 3", "expected 9 numbers, got 3"),
    "lens nan": ("camera-intrinsics.txt", b"nan 0 20 0 36 15 0 0 1", "expected a finite number"),
    "lens of others": ("camera-intrinsics.txt", b"36 0 200 0 36 15 0 0 1", "lies outside"),
    "pose short": ("frame-000001.pose.txt", b"1 0 0 0", "expected 16 numbers, got 4"),
    "pose long": ("frame-000001.pose.txt", b"1 " * 9000, "a long text"),
    "pose partly nan": ("frame-000001.pose.txt", b"nan 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "expected a finite number"),
    "pose words": ("frame-000001.pose.txt", b"a 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "expected a finite number"),
    "pose sheared": ("frame-000001.pose.txt", b"2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "not orthonormal"),
    "pose not utf-8": ("frame-000001.pose.txt", b"\xff\xfe", "no UTF-8"),
    "picture broken": ("frame-000001.color.png", b"no picture", "no readable image"),
    "depth broken": ("frame-000001.depth.png", b"no picture", "no readable image"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name):
    file, content, message = WRONG[name]
    sample_rgbd.make(tmp_path / "a")
    (tmp_path / "a" / file).write_bytes(content)
    with pytest.raises(SceneError, match=message) as caught:
        rgbd.read(tmp_path / "a", False)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_real_depth_maps_agree_with_each_other_and_with_nothing_else():
    """One view's depths, carried to another by the poses, are what it measured; a wrong convention shows."""
    source = rgbd.read(data_folder("sevenscenes_100"), False)
    assert len(source.names) == 100
    assert not source.warnings

    def disagreement(**changes):
        return check_scene(dataclasses.replace(source, **changes))[0].value

    right = disagreement()
    assert right < 1.2  # per cent; measured 0.80
    turned = dataclasses.replace(source.cameras, camera_to_worlds=opengl_to_opencv(source.cameras.camera_to_worlds))
    assert disagreement(cameras=turned) > 10 * right
    wrong_lens = dataclasses.replace(source.cameras, intrinsics=np.tile([525.0, 525, 320, 240], (100, 1)))
    assert disagreement(cameras=wrong_lens) > 2 * right
    assert disagreement(depth=dataclasses.replace(source.depth, kind="ray")) > 4 * right


# --- TUM's benchmark --------------------------------------------------------------------------------------------------


def test_poses_are_those_of_the_pictures_times(tmp_path):
    poses = sample_rgbd_tum.make(tmp_path / "a")
    source = rgbd.read(tmp_path / "a", False)
    assert rgbd.fits(tmp_path / "a") == "rgb.txt and depth.txt and groundtruth.txt"
    assert len(source.names) == 5
    for view, matrix in enumerate(poses):
        wanted = project(matrix, *sample_rgbd_tum.NOMINAL, INSIDE)
        assert np.abs(source.cameras.project(view, INSIDE)[0] - wanted).max() < 1e-3  # interpolated over 10 ms
    assert np.allclose(source.cameras.intrinsics, sample_rgbd_tum.NOMINAL)
    assert (source.cameras.models == PINHOLE).all()
    assert not source.warnings
    assert np.median(off_the_walls(source.points.positions)) < 1e-3
    assert off_the_walls(source.points.positions).max() < 5e-3


def test_the_recordings_camera_is_told_by_the_comment_in_its_list(tmp_path):
    sample_rgbd_tum.make(tmp_path / "a", camera="freiburg1")
    source = rgbd.read(tmp_path / "a", False)
    assert np.allclose(source.cameras.intrinsics[0] * 10, [517.306408, 516.469215, 319.14304, 255.813989])
    assert np.allclose(source.cameras.distortion[0], [0.262383, -0.953104, 1.163314, 0, 0, 0, -0.005358, 0.002628])
    assert (source.cameras.models == OPENCV).all()
    assert "published calibration of freiburg1" in source.notes[0]
    np.savetxt(tmp_path / "a/camera-intrinsics.txt", [[52, 0, 31], [0, 53, 23], [0, 0, 1]])
    assert np.allclose(rgbd.read(tmp_path / "a", False).cameras.intrinsics, [52, 53, 31, 23])


def test_pictures_without_a_pose_in_time_or_without_a_file_are_counted(tmp_path):
    sample_rgbd_tum.make(tmp_path / "a", n=6)
    files = sorted((tmp_path / "a/rgb").iterdir())
    files[1].unlink()
    sorted((tmp_path / "a/depth").iterdir())[2].unlink()
    lines = (tmp_path / "a/groundtruth.txt").read_text().splitlines()
    kept = [line for line in lines if line.startswith("#") or float(line.split()[0]) - sample_rgbd_tum.START < 0.12]
    (tmp_path / "a/groundtruth.txt").write_text("\n".join(kept))
    source = rgbd.read(tmp_path / "a", False)
    assert source.names == [f"rgb/{file.name}" for file in (files[0], files[2], files[3], files[4])]
    assert source.warnings == [
        "1 pictures are skipped: they do not exist",
        "1 pictures are skipped: no pose within 20 ms",
        "1 pictures have no depth map within 20 ms",
    ]


def test_quaternions_turn_as_their_axis_and_angle_say():
    half = np.sqrt(0.5)
    found = rotations(np.array([[0, 0, half, half], [half, 0, 0, half], [0, 0, 0, 1.0]]))
    assert np.allclose(found[0] @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(found[1] @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(found[2], np.eye(3))


WRONG_TUM = {
    "list with odd columns": ("rgb.txt", b"1305031102.0 a.png b\n", "entry 1: expected a timestamp"),
    "list without times": ("rgb.txt", b"a a.png\n", "entry 1: expected a finite number"),
    "list of nothing": ("rgb.txt", b"", "none of its 0 pictures"),
    "list not utf-8": ("rgb.txt", b"\xff\xfe", "no UTF-8"),
    "list leads out": ("rgb.txt", b"1305031102.0 ../../etc/passwd\n", "leads out of the scene"),
    "list leads to the root": ("depth.txt", b"1305031102.0 /etc/passwd\n", "leads out of the scene"),
    "poses of nothing": ("groundtruth.txt", b"# nothing\n", "expected lines of a timestamp"),
    "poses nan": ("groundtruth.txt", b"1305031102.0 nan 0 0 0 0 0 1\n", "expected a finite number"),
    "poses without turn": ("groundtruth.txt", b"1305031102.0 0 0 0 0 0 0 0\n", "quaternions of length 1"),
    "poses far away": ("groundtruth.txt", b"1305031102.0 1e9 0 0 0 0 0 1\n", "thousand kilometres"),
    "poses of another day": ("groundtruth.txt", b"5 0 0 0 0 0 0 1\n", "none of its 5 pictures"),
    "one line": ("groundtruth.txt", b"1 " * 9000, "thousands of letters"),
}


@pytest.mark.parametrize("name", WRONG_TUM)
def test_a_broken_list_is_one_line_that_names_it(tmp_path, name):
    file, content, message = WRONG_TUM[name]
    sample_rgbd_tum.make(tmp_path / "a")
    (tmp_path / "a" / file).write_bytes(content)
    with pytest.raises(SceneError, match=message) as caught:
        rgbd.read(tmp_path / "a", False)
    assert "\n" not in str(caught.value)


def test_pictures_of_another_shape_than_the_calibration_are_refused(tmp_path):
    sample_rgbd_tum.make(tmp_path / "a")
    for file in (tmp_path / "a/rgb").iterdir():
        write_picture(file, 64, 36, 3)
    with pytest.raises(SceneError, match="states 640 x 480 for a picture of 64 x 36"):
        rgbd.read(tmp_path / "a", False)


def test_depth_of_nothing_gives_no_points(tmp_path):
    sample_rgbd.make(tmp_path / "a")
    for file in (tmp_path / "a").glob("*.depth.png"):
        imageio.imwrite(file, np.full((30, 40), 65535, np.uint16))
    assert rgbd.read(tmp_path / "a", False).points is None
