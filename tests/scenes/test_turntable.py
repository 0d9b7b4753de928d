"""Pictures of objects on a turntable."""

import numpy as np
import pytest
from sample_turntable import make

from taichi_nerf.scenes import SceneError, load_scene, read_source
from taichi_nerf.scenes.turntable import around

from real_data import SHARED


def test_cameras_are_proper_and_look_at_the_middle_from_outside_the_ball():
    poses = around(np.arange(0, 360, 5.0))
    rotations = poses[:, :, :3]
    assert np.allclose(rotations @ rotations.swapaxes(1, 2), np.eye(3))
    assert np.allclose(np.linalg.det(rotations), 1)
    assert np.allclose(poses[:, :, 3] / np.linalg.norm(poses[:, :, 3], axis=-1, keepdims=True), -poses[:, :, 2])
    assert (np.linalg.norm(poses[:, :, 3], axis=-1) > 1).all()


def test_the_unit_ball_touches_the_sides_of_the_pictures(tmp_path):
    """Neither is known of these pictures; but what is assumed has to fit together, or the object is cut off or tiny."""
    make(tmp_path)
    cameras = read_source(tmp_path).cameras
    tangent = np.arcsin(1 / np.linalg.norm(cameras.centers, axis=-1))
    np.testing.assert_allclose(cameras.intrinsics[:, 0] * np.tan(tangent), cameras.sizes.max(-1) / 2)
    assert 20 < 2 * np.degrees(tangent[0]) < 40  # photos of a thing are taken with a lens of medium length


def test_consecutive_views_are_five_degrees_apart(tmp_path):
    make(tmp_path)
    forwards = read_source(tmp_path).cameras.forwards
    assert np.allclose(np.degrees(np.arccos((forwards[1:] * forwards[:-1]).sum(-1))), 5)


def test_a_folder_is_its_first_object_and_a_picture_the_one_it_shows(tmp_path):
    make(tmp_path, objects=("obj10", "obj2"))
    first = read_source(tmp_path)
    assert all(name.startswith("obj2__") for name in first.names)
    assert any("2 objects" in note for note in first.notes)
    assert all(name.startswith("obj10__") for name in read_source(tmp_path / "obj10__3.png").names)


def test_numbers_beyond_a_turn_of_steps_are_degrees(tmp_path):
    make(tmp_path, objects=("obj1",))
    (tmp_path / "obj1__8.png").rename(tmp_path / "obj1__355.png")
    forwards = read_source(tmp_path).cameras.forwards
    assert np.isclose(np.degrees(np.arccos(forwards[0] @ forwards[-1])), 5)


def test_a_number_beyond_a_full_turn_is_refused(tmp_path):
    make(tmp_path, objects=("obj1",))
    (tmp_path / "obj1__8.png").rename(tmp_path / "obj1__360.png")
    with pytest.raises(SceneError, match="no part of a turn"):
        read_source(tmp_path)


def test_a_folder_of_other_pictures_is_not_one(tmp_path):
    make(tmp_path)
    (tmp_path / "obj1__0.png").rename(tmp_path / "holiday.png")
    with pytest.raises(SceneError, match="nothing that tells where they were taken"):
        read_source(tmp_path)


@pytest.mark.skipif(not (SHARED / "coil20_32").is_dir(), reason="the real scenes are not here")
def test_the_real_set_opens():
    scene = load_scene(SHARED / "coil20_32")
    assert (scene.kind, len(scene.names), scene.images[0].shape) == ("turntable", 50, (32, 32, 1))
    assert any("20 objects" in note for note in scene.notes)
