"""mip-NeRF's multiscale scenes."""

import json

import numpy as np
import pytest
import sample_multiscale

from taichi_nerf.scenes import SceneError, find_reader, load_scene, multiscale

from opengl_views import POINTS, project, write_picture


def change(folder, edit):
    file = folder / "metadata.json"
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize("with_inverse", [True, False])
def test_points_project_at_every_level_where_the_poses_put_them(tmp_path, with_inverse):
    tables = sample_multiscale.make(tmp_path)
    if not with_inverse:
        change(tmp_path, lambda data: [table.pop("pix2cam") for table in data.values()])
    source = multiscale.read(tmp_path, False)
    assert source.near_far == (2.0, 6.0)
    for split, index in source.splits.items():
        table = tables[split]
        for row, view in enumerate(index):
            f, w, h = (table[name][row] for name in ("focal", "width", "height"))
            truth = project(np.array(table["cam2world"][row]), f, f, w / 2, h / 2)
            assert np.abs(source.cameras.project(view, POINTS)[0] - truth).max() < 1e-9
            assert source.weights[view] == 4.0 ** table["label"][row]
            assert source.names[view] == table["file_path"][row]


def test_every_level_of_a_picture_sees_the_same_rays(tmp_path):
    sample_multiscale.make(tmp_path)
    cameras = multiscale.read(tmp_path, False).cameras
    for corner in ((0, 0), (1, 1), (0.3, 0.9)):
        rays = [cameras.rays(level, cameras.sizes[level][None] * corner)[1] for level in range(sample_multiscale.LEVELS)]
        assert np.ptp(rays, axis=0).max() < 1e-12


def test_the_scene_opens_with_pictures_of_all_sizes(tmp_path):
    sample_multiscale.make(tmp_path)
    assert find_reader(tmp_path)[0] == "multiscale"
    scene = load_scene(tmp_path)
    assert [scene.images[view].shape[:2] for view in range(3)] == [(8, 16), (4, 8), (2, 4)]
    assert {split: len(index) for split, index in scene.splits.items()} == {"train": 9, "val": 3, "test": 6}


def test_missing_and_repeated_pictures_are_counted(tmp_path):
    sample_multiscale.make(tmp_path)
    (tmp_path / "images_train/000_d1.png").unlink()
    change(tmp_path, lambda data: data["test"]["file_path"].__setitem__(0, "images_train/000_d0.png"))
    source = multiscale.read(tmp_path, False)
    assert len(source.names) == 16
    assert "1 pictures are skipped: they do not exist (the first is images_train/000_d1.png)" in source.warnings
    assert any("listed twice" in warning for warning in source.warnings)


def test_pictures_of_another_size_scale_the_intrinsics(tmp_path):
    tables = sample_multiscale.make(tmp_path)
    write_picture(tmp_path / "images_train/000_d0.png", 8, 4)
    source = multiscale.read(tmp_path, False)
    truth = project(np.array(tables["train"]["cam2world"][0]), 10.0, 10.0, 4, 2)
    assert np.abs(source.cameras.project(0, POINTS)[0] - truth).max() < 1e-9


WRONG = {
    "list short": (lambda t: t["focal"].pop(), r"train.focal: has 8 entries for 9 pictures"),
    "list missing": (lambda t: t.pop("width"), "train.width: expected a list"),
    "pose nan": (lambda t: t["cam2world"][1][0].__setitem__(0, float("nan")), r"train\[1\].cam2world: has numbers"),
    "pose sheared": (lambda t: t["cam2world"][1][0].__setitem__(0, 9.0), "not orthonormal"),
    "focal zero": (lambda t: t["focal"].__setitem__(2, 0), r"train\[2\].focal: expected a number from"),
    "focal disagrees": (lambda t: t["focal"].__setitem__(2, 17.0), "disagrees with pix2cam"),
    "inverse of another form": (lambda t: t["pix2cam"][2][0].__setitem__(1, 1.0), r"pix2cam: expected \[\["),
    "inverse zero": (lambda t: t["pix2cam"][2][0].__setitem__(0, 0.0), r"pix2cam: expected \[\["),
    "width text": (lambda t: t["width"].__setitem__(0, "wide"), "width: expected a finite"),
    "path number": (lambda t: t["file_path"].__setitem__(0, 3), "file_path: expected the name"),
    "path above": (lambda t: t["file_path"].__setitem__(0, "../a.png"), "leads out"),
    "near beyond far": (lambda t: t["near"].__setitem__(0, 9.0) or t["far"].__setitem__(slice(None), [1.0] * 9), "near < far"),
    "weight negative": (lambda t: t["lossmult"].__setitem__(0, -1), "lossmult: expected a number from"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_one_line_that_names_it(tmp_path, name):
    edit, message = WRONG[name]
    sample_multiscale.make(tmp_path)
    change(tmp_path, lambda data: [data.pop(split) for split in ("val", "test")] and edit(data["train"]))
    with pytest.raises(SceneError, match=message) as caught:
        multiscale.read(tmp_path, False)
    assert "\n" not in str(caught.value)


def test_other_metadata_is_not_taken_for_a_scene(tmp_path):
    for text in ("{}", "[]", "{", '{"train": 3}', '{"train": {"file_path": []}}'):
        (tmp_path / "metadata.json").write_text(text)
        assert multiscale.fits(tmp_path) == ""
