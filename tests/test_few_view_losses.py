"""Geometric terms against loops, and what they do to a field."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from taichi_nerf import few_view_losses
from taichi_nerf.cameras import make_cameras
from taichi_nerf.rays import Samples
from taichi_nerf.trajectories import look_at


def three_cameras():
    """Around the origin, narrow."""
    eyes = np.array([[3.0, 0, 0], [0, 3, 0.5], [-2, -2, 1]])
    poses = look_at(eyes, np.zeros((3, 3)), np.array([0.0, 0, 1]))
    return make_cameras(poses, [40.0, 44, 15, 11], (32, 24))


def counted(cameras, points, near):
    """By the cameras' own projection, in 64 bits."""
    seen = np.zeros(len(points), int)
    for camera in range(len(cameras)):
        with np.errstate(all="ignore"):
            pixels, depth = cameras.project(camera, points)
        inside = (pixels >= 0).all(-1) & (pixels <= cameras.sizes[camera]).all(-1)
        seen += inside & (depth > near)
    return seen


def arrays_of(cameras):
    return (
        torch.tensor(cameras.camera_to_worlds, dtype=torch.float32),
        torch.tensor(cameras.intrinsics, dtype=torch.float32),
        torch.tensor(cameras.sizes),
    )


@pytest.mark.parametrize("near", [0.0, 1.5])
def test_cameras_that_see_a_place_are_counted(near):
    cameras = three_cameras()
    points = np.random.default_rng(0).uniform(-4, 4, (2000, 3))
    counts = few_view_losses.frustum_count(torch.tensor(points, dtype=torch.float32), *arrays_of(cameras), near)
    expected = counted(cameras, points, near)
    assert len(set(expected)) == 4
    assert (counts.numpy() != expected).mean() < 0.002  # at the borders, by rounding


def test_what_lies_behind_a_camera_is_not_seen():
    """Its x / z and y / z are those of what lies ahead: mirrored through the camera, every seen point would be seen, too."""
    cameras = three_cameras()[[0]]
    ahead = torch.tensor([[0.0, 0.1, 0.2], [1.0, 0, 0]])
    behind = 2 * torch.tensor(cameras.centers[0], dtype=torch.float32) - ahead
    assert few_view_losses.frustum_count(ahead, *arrays_of(cameras)).tolist() == [1, 1]
    assert few_view_losses.frustum_count(behind, *arrays_of(cameras)).tolist() == [0, 0]
    at_the_camera = torch.tensor(cameras.centers, dtype=torch.float32)
    assert few_view_losses.frustum_count(at_the_camera, *arrays_of(cameras)).tolist() == [0]


def test_loneliness_is_its_sum():
    weights = torch.tensor([0.5, 0.2, 0.1, 0.3], requires_grad=True)
    counts = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    loss = few_view_losses.loneliness(weights, counts, 2)
    assert loss.item() == pytest.approx((2 * 0.5 + 0.2) / 2)
    loss.backward()
    assert_close(weights.grad, torch.tensor([1.0, 0.5, 0.0, 0.0]))


def test_shortfall_is_least_where_light_ends_as_it_should():
    opacity = torch.tensor([1.0, 0.5], requires_grad=True)
    assert few_view_losses.shortfall(opacity).item() == pytest.approx(0.125)
    few_view_losses.shortfall(opacity, torch.tensor([1.0, 0.2])).backward()
    assert_close(opacity.grad, torch.tensor([0.0, 0.3]))


def test_relative_spread_is_the_double_sum_over_depth_and_has_no_unit(backend, generator):
    edges = 1 + torch.rand(3, 6, generator=generator).cumsum(-1)
    weights = torch.rand(3, 5, generator=generator)
    middle, length = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1)
    apart = (middle[:, :, None] - middle[:, None]).abs()
    double = torch.einsum("ri,rj,rij->r", weights, weights, apart) + (weights**2 * length).sum(-1) / 3
    depth = (weights * middle).sum(-1)
    for scale in (1.0, 7.0):
        indices = torch.arange(3, dtype=torch.int32).repeat_interleave(5)
        spans = torch.tensor([[0, 5], [5, 5], [10, 5]], dtype=torch.int32)
        samples = Samples(scale * edges[:, :-1].flatten(), scale * edges[:, 1:].flatten(), indices, spans)
        found = few_view_losses.relative_spread(weights.flatten(), samples, scale * depth)
        assert_close(found, (double / depth).mean())
