"""A box that the cameras hardly see, or that is nowhere near the scene, is told with the option that mends it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sample_blender
import sample_colmap
import sample_nsvf
import sample_transforms

from taichi_nerf.cameras import ORTHOGRAPHIC, make_cameras
from taichi_nerf.scenes import Overrides, SceneError, in_sight, load_scene
from taichi_nerf.scenes.in_sight import expect_something_in_sight, share_in_box
from taichi_nerf.scenes.normalise import normalise
from taichi_nerf.scenes.scene_data import Bounds
from taichi_nerf.scenes.source import Points, Source

from real_data import data_folder

REAL = ("chair_200", "chair_400", "colmap_bartoszek", "colmap_tiny_text", "dtu_scan65_400x300", "fern_8", "fox_270x480",
        "sevenscenes_100")  # fmt: skip
SAMPLES = {"blender": sample_blender, "nsvf": sample_nsvf, "transforms": sample_transforms, "colmap": sample_colmap}
NEAR_FAR = "--near and --far say where rays begin and end"


def make(kind, folder):
    SAMPLES[kind].make(folder)
    return folder


def test_the_share_of_rays_is_that_of_the_areas():
    """Parallel rays on a square of 8 x 8, straight at the box of 2 x 2, that is from 4 to 6 away."""
    pose = np.array([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -5]]])
    cameras = make_cameras(pose, [4, 4, 16, 16], (32, 32), ORTHOGRAPHIC)
    bounds = Bounds(np.array([[-1.0] * 3, [1.0] * 3]), 0.1, 10.0, unbounded=False, forward_facing=False)
    assert share_in_box(cameras, bounds, 16) == (2 / 8) ** 2
    assert share_in_box(cameras, replace(bounds, near=5.9), 16) == (2 / 8) ** 2
    assert share_in_box(cameras, replace(bounds, near=6.1), 16) == 0
    assert share_in_box(cameras, replace(bounds, far=3.9), 16) == 0
    looking_away = replace(cameras, camera_to_worlds=pose * [-1, 1, -1, 1])
    assert share_in_box(looking_away, bounds, 16) == 0


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_scene_where_its_files_put_it_is_not_warned_of(tmp_path, kind):
    scene = load_scene(make(kind, tmp_path))
    assert not scene.warnings
    expect_something_in_sight(scene)
    for factor in (0.5, 2.0):
        assert not load_scene(tmp_path, overrides=Overrides(scale=factor * scene.scene_from_source.scale)).warnings


@pytest.mark.parametrize("name", REAL)
def test_real_scenes_are_not_warned_of(name):
    told = load_scene(data_folder(name)).warnings
    assert not [warning for warning in told if "--scale" in warning or "--near" in warning]


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e5])
def test_a_wrong_scale_is_told_with_the_right_one(tmp_path, kind, factor):
    right = load_scene(make(kind, tmp_path)).scene_from_source.scale
    scene = load_scene(tmp_path, overrides=Overrides(scale=factor * right))
    [told] = scene.warnings
    mended = re.fullmatch(r"[^\n]*; without the option it would be --scale (\S+)", told)
    assert float(mended[1]) == pytest.approx(right, rel=1e-3)


def test_a_center_far_off_is_told_with_the_right_one(tmp_path):
    usual = load_scene(make("blender", tmp_path))
    told = load_scene(tmp_path, overrides=Overrides(center=(9.0, 0, 0), scale=1.0)).warnings[0]
    assert told.startswith("the box misses what the cameras look at, about 9.0 half sides of it away from its middle; ")
    center, scale = re.search(r"--center (\S+) --scale (\S+)$", told).groups()
    at = usual.scene_from_source.inverse()(np.zeros(3))
    assert np.abs([float(x) for x in center.split(",")] - at).max() < 1e-3
    assert float(scale) == pytest.approx(usual.scene_from_source.scale, rel=1e-3)


def test_points_out_of_the_box_are_counted(tmp_path):
    """The sample's points fill a cube of half side 0.5 about the origin."""
    make("colmap", tmp_path)
    assert not load_scene(tmp_path, overrides=Overrides(center=(8.0, 0, 0), scale=1.0)).warnings  # contracted, not cut off
    for place, unbounded in ((12.0, True), (3.0, False)):
        [told] = load_scene(tmp_path, overrides=Overrides((place, 0, 0), 1.0, unbounded=unbounded)).warnings
        away = re.match(r"the box misses 100% of the scene's points, about (\S+) half sides of it away", told)[1]
        assert abs(float(away) - place) < 0.5


@pytest.mark.parametrize("bounds", [Overrides(near=5.0, far=20.0), Overrides(far=0.5)])
def test_near_and_far_that_miss_what_the_cameras_look_at_are_told(tmp_path, bounds):
    [told] = load_scene(make("transforms", tmp_path), overrides=bounds).warnings
    assert told.startswith("rays from near ")
    assert told.endswith(NEAR_FAR)


def test_an_object_in_hardly_a_pixel_is_told(tmp_path):
    """Views from 20 box sides away whose pictures are 0.7 radians wide: the box is about 1 in 14 of a side."""
    usual = load_scene(make("blender", tmp_path)).scene_from_source.scale
    [told] = load_scene(tmp_path, overrides=Overrides(scale=20 * usual)).warnings
    assert " of the rays of the pictures meet the box; without the option" in told


def test_where_nothing_at_all_can_be_seen_there_is_an_error(tmp_path):
    make("blender", tmp_path)
    for overrides in (Overrides(scale=1e4), Overrides(near=90.0, far=99.0), Overrides(center=(99.0, 99, 99))):
        with pytest.raises(SceneError, match="no ray of the training views meets the box"):
            expect_something_in_sight(load_scene(tmp_path, overrides=overrides))


def test_a_scale_may_mend_a_place_that_cannot_be_found_and_be_wrong_all_the_same(tmp_path, monkeypatch):
    folder = make("nsvf", tmp_path)

    def no_place(source, overrides):
        raise SceneError(source.folder, "near (0.001) has to be less than far (1e-5)")

    monkeypatch.setattr(in_sight, "normalise", no_place)
    [told] = load_scene(folder, overrides=Overrides(scale=1e4)).warnings
    assert told.endswith("; --center and --scale say where the box is")


def looking_at(target, centers):
    """Pinhole cameras at these places that look at another one."""
    poses = np.zeros((len(centers), 3, 4))
    for pose, center in zip(poses, centers, strict=True):
        forward = (target - center) / np.linalg.norm(target - center)
        right = np.cross([0.0, 1, 0], forward) / np.linalg.norm(np.cross([0.0, 1, 0], forward))
        pose[:] = np.stack([right, np.cross(forward, right), forward, center], -1)
    return make_cameras(poses, [100, 100, 50, 50], (100, 100))


def told_of(**found):
    names = [str(view) for view in range(len(found["cameras"]))]
    source = Source("llff", Path("scene"), names, image_files=[], **found)
    mapping, bounds, _ = normalise(source)
    return in_sight.out_of_sight(source, Overrides(), mapping, bounds, np.arange(len(names)))


@pytest.mark.parametrize("focus", [6.0, 8.0, 10.0])
def test_views_that_meet_behind_the_files_own_far_are_no_mistake(focus):
    """Nearly parallel ones, of what is nearer."""
    grid = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 5), np.linspace(-0.4, 0.4, 4), [0.0]), -1).reshape(-1, 3)
    cameras = looking_at(np.array([0.0, 0, focus]), grid)
    assert not told_of(cameras=cameras, near_far=(1.2, 5.0), unbounded=True, forward_facing=True)


def test_points_of_the_room_around_an_object_that_was_cut_out_are_no_mistake():
    random = np.random.default_rng(0)
    around = random.normal(size=(30, 3))
    cameras = looking_at(np.zeros(3), 4 * around / np.linalg.norm(around, axis=-1, keepdims=True))
    points = np.concatenate([random.uniform(-1, 1, (40, 3)), 30 * random.normal(size=(2000, 3))])
    assert not told_of(cameras=cameras, points=Points.without_tracks(points), box=np.array([[-1.0] * 3, [1.0] * 3]))


def test_a_scale_that_leaves_no_room_between_near_and_far_is_named(tmp_path):
    with pytest.raises(SceneError, match=r"has to be less than far .*; --scale 1e-06 may make the scene too small"):
        load_scene(make("blender", tmp_path), overrides=Overrides(scale=1e-6))
