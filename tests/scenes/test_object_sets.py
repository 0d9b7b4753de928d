"""Objects of SRN's and NMR's sets, scenes of several objects, and the lists of them."""

import json

import numpy as np
import pytest
import sample_object_sets as samples

from taichi_nerf.scenes import SceneError, dtu, load_scene, nsvf, object_sets, transforms
from taichi_nerf.scenes.object_lists import list_objects

from opengl_views import POINTS, project, write_picture


def projections_agree(source, poses, *lens):
    for view, matrix in enumerate(poses):
        assert np.abs(source.cameras.project(view, POINTS)[0] - project(matrix, *lens)).max() < 1e-9


@pytest.mark.parametrize(
    ("radius", "near_far"), [(1.3, (0.8, 1.8)), (2.0, (1.25, 2.75)), (1.7, None)], ids=["cars", "chairs", "elsewhere"]
)
def test_points_project_in_srns_objects_and_depths_are_the_published_ones(tmp_path, radius, near_far):
    poses = samples.make_srn(tmp_path / "a", radius=radius)
    source = object_sets.read(tmp_path / "a", False)
    projections_agree(source, poses, 20, 20, 6.5, 4.25)
    assert source.near_far == near_far
    assert load_scene(tmp_path / "a").kind == "object_sets"


def test_srns_intrinsics_are_scaled_from_the_size_they_state(tmp_path):
    poses = samples.make_srn(tmp_path / "a", intrinsics="80.0 26 17 0.\n0. 0. 0.\n1.\n32 48\n")
    projections_agree(object_sets.read(tmp_path / "a", False), poses, 20, 20, 6.5, 4.25)


def test_points_project_in_nmrs_objects(tmp_path):
    poses = samples.make_nmr(tmp_path / "a")
    source = object_sets.read(tmp_path / "a", False)
    projections_agree(source, poses, 3.732 * 8, 3.732 * 8, 8, 8)
    assert source.near_far == (1.2, 4.0)
    scene = load_scene(tmp_path / "a")
    assert scene.kind == "object_sets"
    assert len(scene.masks) == 4


def test_points_project_in_scenes_of_several_objects(tmp_path):
    poses = samples.make_several(tmp_path / "a")
    scene = load_scene(tmp_path / "a")
    assert scene.kind == "object_sets"
    source = object_sets.read(tmp_path / "a", False)
    focal = 6 / np.tan(0.3)
    projections_agree(source, poses, focal, focal, 6, 4)
    assert source.near_far == (4.0, 9.0)
    assert source.names[1] == "0001_obj.png"


def test_the_forms_are_told_apart_by_content(tmp_path):
    samples.make_srn(tmp_path / "srn")
    samples.make_nmr(tmp_path / "nmr")
    samples.make_several(tmp_path / "several")
    assert object_sets.fits(tmp_path / "srn").startswith("an object of SRN's")
    assert object_sets.fits(tmp_path / "nmr").startswith("an object of NMR")
    assert object_sets.fits(tmp_path / "several").startswith("a scene of several")
    assert dtu.fits(tmp_path / "nmr") == ""
    (tmp_path / "srn/bbox.txt").write_text("-1 -1 -1 1 1 1 0.1")
    assert object_sets.fits(tmp_path / "srn") == ""
    assert nsvf.fits(tmp_path / "srn")
    for file in (tmp_path / "several").glob("*_obj.png"):
        file.unlink()
    assert object_sets.fits(tmp_path / "several") == ""
    assert transforms.fits(tmp_path / "several")


def test_pictures_and_cameras_without_each_other_are_counted(tmp_path):
    samples.make_srn(tmp_path / "srn")
    (tmp_path / "srn/pose/000002.txt").unlink()
    (tmp_path / "srn/rgb/000001.png").unlink()
    assert object_sets.read(tmp_path / "srn", False).warnings == [
        "1 poses are skipped: they have no picture (the first is 000001)",
        "1 pictures are skipped: they have no pose (the first is 000002.png)",
    ]
    samples.make_nmr(tmp_path / "nmr", world_mat_3=None)
    assert object_sets.read(tmp_path / "nmr", False).warnings == [
        "1 pictures are skipped: they have no camera (the first is 0003.png)"
    ]
    samples.make_several(tmp_path / "several")
    (tmp_path / "several/0002_obj.png").unlink()
    assert object_sets.read(tmp_path / "several", False).warnings == [
        "1 frames are skipped: their pictures do not exist (the first is 0002_obj.png)"
    ]


NMR_WRONG = {
    "no camera_mat": ({"camera_mat_1": None}, "camera_mat_1: expected the focal length"),
    "camera_mat nan": ({"camera_mat_1": np.full((4, 4), np.nan)}, "camera_mat_1: has numbers"),
    "camera_mat negative": ({"camera_mat_1": -np.eye(4)}, "camera_mat_1: expected a number from"),
    "world_mat singular": ({"world_mat_1": np.zeros((4, 4))}, "world_mat_1: its rotation part is singular"),
    "world_mat sheared": ({"world_mat_1": np.diag([1.0, 3, 1, 1])}, "world_mat_1: its rotation part is not orthonormal"),
    "world_mat text": ({"world_mat_1": np.full((4, 4), "a")}, "world_mat_1: expected 4 x 4 numbers"),
}


@pytest.mark.parametrize("name", NMR_WRONG)
def test_a_wrong_array_is_one_line_that_names_it(tmp_path, name):
    changes, message = NMR_WRONG[name]
    samples.make_nmr(tmp_path / "a", **changes)
    with pytest.raises(SceneError, match=message):
        object_sets.read(tmp_path / "a", False)


SEVERAL_WRONG = {
    "no angle": ({"camera_angle_x": None}, "camera_angle_x: expected a finite number"),
    "angle of half a turn": ({"camera_angle_x": 4}, "camera_angle_x: expected a number from"),
    "no frames": ({"frames": []}, "frames: expected a list"),
    "frames text": ({"frames": "a"}, "frames: expected a list"),
    "a frame of nothing": ({"frames": [None]}, r"frames\[0\].file_path: expected the name"),
    "a frame without a pose": ({"frames": [{"file_path": "0000.png"}]}, r"frames\[0\].transform_matrix: expected 4 x 4"),
    "a frame twice": ({"frames": [{"file_path": "0000.png", "transform_matrix": np.eye(4).tolist()}] * 2}, "again"),
    "a frame with a nul": ({"frames": [{"file_path": "a\0b"}]}, "no file name"),
    "a frame without a picture": ({"frames": [{"file_path": "../../etc/passwd"}]}, "none of its 1 pictures exists"),
}


@pytest.mark.parametrize("name", SEVERAL_WRONG)
def test_a_wrong_field_is_one_line_that_names_it(tmp_path, name):
    changes, message = SEVERAL_WRONG[name]
    samples.make_several(tmp_path / "a", **changes)
    with pytest.raises(SceneError, match=message):
        object_sets.read(tmp_path / "a", False)


# --- whole sets -------------------------------------------------------------------------------------------------------


def entries(folder, **options):
    return [(entry.category, entry.name, entry.split) for entry in list_objects(folder, **options)]


def test_nmrs_objects_are_those_its_lists_name(tmp_path):
    for category in ("02691156", "03001627"):
        for name in ("a1", "a2", "a10"):
            samples.make_nmr(tmp_path / category / name, n=1)
        (tmp_path / category / "softras_train.lst").write_text("a10\na2\n\n")
        (tmp_path / category / "softras_test.lst").write_text("a1\ngone\n")
    missing = []
    assert entries(tmp_path, missing=missing) == [
        (category, name, split)
        for category in ("02691156", "03001627")
        for name, split in (("a2", "train"), ("a10", "train"), ("a1", "test"))
    ]
    assert missing == ["02691156/gone", "03001627/gone"]
    assert entries(tmp_path / "03001627")[0] == ("03001627", "a2", "train")
    (tmp_path / "02691156/gen_train.lst").write_text("a1\n")
    assert entries(tmp_path, prefix="gen") == [("02691156", "a1", "train")]
    assert load_scene(list_objects(tmp_path, prefix="gen")[0].folder).kind == "object_sets"


def test_srns_objects_have_their_split_in_the_folders_name(tmp_path):
    samples.make_srn(tmp_path / "cars_train/b", n=1)
    samples.make_srn(tmp_path / "cars_val/c", n=1)
    samples.make_srn(tmp_path / "chairs_train/chairs_2.0_train/d", n=1)
    expected = [("cars", "b", "train"), ("cars", "c", "val"), ("chairs", "d", "train")]
    assert entries(tmp_path) == expected
    assert entries(tmp_path / "cars_train") == expected[:1]


def test_scenes_of_several_objects_are_found_wherever_they_are(tmp_path):
    samples.make_several(tmp_path / "train/a", n=1)
    samples.make_several(tmp_path / "test/b", n=1)
    assert entries(tmp_path) == [(tmp_path.name, "a", "train"), (tmp_path.name, "b", "test")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"../../../etc\n", "leads out"), (b"/etc\n", "leads out"), (b"\xff\xfe", "no UTF-8"), (b"", "no objects")],
)
def test_a_wrong_list_is_one_line(tmp_path, content, message):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/softras_train.lst").write_bytes(content)
    with pytest.raises(SceneError, match=message):
        list_objects(tmp_path)


def test_a_folder_without_objects_or_an_odd_prefix_is_one_line(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "transforms.json").write_text(json.dumps({}))
    with pytest.raises(SceneError, match="holds no objects"):
        list_objects(tmp_path)
    with pytest.raises(SceneError, match="expected a prefix"):
        list_objects(tmp_path, prefix="../*")
    with pytest.raises(SceneError, match="no such folder"):
        list_objects(tmp_path / "nothing")
    (tmp_path / "cars_train/0").mkdir(parents=True)
    (tmp_path / "cars_train/0/intrinsics.txt").touch()
    assert [entry.name for entry in list_objects(tmp_path)] == ["0"]
    with pytest.raises(SceneError, match=r"prefix: has no lists gen_train\|val\|test\.lst"):
        list_objects(tmp_path, prefix="gen")
