"""MVSNet's scenes, and BlendedMVS."""

import shutil

import numpy as np
import pytest
import sample_mvsnet
import sample_mvsnet_scan
from sample_mvsnet import SIZE, K

from taichi_nerf.scenes import SceneError, load_scene, mvsnet
from taichi_nerf.scenes.images import read_image

from opengl_views import POINTS, project, write_picture

VARIANTS = {
    "as it is": {},
    "cameras for a quarter of the size": {"factor": 0.25},
    "cameras for twice the size": {"factor": 2.0},
    "BlendedMVS": {"images": "blended_images"},
    "interval only": {"depths": "2.0 0.02"},
}
NEAR_FAR = {"interval only": (2.0, 2.0 + 0.02 * 191)}


@pytest.mark.parametrize("name", VARIANTS)
def test_points_project_and_depths_are_the_files_own(tmp_path, name):
    poses = sample_mvsnet.make(tmp_path / "a", **VARIANTS[name])
    source = mvsnet.read(tmp_path / "a", False)
    for view, matrix in enumerate(poses):
        wanted = project(matrix, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        assert np.abs(source.cameras.project(view, POINTS)[0] - wanted).max() < 1e-9
    assert source.near_far == pytest.approx(NEAR_FAR.get(name, (2.0, 7.1)))
    assert source.unbounded
    assert len([note for note in source.notes if "scaled by" in note]) == ("factor" in VARIANTS[name])


def test_a_scene_opens_with_depth_along_the_axis(tmp_path):
    sample_mvsnet.make(tmp_path / "a")
    scene = load_scene(tmp_path / "a")
    assert scene.kind == "mvsnet"
    assert scene.depths.kind == "z"
    assert np.allclose(scene.depths.images[2], 3.2)
    assert not scene.depths.missing.any()


def test_float_maps_are_read_from_the_top_down(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    sample_mvsnet.write_pfm(tmp_path / "a.pfm", values)
    assert np.array_equal(read_image(tmp_path / "a.pfm")[..., 0], values)


def test_masked_copies_are_no_views_and_missing_pictures_are_counted(tmp_path):
    sample_mvsnet.make(tmp_path / "a", images="blended_images", depth_maps=False)
    for i in range(5):
        write_picture(tmp_path / f"a/blended_images/{i:08d}_masked.jpg", *SIZE, 3)
    (tmp_path / "a/blended_images/00000002.jpg").unlink()
    write_picture(tmp_path / "a/blended_images/00000012.jpg", *SIZE, 3)
    source = mvsnet.read(tmp_path / "a", False)
    assert source.names == [f"blended_images/{i:08d}.jpg" for i in (0, 1, 3, 4)]
    assert source.depth is None
    assert source.warnings == [
        "1 cameras are skipped: they have no picture (the first is 00000002_cam.txt)",
        "1 pictures are skipped: they have no camera (the first is 00000012.jpg)",
    ]


def test_zeros_state_no_depths(tmp_path):
    sample_mvsnet.make(tmp_path / "a", depths="0 0")
    assert mvsnet.read(tmp_path / "a", False).near_far is None


def test_the_form_is_told_by_its_files(tmp_path):
    sample_mvsnet.make(tmp_path / "a")
    assert mvsnet.fits(tmp_path / "a") == "cams/ with …_cam.txt, and images/"
    assert mvsnet.fits(tmp_path / "a/cams") == ""
    assert mvsnet.fits(tmp_path / "a/pair.txt") == ""


GOOD = "extrinsic\n1 0 0 0\n0 1 0 0\n0 0 1 4\n0 0 0 1\n\nintrinsic\n40 0 12\n0 40 8\n0 0 1\n\n2 0.02\n"
WRONG = {
    "empty": (b"", 'expected "extrinsic"'),
    "not utf-8": (b"\xff\xfe\x00", "no UTF-8"),
    "short": (GOOD[:60].encode(), 'expected "extrinsic"|expected 25 numbers'),
    "long": (GOOD.encode() + b"1 " * 9000, 'expected "extrinsic"'),
    "many": (GOOD.encode() + b"1 " * 9, "expected 25 numbers"),
    "nan": (GOOD.replace("0 0 1 4", "0 0 1 nan").encode(), "expected a finite number"),
    "sheared": (GOOD.replace("0 1 0 0", "0 2 0 0").encode(), "extrinsic: its rotation part is not orthonormal"),
    "mirrored": (GOOD.replace("0 1 0 0", "0 -1 0 0").encode(), "mirror"),
    "skewed": (GOOD.replace("40 0 12", "40 9 12").encode(), "intrinsic: has a skew"),
    "focal": (GOOD.replace("40 0 12", "-40 0 12").encode(), "focal length: expected a number from"),
    "depths": (GOOD.replace("2 0.02", "2 -0.02").encode(), "depths: expected depths from above 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_camera_is_one_line_that_names_it(tmp_path, name):
    content, message = WRONG[name]
    sample_mvsnet.make(tmp_path / "a")
    (tmp_path / "a/cams/00000001_cam.txt").write_bytes(content)
    with pytest.raises(SceneError, match=message) as caught:
        mvsnet.read(tmp_path / "a", False)
    assert "00000001_cam.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the training set, scans side by side ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", ["scan1_train", "scan114"])
def test_a_scan_of_the_training_set_has_its_cameras_one_light_and_its_depths(tmp_path, scan):
    poses = sample_mvsnet_scan.make(tmp_path / "dtu", scan=scan)
    for folder in (tmp_path / "dtu", tmp_path / "dtu/Rectified" / scan):
        assert mvsnet.fits(folder).startswith("Cameras/")
        source = mvsnet.read(folder, False)
        for view, matrix in enumerate(poses):
            wanted = project(matrix, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
            assert np.abs(source.cameras.project(view, POINTS)[0] - wanted).max() < 1e-9
        assert [file.name for file in source.image_files] == [f"rect_{i:03d}_3_r5000.png" for i in range(1, 6)]
        assert np.allclose([read_image(file).mean() for file in source.depth.files], [3, 3.1, 3.2, 3.3, 3.4])
        assert source.near_far == pytest.approx(NEAR_FAR["interval only"])
        assert any("light 3 of 0, 3, 6" in note for note in source.notes)
    assert load_scene(tmp_path / "dtu").kind == "mvsnet"


def test_of_several_scans_one_has_to_be_named(tmp_path):
    sample_mvsnet_scan.make(tmp_path / "dtu")
    sample_mvsnet_scan.make(tmp_path / "dtu", scan="scan2_train", lights=(5,))
    with pytest.raises(SceneError, match="name the folder of one of them in Rectified: scan1_train, scan2_train"):
        load_scene(tmp_path / "dtu")
    scene = load_scene(tmp_path / "dtu/Rectified/scan2_train")
    assert scene.images.files[0].name == "rect_001_5_r5000.png"


def test_rectified_pictures_without_cameras_are_no_scan(tmp_path):
    sample_mvsnet_scan.make(tmp_path / "dtu")
    shutil.rmtree(tmp_path / "dtu/Cameras")
    assert mvsnet.fits(tmp_path / "dtu") == mvsnet.fits(tmp_path / "dtu/Rectified/scan1_train") == ""
