"""Cameras in numpy: every lens undone, every projection reversed, and the same rays as the kernels make."""

import numpy as np
import pytest
import torch
from folding_lenses import folding_lenses

from taichi_nerf.cameras import MODELS, OPENCV, ORTHOGRAPHIC, PINHOLE, distort, make_cameras, opengl_to_opencv, undistort
from taichi_nerf.ops.ray_generation import generate_rays

SIZE, FOCAL = (640, 480), (500.0, 510.0)
LENSES = {  # k1, k2, k3, k4, k5, k6, p1, p2
    "pinhole": [0.0] * 8,
    "opencv": [0.0578421, -0.0805099, 0.01, 0.02, -0.01, 0.003, -0.000980296, 0.00015575],
    "fisheye": [0.05, -0.012, 0.004, -0.0007, 0, 0, 0, 0],
    "equirectangular": [0.0] * 8,
    "orthographic": [0.0] * 8,
}


def camera(model, seed=0):
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    pose = np.concatenate([rotation, [[0.3], [-1.2], [2.0]]], -1)
    if model == "equirectangular":  # a whole sphere: beyond its edges a direction has another pixel
        intrinsics = [SIZE[0] / (2 * np.pi), SIZE[1] / np.pi, SIZE[0] / 2, SIZE[1] / 2]
    else:
        intrinsics = [*FOCAL, 321.5, 238.0]
    return make_cameras(pose[None], intrinsics, SIZE, MODELS.index(model), LENSES[model])


def pixels(n=500):
    return np.random.default_rng(1).uniform([1, 1], [SIZE[0] - 1, SIZE[1] - 1], (n, 2))


@pytest.mark.parametrize("model", MODELS)
def test_projecting_a_point_on_a_ray_gives_back_its_pixel(model):
    cameras = camera(model)
    origins, directions = cameras.rays(0, pixels())
    depth = np.random.default_rng(2).uniform(0.5, 9, (len(origins), 1))
    found, _ = cameras.project(0, origins + depth * directions)
    assert np.abs(found - pixels()).max() < 1e-6


@pytest.mark.parametrize("model", MODELS)
def test_rays_are_those_of_the_kernels(model, cpu):
    cameras = camera(model)
    arrays = (cameras.camera_to_worlds, cameras.intrinsics, cameras.distortion, cameras.models)
    poses, intrinsics, distortion, models = (torch.from_numpy(a) for a in arrays)
    index = torch.zeros(500, dtype=torch.int32)
    rays = generate_rays(torch.from_numpy(pixels()), index, poses, intrinsics, distortion, models)
    origins, directions = cameras.rays(0, pixels())
    np.testing.assert_allclose(rays.origins, origins, atol=1e-12)
    np.testing.assert_allclose(rays.directions, directions, atol=1e-12)


def test_distorting_what_was_undistorted_is_within_a_millionth_of_a_pixel():
    k = np.array(LENSES["opencv"])
    points = np.random.default_rng(3).uniform(-0.6, 0.6, (2000, 2))
    assert np.abs(distort(undistort(points, k), k) - points).max() * max(FOCAL) < 1e-6


def test_a_point_beyond_the_fold_of_a_lens_is_nan_not_a_wrong_one():
    k = np.array([-0.5, 0, 0, 0, 0, 0, 0, 0])  # r (1 - r² / 2) never exceeds 0.5443
    found = undistort(np.array([[0.5, 0.0], [0.6, 0.0]]), k)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_no_step_jumps_over_a_fold_or_pole_to_another_branch_of_the_lens():
    for k, points, slopes in zip(*folding_lenses(), strict=True):
        np.testing.assert_allclose(undistort(points, k), slopes, atol=1e-9)


@pytest.mark.parametrize("model", ["pinhole", "opencv"])
def test_what_is_behind_a_camera_has_no_pixel(model):
    cameras = camera(model)
    behind = cameras.centers - 2 * cameras.forwards
    assert np.isnan(cameras.project(0, behind)[0]).all()


@pytest.mark.parametrize(("model", "wider"), [("opencv", 1.0), ("opencv", 0.8), ("fisheye", 1.0), ("fisheye", 0.6)])
def test_a_covering_pinhole_sees_what_the_lens_does(model, wider):
    lens = camera(model)
    lens.intrinsics[:, :2] *= wider
    intrinsics, sizes = lens.covering_pinholes()
    points = lens.centers + 3 * lens.rays(0, pixels())[1]
    found, depth = make_cameras(lens.camera_to_worlds, intrinsics, sizes).project(0, points)
    assert (depth > 0).all()
    assert (found >= 0).all()
    assert (found <= sizes).all()
    assert (np.ptp(found, axis=0) > 0.75 * sizes).all()  # and not much more


@pytest.mark.parametrize("model", ["fisheye", "equirectangular", "orthographic"])
def test_no_pinhole_covers_what_looks_sideways_or_in_parallel(model):
    lens = camera(model)
    lens.intrinsics[:, :2] *= 0.3
    assert lens.covering_pinholes() is None


def test_a_resized_camera_sees_the_same_at_scaled_pixels():
    cameras = camera("opencv")
    half = cameras.resized([[320, 240]])
    points = cameras.rays(0, pixels())[0] + 3 * cameras.rays(0, pixels())[1]
    np.testing.assert_allclose(half.project(0, points)[0], pixels() / 2, atol=1e-6)


def test_moving_the_world_moves_rays_with_it():
    cameras = camera("pinhole")
    turn = camera("pinhole", seed=5).camera_to_worlds[0, :, :3]
    moved = cameras.moved(2.0, turn, np.array([1.0, 2, 3]))
    point = np.array([[0.1, 0.2, 4.0]])
    np.testing.assert_allclose(moved.project(0, 2 * point @ turn.T + [1, 2, 3])[0], cameras.project(0, point)[0], atol=1e-9)


def test_indexing_and_opengl_poses():
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = range(4)
    cameras = make_cameras(opengl_to_opencv(poses), [1, 1, 0, 0], [2, 2], [PINHOLE, OPENCV, PINHOLE, ORTHOGRAPHIC])
    assert np.allclose(cameras.forwards, [0, 0, -1])
    assert cameras[[1, 3]].centers[:, 0].tolist() == [1, 3]
    assert cameras[-1].models.tolist() == [ORTHOGRAPHIC]
    assert len(cameras[cameras.models == PINHOLE]) == 2
