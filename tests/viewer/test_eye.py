"""What a browser sends, as cameras."""

import numpy as np
import pytest

from taichi_nerf.cameras import make_cameras
from taichi_nerf.curves import quaternions, rotations
from taichi_nerf.viewer.eye import Eye, eye_of_view


def random_pose(seed):
    q = np.random.default_rng(seed).normal(size=(1, 4))
    return np.concatenate([rotations(q / np.linalg.norm(q))[0], np.random.default_rng(seed + 1).normal(size=(3, 1))], -1)


@pytest.mark.parametrize("seed", range(5))
def test_an_eye_sees_a_point_where_its_camera_projects_it(seed):
    """By hand: to the camera's axes, divided by z; the field of view ends at the picture's edge."""
    pose = random_pose(seed)
    eye = Eye.of(pose[:, 3], quaternions(pose[None, :, :3])[0], 0.8, 1.5)
    camera = eye.camera(100)
    assert camera.sizes.tolist() == [[150, 100]]
    for x, y in ((0, 0), (1, 1), (-1, 0.3)):
        local = np.array([1.5 * x * np.tan(0.4), y * np.tan(0.4), 1]) * 2.5
        pixel, depth = camera.project(0, (pose[:, :3] @ local + pose[:, 3])[None])
        np.testing.assert_allclose(pixel[0], [75 + 75 * x, 50 + 50 * y], atol=1e-3)
        np.testing.assert_allclose(depth, 2.5, atol=1e-4)


def test_the_eye_of_a_view_is_the_view():
    pose = random_pose(3)
    camera = make_cameras(pose[None], [70, 70, 40, 30], (80, 60))
    seen = eye_of_view(camera, 0).camera(60)
    np.testing.assert_allclose(seen.camera_to_worlds, camera.camera_to_worlds, atol=1e-5)
    np.testing.assert_allclose(seen.intrinsics, camera.intrinsics, rtol=1e-5)


@pytest.mark.parametrize(
    "numbers",
    [
        ([np.nan, 0, 0], [1, 0, 0, 0], 1, 1),
        ([0, 0, 0], [0, 0, 0, 0], 1, 1),
        ([0, 0, 1e30], [1, 0, 0, 0], 1, 1),
        ([0, 0, 0], [1, 0, 0], 1, 1),
        ([0, 0, 0], [1, 0, 0, 0], np.inf, 1),
    ],
)
def test_numbers_that_are_no_camera_are_none(numbers):
    assert Eye.of(*numbers) is None


def test_a_rounding_error_is_no_motion():
    assert Eye.of([0.1, 0, 0], [1, 0, 0, 0], 1, 1) == Eye.of([0.1 + 1e-9, 0, 0], [1, 1e-10, 0, 0], 1, 1)
