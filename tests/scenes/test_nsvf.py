"""NSVF's scenes."""

import numpy as np
import pytest
import sample_nsvf
from sample_nsvf import CENTER, FOCAL, MATRIX

from taichi_nerf.scenes import SceneError, nsvf

from opengl_views import POINTS, project, write_picture

VARIANTS = {
    "4 x 4": (MATRIX, (FOCAL, FOCAL, *CENTER)),
    "3 x 3": ("20 0 6.5\n0 21 4.25\n0 0 1\n", (20, 21, 6.5, 4.25)),
    "one line of 16": (MATRIX.replace("\n", " "), (FOCAL, FOCAL, *CENTER)),
    "SRN's": ("20 6.5 4.25 0.\n0. 0. 0.\n1.\n8 12\n", (20, 20, 6.5, 4.25)),
    "SRN's for twice the size": ("40 13 8.5 0.\n0. 0. 0.\n1.\n16 24\n", (20, 20, 6.5, 4.25)),
    "SRN's first line": ("20 6.5 4.25 0.\n", (20, 20, 6.5, 4.25)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_points_project_with_every_spelling_of_the_intrinsics(tmp_path, name):
    text, intrinsics = VARIANTS[name]
    poses = sample_nsvf.make(tmp_path / "a", intrinsics=text)
    source = nsvf.read(tmp_path / "a", False)
    for view, matrix in enumerate(poses):
        assert np.abs(source.cameras.project(view, POINTS)[0] - project(matrix, *intrinsics)).max() < 1e-9
    assert source.box.tolist() == [[-1, -1.5, -0.5], [1, 1.5, 0.75]]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("0_a", "0_b", "1_a", "2_a"), {"train": [0, 1], "val": [2], "test": [3]}),
        (("0_a", "0_b", "1_a"), {"train": [0, 1], "test": [2]}),
        (("0_a", "2_a"), {"train": [0], "test": [1]}),
        (("0_a", "0_b"), {}),
        (("a", "b", "c"), {}),
        (("0_a", "1_a", "b"), {}),
        (("1_a", "2_a"), {}),
    ],
)
def test_prefixes_state_the_splits_of_synthetic_and_of_real_sets(tmp_path, names, splits):
    sample_nsvf.make(tmp_path / "a", names=names)
    assert {split: index.tolist() for split, index in nsvf.read(tmp_path / "a", False).splits.items()} == splits


def test_pictures_and_poses_belong_together_by_name(tmp_path):
    poses = sample_nsvf.make(tmp_path / "a", names=("0_10", "0_2", "1_3", "1_4"))
    (tmp_path / "a/rgb/1_3.png").unlink()
    write_picture(tmp_path / "a/rgb/1_5.png")
    source = nsvf.read(tmp_path / "a", False)
    assert source.names == ["rgb/0_2.png", "rgb/0_10.png", "rgb/1_4.png"]
    centers = np.array([poses[i][:3, 3] for i in (1, 0, 3)])
    assert np.allclose(source.cameras.centers, centers)
    assert source.warnings == [
        "1 poses are skipped: rgb has no picture of their name (the first is 1_3)",
        "1 pictures are skipped: they have no pose (the first is 1_5.png)",
    ]


def test_extrinsics_are_world_to_camera_and_go_before_poses(tmp_path):
    poses = sample_nsvf.make(tmp_path / "a")
    (tmp_path / "a/extrinsic").mkdir()
    for file in (tmp_path / "a/pose").iterdir():
        np.savetxt(tmp_path / "a/extrinsic" / file.name, np.linalg.inv(np.loadtxt(file)))
        file.unlink()
    for _ in range(2):
        source = nsvf.read(tmp_path / "a", False)
        for view, matrix in enumerate(poses):
            assert np.abs(source.cameras.project(view, POINTS)[0] - project(matrix, FOCAL, FOCAL, *CENTER)).max() < 1e-9
        if (tmp_path / "a/pose").is_dir():
            (tmp_path / "a/pose").rmdir()
    assert nsvf.fits(tmp_path / "a") == "bbox.txt, rgb and extrinsic"


def test_the_form_is_told_by_its_files(tmp_path):
    sample_nsvf.make(tmp_path / "a")
    assert nsvf.fits(tmp_path / "a") == "bbox.txt, rgb and pose"
    (tmp_path / "a/bbox.txt").unlink()
    assert nsvf.fits(tmp_path / "a") == ""
    assert nsvf.fits(tmp_path / "nothing") == ""


WRONG = {
    "intrinsics empty": ("intrinsics.txt", b"", "expected a 3 x 3 or 4 x 4 camera matrix"),
    "intrinsics words": ("intrinsics.txt", b"focal twenty\n", "line 1: expected a finite number"),
    "intrinsics nan": ("intrinsics.txt", b"nan 6 4 0.\n", "line 1: expected a finite number"),
    "intrinsics skewed": ("intrinsics.txt", b"20 5 6\n0 20 4\n0 0 1\n", "without skew"),
    "intrinsics negative": ("intrinsics.txt", b"-20 6 4 0.\n", "positive focal lengths"),
    "intrinsics of larger pictures": ("intrinsics.txt", b"80 0 26\n0 80 17\n0 0 1\n", "principal point"),
    "intrinsics of another shape": ("intrinsics.txt", b"20 6 4 0.\n8 8\n", "states 8 x 8"),
    "intrinsics long": ("intrinsics.txt", b"1 " * 50000, "expected a few numbers"),
    "intrinsics not utf-8": ("intrinsics.txt", b"\xff\xfe\xff", "no UTF-8"),
    "box short": ("bbox.txt", b"-1 -1 -1\n", "expected min x y z"),
    "box turned round": ("bbox.txt", b"1 1 1 -1 -1 -1 0.1\n", "second corner"),
    "box nan": ("bbox.txt", b"nan -1 -1 1 1 1 0.1\n", "expected a finite number"),
    "pose short": ("pose/0_train_0.txt", b"1 0 0 0\n0 1 0 0\n", "expected 4 x 4 numbers, got 8"),
    "pose nan": ("pose/0_train_0.txt", b"nan 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "expected a finite number"),
    "pose sheared": ("pose/0_train_0.txt", b"2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "not orthonormal"),
    "pose mirrored": ("pose/0_train_0.txt", b"-1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "mirror"),
    "picture broken": ("rgb/0_train_0.png", b"no picture", "no readable image"),
    "two pictures": ("rgb/0_train_0.jpg", b"no picture", "two pictures for one pose"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name):
    file, content, message = WRONG[name]
    sample_nsvf.make(tmp_path / "a")
    (tmp_path / "a" / file).write_bytes(content)
    with pytest.raises(SceneError, match=message) as caught:
        nsvf.read(tmp_path / "a", False)
    assert "\n" not in str(caught.value)


def test_no_pair_of_picture_and_pose_is_one_line(tmp_path):
    sample_nsvf.make(tmp_path / "a", names=("0_a",))
    (tmp_path / "a/rgb/0_a.png").rename(tmp_path / "a/rgb/other.png")
    with pytest.raises(SceneError, match="no picture in rgb has a pose"):
        nsvf.read(tmp_path / "a", False)
