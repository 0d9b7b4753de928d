"""transforms.json of instant-ngp and nerfstudio."""

import json
from pathlib import Path

import numpy as np
import pytest
import sample_transforms

from taichi_nerf.scenes import SceneError, find_reader, load_scene, transforms
from taichi_nerf.scenes.images import read_image

from opengl_views import POINTS, write_picture

DATA = Path(__file__).parents[2].parent / "shared/data"


def change(folder, edit):
    file = folder / "transforms.json"
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


def test_masks_depths_and_points_come_with_the_views(tmp_path):
    sample_transforms.make(tmp_path)
    source = transforms.read(tmp_path, False)
    assert source.depth is not None
    assert (source.depth.unit, source.depth.kind) == (0.001, "z")
    assert [int(read_image(file)[0, 0, 0]) for file in source.depth.files] == [3000, 3001, 3002, 3003, 3004]
    assert [file.name for file in source.mask_files] == [f"{i:03d}.png" for i in range(5)]
    assert np.abs(source.points.positions - POINTS).max() < 1e-6
    assert source.points.colors[0].tolist() == [10, 20, 30]
    assert not source.warnings
    scene = load_scene(tmp_path)
    assert scene.depths.unit == pytest.approx(0.001 * scene.scene_from_source.scale)
    assert scene.masks[0].shape == (8, 12, 1)


@pytest.mark.parametrize("field", ["mask_path", "depth_file_path"])
def test_masks_and_depth_maps_of_another_shape_are_refused(tmp_path, field):
    sample_transforms.make(tmp_path)
    for size, fits in (((24, 16), True), ((8, 12), False)):
        write_picture(tmp_path / "other.png", *size, 1)
        change(tmp_path, lambda data: data["frames"][1].update({field: "other.png"}))
        if fits:
            transforms.read(tmp_path, False)
        else:
            with pytest.raises(SceneError, match=r"other.png: is a (mask|depth map) of 8 x 12 pixels for a picture of 12 x 8"):
                transforms.read(tmp_path, False)


def test_depths_may_be_numpy_files_and_have_a_unit_of_their_own(tmp_path):
    sample_transforms.make(tmp_path, depth_unit_scale_factor=1.0)
    np.save(tmp_path / "depths/000.npy", np.full((8, 12), 2.5))
    change(tmp_path, lambda data: data["frames"][0].update(depth_file_path="depths/000.npy"))
    source = transforms.read(tmp_path, False)
    assert source.depth.unit == 1.0
    assert read_image(source.depth.files[0]).shape == (8, 12, 1)


def test_instant_ngps_depth_scale_is_its_unit(tmp_path):
    sample_transforms.make(tmp_path, integer_depth_scale=1 / 4000)
    change(tmp_path, lambda data: [frame.update(depth_path=frame.pop("depth_file_path")) for frame in data["frames"]])
    assert transforms.read(tmp_path, False).depth.unit == 1 / 4000


def test_points_in_another_coordinate_system_are_warned_of(tmp_path):
    sample_transforms.make(tmp_path)
    sample_transforms.write_ply(tmp_path / "sparse.ply", POINTS + 100)
    assert "another coordinate system" in transforms.read(tmp_path, False).warnings[0]


@pytest.mark.parametrize(
    ("fields", "channels", "unbounded", "box"),
    [
        ({}, 3, True, None),
        ({}, 4, False, None),
        ({"aabb_scale": 4}, 3, True, None),
        ({"aabb_scale": 4}, 4, True, None),
        ({"aabb_scale": 1}, 3, False, [[-0.5 / 0.33] * 3, [0.5 / 0.33] * 3]),
        ({"aabb_scale": 1, "scale": 0.5, "offset": [0.5, 0.25, 0]}, 3, False, [[-1, -0.5, 0], [1, 1.5, 2]]),
        ({"aabb_scale": 1, "scale": 0.5, "offset": 0.25}, 3, False, [[-0.5] * 3, [1.5] * 3]),
        ({"aabb": [[1, 2, 3], [-1, -2, -3]]}, 3, False, [[-1, -2, -3], [1, 2, 3]]),
    ],
)
def test_bounds_follow_what_the_file_says(tmp_path, fields, channels, unbounded, box):
    sample_transforms.make(tmp_path, channels=channels, **fields)
    source = transforms.read(tmp_path, False)
    assert source.unbounded is unbounded
    assert (source.box is None) if box is None else np.allclose(source.box, box)


def test_cameras_in_one_place_are_told(tmp_path):
    """Poses of a ring written the wrong way round: the inverse of every one has the same center, but for rounding."""
    sample_transforms.make(tmp_path, ply_file_path=None)

    def invert(data):
        for frame in data["frames"]:
            frame["transform_matrix"] = np.linalg.inv(frame["transform_matrix"]).tolist()

    change(tmp_path, invert)
    scene = load_scene(tmp_path)
    assert 0.1 < scene.scene_from_source.scale < 10
    assert any("all cameras stand in one place" in note for note in scene.notes)


def test_nerfstudios_own_splits_are_kept(tmp_path):
    names = [f"images/{i:03d}.png" for i in range(5)]
    sample_transforms.make(tmp_path, train_filenames=names[1:4], val_filenames=names[:1], test_filenames=[names[4], names[1]])
    source = transforms.read(tmp_path, False)
    assert {split: index.tolist() for split, index in source.splits.items()} == {"train": [1, 2, 3], "val": [0], "test": [4]}
    assert "they are trained on (the first is images/001.png)" in source.warnings[0]


def test_views_are_in_natural_order_when_every_eighth_is_held_out(tmp_path):
    poses = sample_transforms.make(tmp_path, n=10)
    change(tmp_path, lambda data: data["frames"].reverse())
    source = transforms.read(tmp_path, False)
    assert source.names == [f"images/{i:03d}.png" for i in range(10)]
    assert np.allclose(source.cameras.centers, np.array(poses)[:, :3, 3])
    assert load_scene(tmp_path).splits["test"].tolist() == [0, 8]


def test_a_file_may_be_named_itself(tmp_path):
    sample_transforms.make(tmp_path)
    other = tmp_path / "transforms_half.json"
    data = json.loads((tmp_path / "transforms.json").read_text())
    other.write_text(json.dumps({**data, "frames": data["frames"][:3]}))
    assert find_reader(other) == ("transforms", "transforms_half.json")
    assert len(transforms.read(other, False).names) == 3
    assert transforms.fits(tmp_path / "sparse.ply") == ""


def test_what_is_not_used_is_said(tmp_path):
    sample_transforms.make(tmp_path, rolling_shutter=[0, 0, 1, 0], white_transparent=True)
    write_picture(tmp_path / "images/dynamic_mask_000.png", 12, 8, 1)
    warnings = " ".join(transforms.read(tmp_path, False).warnings)
    assert "rolling shutter" in warnings
    assert "white pixels" in warnings
    assert "dynamic masks" in warnings


def test_windows_paths_and_missing_extensions_are_found(tmp_path):
    sample_transforms.make(tmp_path)
    change(tmp_path, lambda data: data["frames"][0].update(file_path="images\\000"))
    assert transforms.read(tmp_path, False).names[0] == "images/000.png"


def test_pictures_outside_are_read_only_if_permitted(tmp_path):
    sample_transforms.make(tmp_path / "scene")
    write_picture(tmp_path / "elsewhere.png", 12, 8, 3)
    change(tmp_path / "scene", lambda data: data["frames"][0].update(file_path="../elsewhere.png"))
    with pytest.raises(SceneError, match=r"frames\[0\].file_path: '../elsewhere.png' leads out .* --allow-outside"):
        transforms.read(tmp_path / "scene", False)
    names = transforms.read(tmp_path / "scene", True).names
    assert any(name.endswith("elsewhere.png") and not name.startswith(("/", ".")) for name in names)


WRONG = {
    "model unknown": ({"camera_model": "FISHEYE624"}, "camera_model: 'FISHEYE624' is not supported"),
    "model number": ({"camera_model": 3}, "camera_model: expected a name"),
    "model ftheta": ({"ftheta_p0": 1.0}, "undistort the pictures"),
    "focal zero": ({"fl_x": 0}, "fl_x: expected a number from"),
    "focal negative": ({"fl_x": -15}, "fl_x: expected a number from"),
    "focal nan": ({"fl_x": float("nan")}, "fl_x: expected a finite"),
    "focal list": ({"fl_x": [1]}, "fl_x: expected a finite"),
    "width zero": ({"w": 0}, "w: expected a number from"),
    "width of another shape": ({"w": 100}, "states 100 x 8"),
    "k1 huge": ({"k1": 1e300}, "k1: expected a number from"),
    "center text": ({"cx": "middle"}, "cx: expected a finite"),
    "aabb_scale text": ({"aabb_scale": "big"}, "aabb_scale: expected a finite"),
    "aabb empty": ({"aabb": [[0, 0, 0], [0, 0, 0]]}, "aabb: expected two different corners"),
    "aabb ragged": ({"aabb": [[0, 0, 0], [1]]}, "aabb: expected 2 x 3 numbers"),
    "scale zero": ({"scale": 0}, "scale: expected a number from"),
    "offset short": ({"offset": [1, 2]}, "offset: expected 3 numbers"),
    "depth unit zero": ({"integer_depth_scale": 0}, "integer_depth_scale: expected a number from"),
    "ply number": ({"ply_file_path": 5}, "ply_file_path: expected the name of a file"),
    "ply outside": ({"ply_file_path": "../x.ply"}, "ply_file_path: '../x.ply' leads out"),
    "splits text": ({"train_filenames": "all"}, "train_filenames: expected a list of file names"),
    "splits unknown": ({"train_filenames": ["masks/000.png"]}, "which no frame shows"),
    "mask number": (
        {"frames": [{"file_path": "images/000.png", "transform_matrix": np.eye(4).tolist(), "mask_path": 3}]},
        "mask_path",
    ),
    "frames text": ({"frames": "many"}, "frames: expected a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_one_line_that_names_it(tmp_path, name):
    fields, message = WRONG[name]
    sample_transforms.make(tmp_path)
    change(tmp_path, lambda data: data.update(fields))
    with pytest.raises(SceneError, match=message) as caught:
        transforms.read(tmp_path, False)
    assert "\n" not in str(caught.value)


def test_the_fox_keeps_its_lens():
    folder = DATA / "fox_270x480"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    source = transforms.read(folder, False)
    assert len(source.names) == 50
    assert (source.cameras.sizes == [270, 480]).all()
    assert np.allclose(source.cameras.intrinsics, [343.88, 343.6225, 138.6395, 241.317])
    assert np.allclose(source.cameras.distortion[0], [0.0578421, -0.0805099, 0, 0, 0, 0, -0.000980296, 0.00015575])
    assert source.unbounded
    assert load_scene(folder).splits["test"].tolist() == [0, 8, 16, 24, 32, 40, 48]


def test_the_smallest_capture_agrees_with_the_colmap_model_it_was_made_from():
    folder = DATA / "colmap_tiny_text"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    source = transforms.read(folder, False)
    centers, forwards = {}, {}
    rows = [line.split() for line in (folder / "colmap_text/images.txt").read_text().splitlines() if not line.startswith("#")]
    for row in rows[::2]:
        w, x, y, z, *t = map(float, row[1:8])
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        centers[row[9]], forwards[row[9]] = -rotation.T @ t, rotation[2]
    names = [Path(name).name for name in source.names]
    assert set(names) <= set(centers)
    ours, theirs = source.cameras.forwards, np.stack([forwards[name] for name in names])
    assert np.abs(ours @ ours.T - theirs @ theirs.T).max() < 1e-6  # angles between the views
    ours, theirs = source.cameras.centers, np.stack([centers[name] for name in names])
    ours, theirs = (np.linalg.norm(c[:, None] - c[None], axis=-1) for c in (ours, theirs))
    assert np.abs(ours / ours.max() - theirs / theirs.max()).max() < 1e-6  # distances, up to scale


def test_views_without_a_mask_count_as_a_whole(tmp_path):
    sample_transforms.make(tmp_path)
    data = json.loads((tmp_path / "transforms.json").read_text())
    for i in (1, 3):
        del data["frames"][i]["mask_path"]
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    (tmp_path / "masks/004.png").unlink()
    scene = load_scene(tmp_path, downscale=2)
    assert [bool((scene.masks[i] == 255).all()) for i in range(5)] == [False, True, False, True, True]
    assert scene.masks[1].shape == (4, 6, 1)
    assert [note for note in scene.notes if "mask" in note] == [
        "3 of 5 views have no mask and count as a whole (the first is images/001.png)"
    ]


def test_a_picture_may_have_as_long_a_name_as_the_system_allows(tmp_path):
    """What might lie beside it has a longer name still, and is not there."""
    sample_transforms.make(tmp_path)
    name = f"images/{'a' * 251}.png"
    (tmp_path / "images/000.png").rename(tmp_path / name)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["frames"][0]["file_path"] = name
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    assert tmp_path / name in load_scene(tmp_path).images.files
