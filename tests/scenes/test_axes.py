"""Axes of scene units: z where gravity says, LLFF's recentring and spherifying as published, and nothing lost on the way."""

import json

import numpy as np
import pytest
import sample_converted
import sample_llff
import sample_rgbd

from taichi_nerf.cameras import make_cameras, upward
from taichi_nerf.scenes import Overrides, SceneError, load_scene
from taichi_nerf.scenes.axes import share_held_level, turn_up
from taichi_nerf.scenes.check import check_scene
from taichi_nerf.scenes.normalise import normalise
from taichi_nerf.scenes.source import Points, Source
from taichi_nerf.trajectories import look_at

from real_data import data_folder


def random_rotation(seed):
    found = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return found * np.sign(np.linalg.det(found))


def capture(seed=0, n=24, on_end=0, **fields):
    """Cameras around the origin that look down by 10 to 50 degrees, in a world whose z is up; then the world is turned."""
    generator = np.random.default_rng(seed)
    angles, heights = generator.uniform(0, 2 * np.pi, n), np.radians(generator.uniform(10, 50, n))
    positions = 4 * np.stack([np.cos(angles) * np.cos(heights), np.sin(angles) * np.cos(heights), np.sin(heights)], -1)
    poses = look_at(positions, np.zeros(3), np.array([0.0, 0, 1]))
    poses[:on_end, :, :2] = np.stack([poses[:on_end, :, 1], -poses[:on_end, :, 0]], -1)  # turned by 90 degrees about the view
    turn = random_rotation(seed + 100)
    poses = turn @ poses
    cameras = make_cameras(poses, (50, 50, 32, 24), (64, 48))
    source = Source("made", None, [str(i) for i in range(n)], cameras, [], unbounded=True, **fields)
    return source, turn @ [0.0, 0, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("on_end", [0, 8])
def test_z_is_against_gravity_though_a_third_of_the_pictures_is_on_end(seed, on_end):
    source, up = capture(seed, on_end=on_end)
    mapping, _, notes = normalise(source)
    assert mapping.rotation @ up == pytest.approx([0, 0, 1], abs=0.02)
    assert "z is up: the cameras are held level" in notes


def test_turning_is_the_smallest_rotation_that_does_it():
    for seed in range(20):
        up = random_rotation(seed)[0]
        turn = turn_up(up)
        assert np.allclose(turn @ turn.T, np.eye(3))
        assert np.linalg.det(turn) == pytest.approx(1)
        assert np.allclose(turn @ up, [0, 0, 1])
        assert (np.trace(turn) - 1) / 2 == pytest.approx(up[2])  # its angle is that between up and z
    assert np.allclose(turn_up(np.array([0, 0, -1.0])) @ [0, 0, -1], [0, 0, 1])


def test_the_file_and_the_user_go_before_gravity():
    box = np.array([[-1.0, -1, -1], [1, 1, 1]])
    for source, overrides in (
        (capture(box=box)[0], Overrides()),
        (capture(forward_facing=True)[0], Overrides()),
        (capture()[0], Overrides(unbounded=False)),
        (capture()[0], Overrides(axes="file")),
    ):
        assert np.array_equal(normalise(source, overrides)[0].rotation, np.eye(3))


def test_cameras_that_do_not_tell_what_is_up_leave_the_axes_and_say_so():
    source, _ = capture()
    rolled = np.stack(
        [pose @ rotation_about_z(angle) for pose, angle in zip(source.cameras.camera_to_worlds, spread(24), strict=True)]
    )
    lost = Source("made", "here", source.names, make_cameras(rolled, (50, 50, 32, 24), (64, 48)), [], unbounded=True)
    assert share_held_level(lost.cameras, upward(lost.cameras)) < 0.6
    mapping, _, notes = normalise(lost)
    assert np.array_equal(mapping.rotation, np.eye(3))
    assert any("do not tell what is up" in note for note in notes)
    with pytest.raises(SceneError, match="here: axes: only"):
        normalise(lost, Overrides(axes="upright"))
    with pytest.raises(SceneError, match="expected one of auto, file"):
        normalise(lost, Overrides(axes="sideways"))


def rotation_about_z(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def spread(n):
    return np.linspace(0, 2 * np.pi, n, endpoint=False)


@pytest.mark.parametrize("axes", ["recentred", "upright"])
def test_a_turned_box_holds_the_box_of_the_file(axes):
    box = np.array([[-1.0, -2, -0.5], [1.5, 1, 0.5]])
    source, _ = capture(3, box=box)
    mapping, bounds, _ = normalise(source, Overrides(axes=axes))
    corners = np.stack(np.meshgrid(*box.T), -1).reshape(-1, 3)
    assert (np.abs(mapping(corners)) <= 1 + 1e-12).all()
    assert np.abs(mapping(corners)).max() == pytest.approx(1)
    assert (bounds.box == [[-1, -1, -1], [1, 1, 1]]).all()


@pytest.mark.parametrize("axes", ["file", "upright", "spherified"])
def test_points_pictures_and_depth_maps_turn_with_the_cameras(tmp_path, axes):
    sample_rgbd.make(tmp_path / "a")
    plain, turned = (load_scene(tmp_path / "a", overrides=Overrides(axes=choice)) for choice in ("file", axes))
    assert check_scene(turned)[0].value == pytest.approx(check_scene(plain)[0].value, abs=1e-6)
    for i in range(len(plain.cameras)):
        here, there = (scene.cameras.project(i, scene.points.positions) for scene in (plain, turned))
        assert np.allclose(here[0], there[0], atol=1e-6, equal_nan=True)
        assert np.allclose(here[1] / plain.scene_from_source.scale, there[1] / turned.scene_from_source.scale)


def test_observations_of_turned_points_stay_where_they_were():
    source, _ = capture()
    positions = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 3))
    seen = Points(positions, np.zeros((5, 3), np.uint8), np.zeros(5, int), np.arange(5), source.cameras.project(0, positions)[0])
    mapping, _, _ = normalise(source)
    cameras = source.cameras.moved(mapping.scale, mapping.rotation, mapping.translation)
    assert np.allclose(cameras.project(0, mapping(positions))[0], seen.seen_at)


# --- LLFF, as published ------------------------------------------------------------------------------------------------


def published(table, spherify):
    """Poses [n, 3, 4] (x right, y up, z backward) after bd_factor, recentring and, if wanted, spherifying."""
    blocks = table[:, :15].reshape(-1, 3, 5)
    poses = np.stack([blocks[:, :, 1], -blocks[:, :, 0], blocks[:, :, 2], blocks[:, :, 3]], -1)
    bounds = table[:, 15:] / (0.75 * table[:, 15].min())
    poses[:, :, 3] /= 0.75 * table[:, 15].min()
    back = unit(poses[:, :, 2].sum(0))
    right = unit(np.cross(poses[:, :, 1].sum(0), back))
    poses = relative(np.stack([right, np.cross(back, right), back, poses[:, :, 3].mean(0)], 1), poses)
    if not spherify:
        return poses, bounds
    across = np.eye(3) - poses[:, :, 2, None] * poses[:, None, :, 2]
    center = np.linalg.inv((across.swapaxes(1, 2) @ across).mean(0)) @ (across @ poses[:, :, 3:]).mean(0)[:, 0]
    z = unit((poses[:, :, 3] - center).mean(0))
    x = unit(np.cross([0.1, 0.2, 0.3], z))
    poses = relative(np.stack([x, unit(np.cross(z, x)), z, center], 1), poses)
    scale = 1 / np.sqrt((poses[:, :, 3] ** 2).sum(-1).mean())
    poses[:, :, 3] *= scale
    return poses, bounds * scale


def unit(vector):
    return vector / np.linalg.norm(vector)


def relative(frame, poses):
    turn = frame[:, :3].T
    return np.concatenate([turn @ poses[:, :, :3], turn @ (poses[:, :, 3:] - frame[:, 3:])], -1)


@pytest.fixture(params=["sample", "fern_8"])
def forward(request, tmp_path):
    if request.param == "fern_8":
        return data_folder("fern_8")
    sample_llff.make(tmp_path)
    return tmp_path


def test_spherified_poses_and_bounds_are_the_published_ones(forward):
    scene = load_scene(forward, overrides=Overrides(axes="spherified"))
    poses, bounds = published(np.load(forward / "poses_bounds.npy"), spherify=True)
    assert np.allclose(scene.cameras.camera_to_worlds * [1, -1, -1, 1], poses, atol=1e-6)
    assert (scene.bounds.near, scene.bounds.far) == pytest.approx((0.9 * bounds.min(), bounds.max()), rel=1e-6)


def test_recentred_poses_are_the_published_ones_but_for_where_the_box_is(forward):
    """Published poses have the mean camera at the origin, and 0.75 of the nearest bound as unit of length."""
    scene = load_scene(forward, overrides=Overrides(axes="recentred"))
    poses, _ = published(np.load(forward / "poses_bounds.npy"), spherify=False)
    assert np.allclose(scene.cameras.camera_to_worlds[:, :, :3] * [1, -1, -1], poses[:, :, :3], atol=1e-9)
    centers = (scene.cameras.centers - scene.cameras.centers.mean(0)) / scene.ndc.near
    assert np.allclose(centers, poses[:, :, 3], atol=1e-9)
    assert scene.cameras.centers.mean(0)[2] == pytest.approx(1)  # the box is ahead, which is -z


def test_a_place_written_by_this_package_is_read_to_the_last_digit(tmp_path):
    sample_converted.make(tmp_path)
    data = json.loads((tmp_path / "transforms.json").read_text())
    turn = random_rotation(5)
    own = {"scale": 0.3, "rotation": turn.tolist(), "translation": [0.1, 0.2, 0.3], "near": 0.1, "far": 7.0}
    own |= {"unbounded": False, "forward_facing": True, "near_far": [1.0, 9.0], "ndc_near": 0.8}
    (tmp_path / "transforms.json").write_text(json.dumps({**data, "taichi_nerf": own}))
    scene = load_scene(tmp_path)
    assert scene.scene_from_source.scale == 0.3
    assert np.array_equal(scene.scene_from_source.rotation, turn)
    assert (scene.bounds.near, scene.bounds.far, scene.bounds.unbounded) == (0.1, 7.0, False)
    assert scene.ndc.near == pytest.approx(0.24)
    moved = load_scene(tmp_path, overrides=Overrides(center=(0, 0, 0), scale=1.0))
    assert (moved.bounds.near, moved.bounds.far) == (1.0, 9.0)
    for field, value, said in (
        ("scale", 0, "scale: expected a number from"),
        ("rotation", np.ones((3, 3)).tolist(), "not orthonormal"),
        ("translation", None, "translation: expected 3 numbers"),
        ("near", 8, "near to be less than far"),
        ("unbounded", 1, "true or false"),
        ("near_far", [2, 1], "less than far"),
        ("ndc_near", "x", "finite number"),
    ):
        (tmp_path / "transforms.json").write_text(json.dumps({**data, "taichi_nerf": {**own, field: value}}))
        with pytest.raises(SceneError, match=said):
            load_scene(tmp_path)


def facing(**fields):
    """Nine cameras on a square of side two that all look along y, far from the origin."""
    x, z = (side.ravel() for side in np.meshgrid([29.0, 30, 31], [-1.0, 0, 1]))
    places = np.stack([x, np.full(9, 50.0), z], -1)
    poses = look_at(places, places + np.array([0, 1, 0]), np.array([0.0, 0, 1]))
    cameras = make_cameras(poses, (50, 50, 32, 24), (64, 48))
    return Source("made", None, [str(i) for i in range(9)], cameras, [], unbounded=True, **fields)


def test_near_and_far_are_where_points_are_that_no_view_names():
    """Depths 4 to 8 in front of every camera: with half and ten times that for what the points leave out."""
    depths = np.linspace(4, 8, 500)
    points = Points.without_tracks(np.stack([30 + 0 * depths, 50 + depths, 0 * depths], -1), None)
    mapping, bounds, notes = normalise(facing(points=points))
    assert bounds.near / mapping.scale == pytest.approx(0.5 * 4, rel=0.02)
    assert bounds.far / mapping.scale == pytest.approx(10 * 8, rel=0.02)
    assert "from the depths of the points" in notes[2]


def test_views_that_face_one_way_and_tell_no_depths_look_at_what_their_spread_suggests():
    """From the spread √2 to ten times it: the mean disparity is at 2 / (1 / near + 1 / far)."""
    mapping, _, notes = normalise(facing(forward_facing=True))
    distance = 2 / (1 + 1 / 10) * np.sqrt(2)
    assert mapping.inverse()(np.zeros(3)) == pytest.approx([30, 50 + distance, 0])
    assert 1 / mapping.scale == pytest.approx(distance)
    assert "in front of the cameras, at the mean disparity" in notes[0]
