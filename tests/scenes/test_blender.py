"""NeRF-synthetic and its kind."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import sample_blender

from taichi_nerf.scenes import SceneError, blender, find_reader, load_scene, transforms

from opengl_views import POINTS, project, write_picture

DATA = Path(__file__).parents[2].parent / "shared/data"


def change(file, edit):
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(("width", "height"), [(12, 8), (31, 17), (8, 8)])
@pytest.mark.parametrize("extension", [".png", ".webp"])
def test_points_project_where_the_poses_put_them_at_any_size(tmp_path, width, height, extension):
    poses = sample_blender.make(tmp_path, width, height, extension)
    source = blender.read(tmp_path, False)
    focal = width / 2 / np.tan(sample_blender.ANGLE / 2)
    for split, index in source.splits.items():
        for view, matrix in zip(index, poses[split], strict=True):
            truth = project(matrix, focal, focal, width / 2, height / 2)
            assert np.abs(source.cameras.project(view, POINTS)[0] - truth).max() < 1e-9


def test_each_split_keeps_its_own_pictures(tmp_path):
    sample_blender.make(tmp_path)
    source = blender.read(tmp_path, False)
    assert {split: [source.names[i] for i in index] for split, index in source.splits.items()} == {
        split: [f"{split}/r_{i}.png" for i in range(n)] for split, n in sample_blender.COUNTS.items()
    }
    scene = load_scene(tmp_path)
    assert scene.split_rule == "the scene's own"
    assert scene.images[0].shape == (8, 12, 4)


def test_published_near_and_far_are_for_published_cameras_only(tmp_path):
    sample_blender.make(tmp_path / "a")
    assert blender.read(tmp_path / "a", False).near_far == (2.0, 6.0)
    sample_blender.make(tmp_path / "b")
    for split in sample_blender.COUNTS:
        change(tmp_path / f"b/transforms_{split}.json", lambda data: data.update(camera_angle_x=2.0))
    assert blender.read(tmp_path / "b", False).near_far is None
    sample_blender.make(tmp_path / "c")
    aside = np.eye(4)
    aside[[0, 0, 2, 2], [0, 2, 0, 2]] = np.cos(0.8), np.sin(0.8), -np.sin(0.8), np.cos(0.8)  # 46 degrees past the middle
    for split in sample_blender.COUNTS:

        def turn(data):
            for frame in data["frames"]:
                frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ aside).tolist()

        change(tmp_path / f"c/transforms_{split}.json", turn)
    assert blender.read(tmp_path / "c", False).near_far is None


def test_times_of_moving_scenes_are_read(tmp_path):
    sample_blender.make(tmp_path, times=True)
    source = blender.read(tmp_path, False)
    assert source.times is not None
    assert np.allclose(source.times[source.splits["train"]], np.arange(6) / 5)
    for split in sample_blender.COUNTS:  # as frame numbers

        def count(data):
            for frame in data["frames"]:
                frame["time"] = 10 + 40 * frame["time"]

        change(tmp_path / f"transforms_{split}.json", count)
    source = blender.read(tmp_path, False)
    assert np.allclose(source.times[source.splits["train"]], np.arange(6) / 5)
    assert "times 10 to 50 are mapped to 0 to 1" in source.notes
    change(tmp_path / "transforms_test.json", lambda data: data["frames"][0].pop("time"))
    with pytest.raises(SceneError, match="all or none"):
        blender.read(tmp_path, False)


@pytest.mark.parametrize("suffix", ["_depth_0001", "_normal_0000", "_depth", "_normal"])
def test_renderings_of_depth_and_normals_are_no_views(tmp_path, suffix):
    sample_blender.make(tmp_path)
    write_picture(tmp_path / f"test/r_0{suffix}.png")
    change(
        tmp_path / "transforms_test.json",
        lambda data: data["frames"].append({**data["frames"][0], "file_path": f"./test/r_0{suffix}"}),
    )
    source = blender.read(tmp_path, False)
    assert len(source.splits["test"]) == 3
    assert any("depth and normal" in note for note in source.notes)


def test_a_view_named_normal_is_kept_where_it_belongs_to_no_other(tmp_path):
    sample_blender.make(tmp_path)
    write_picture(tmp_path / "test/all_normal.png")
    change(
        tmp_path / "transforms_test.json",
        lambda data: data["frames"].append({**data["frames"][0], "file_path": "./test/all_normal"}),
    )
    assert len(blender.read(tmp_path, False).splits["test"]) == 4


def test_missing_pictures_are_skipped_with_one_counted_warning(tmp_path):
    sample_blender.make(tmp_path)
    (tmp_path / "train/r_1.png").unlink()
    (tmp_path / "test/r_2.png").unlink()
    source = blender.read(tmp_path, False)
    assert len(source.names) == 9
    assert source.warnings == ["2 frames are skipped: their pictures do not exist (the first is ./train/r_1)"]


def test_a_view_trained_on_is_never_tested_on(tmp_path):
    sample_blender.make(tmp_path)
    (tmp_path / "transforms_test.json").write_text((tmp_path / "transforms_train.json").read_text())
    source = blender.read(tmp_path, False)
    assert "test" not in source.splits
    assert "6 pictures are left out of a test or validation split" in source.warnings[0]
    scene = load_scene(tmp_path)
    assert not set(scene.splits["train"]) & set(scene.splits["test"])


def test_validation_may_be_the_test_split_again(tmp_path):
    sample_blender.make(tmp_path)
    (tmp_path / "transforms_val.json").write_text((tmp_path / "transforms_test.json").read_text())
    source = blender.read(tmp_path, False)
    assert source.splits["val"].tolist() == source.splits["test"].tolist()
    assert not source.warnings


def test_repeated_frames_are_skipped_and_counted(tmp_path):
    sample_blender.make(tmp_path)
    change(tmp_path / "transforms_train.json", lambda data: data["frames"].extend(data["frames"][:2]))
    source = blender.read(tmp_path, False)
    assert len(source.splits["train"]) == 6
    assert "2 frames are skipped: they repeat a picture" in source.warnings[0]


def test_files_that_describe_a_lens_are_left_to_transforms(tmp_path):
    sample_blender.make(tmp_path)
    assert find_reader(tmp_path)[0] == "blender"
    change(tmp_path / "transforms_train.json", lambda data: data.update(k1=0.1))
    assert find_reader(tmp_path)[0] == "transforms"
    source = transforms.read(tmp_path, False)
    assert {split: len(index) for split, index in source.splits.items()} == sample_blender.COUNTS
    assert source.cameras.distortion[source.splits["train"], 0].tolist() == [0.1] * 6


FIRST = "transforms_train.json"
BROKEN = {
    "truncated": (lambda text: text[: len(text) // 2], "no valid JSON"),
    "not utf-8": (lambda text: b"\xff\xfe\x00" + text, "no UTF-8"),
    "a list": (lambda text: b"[1, 2]", "JSON object"),
    "deep": (lambda text: b'{"frames":' + b"[" * 100000, "nested too deeply|no valid JSON"),
    "an integer of 5000 digits": (lambda text: b'{"frames": ' + b"1" * 5000 + b"}", "thousands of digits"),
    "no frames": (lambda text: b'{"camera_angle_x": 0.7}', "frames: expected a list"),
    "a frame that is a number": (lambda text: b'{"camera_angle_x": 0.7, "frames": [3]}', r"frames\[0\]: expected an object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line(tmp_path, name):
    sample_blender.make(tmp_path)
    damage, message = BROKEN[name]
    file = tmp_path / FIRST
    file.write_bytes(damage(file.read_bytes()))
    assert_one_line(tmp_path, message)


def assert_one_line(folder, message):
    with pytest.raises(SceneError, match=message) as caught:
        blender.read(folder, False)
    assert "\n" not in str(caught.value)


WRONG = {
    "angle nan": (lambda data: data.update(camera_angle_x=float("nan")), "camera_angle_x: expected a finite"),
    "angle zero": (lambda data: data.update(camera_angle_x=0), "camera_angle_x: expected a number from"),
    "angle text": (lambda data: data.update(camera_angle_x="wide"), "camera_angle_x: expected a finite"),
    "no angle": (lambda data: data.pop("camera_angle_x"), "expected a focal length"),
    "pose nan": (lambda data: data["frames"][1]["transform_matrix"][0].__setitem__(0, float("nan")), "not finite"),
    "pose huge": (lambda data: data["frames"][1]["transform_matrix"][0].__setitem__(3, 1e300), "absurdly large"),
    "pose bigger than float": (
        lambda data: data["frames"][1]["transform_matrix"][0].__setitem__(3, 10**400),
        "expected 4 x 4 numbers",
    ),
    "pose transposed": (
        lambda data: data["frames"][1].update(transform_matrix=np.transpose(data["frames"][1]["transform_matrix"]).tolist()),
        "expected 0, 0, 0, 1 as its last row",
    ),
    "pose sheared": (lambda data: data["frames"][1]["transform_matrix"][0].__setitem__(0, 5.0), "not orthonormal"),
    "pose mirrored": (lambda data: [row.__setitem__(0, -row[0]) for row in data["frames"][1]["transform_matrix"][:3]], "mirror"),
    "pose short": (lambda data: data["frames"][1].update(transform_matrix=[[1, 2], [3, 4]]), "expected 4 x 4 numbers"),
    "pose missing": (lambda data: data["frames"][1].pop("transform_matrix"), "expected 4 x 4 numbers"),
    "path number": (lambda data: data["frames"][1].update(file_path=7), "expected the name of a picture"),
    "path empty": (lambda data: data["frames"][1].update(file_path=""), "expected the name of a picture"),
    "path above": (lambda data: data["frames"][1].update(file_path="../../secret"), "leads out of the scene's folder"),
    "path absolute": (lambda data: data["frames"][1].update(file_path="/etc/hostname"), "leads out of the scene's folder"),
    "path zero byte": (lambda data: data["frames"][1].update(file_path="a\0b"), "no file name"),
    "path endless": (lambda data: data["frames"][1].update(file_path="x" * 10000), "no file name"),
    "path half a character": (lambda data: data["frames"][1].update(file_path="\ud800"), "no file name|skipped"),
    "time text": (lambda data: data["frames"][1].update(time="noon"), r"frames\[1\].time"),
    "zero frames": (lambda data: data["frames"].clear(), "has no frames"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_one_line_that_names_it(tmp_path, name):
    sample_blender.make(tmp_path)
    edit, message = WRONG[name]
    for split in ("test", "val"):
        (tmp_path / f"transforms_{split}.json").unlink()
    change(tmp_path / FIRST, edit)
    assert_one_line(tmp_path, message)


def test_pictures_that_are_none_are_one_line(tmp_path):
    sample_blender.make(tmp_path)
    (tmp_path / "train/r_0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    assert_one_line(tmp_path, "no readable image")


def test_a_picture_that_claims_to_be_enormous_is_refused_unread(tmp_path):
    sample_blender.make(tmp_path)
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "train/r_0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert_one_line(tmp_path, "more than any camera takes|no readable image")


@pytest.mark.parametrize(("name", "counts"), [("chair_200", (100, 10, 25)), ("chair_400", (100, 0, 50))])
def test_the_chair_opens_with_its_splits(name, counts):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    source = blender.read(folder, False)
    assert tuple(len(source.splits.get(split, ())) for split in ("train", "val", "test")) == counts
    assert source.near_far == (2.0, 6.0)
    assert np.allclose(np.linalg.norm(source.cameras.centers, axis=-1), 4.0311, atol=2e-4)
    # The chair is where its cameras look: its alpha in four views agrees with a box around it.
    scene = load_scene(folder)
    for view in scene.splits["train"][:4]:
        alpha = scene.images[view][..., 3]
        rows, columns = np.nonzero(alpha > 128)
        center, depth = scene.cameras.project(view, np.zeros((1, 3)))
        assert columns.min() < center[0, 0] < columns.max()
        assert rows.min() < center[0, 1] < rows.max()
        assert depth[0] > 0
