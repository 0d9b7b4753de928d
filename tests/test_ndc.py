"""Normalised device coordinates: rays agree with the projection of points, with LLFF's published recipe, and go back."""

import numpy as np
import pytest
import sample_llff
import torch

from taichi_nerf.ndc import distance_from_ndc, distance_to_ndc, points_to_ndc, rays_to_ndc
from taichi_nerf.scenes import Overrides, load_scene
from taichi_nerf.scenes.scene_data import Frustum

from real_data import data_folder


@pytest.fixture
def frustum():
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned *= np.sign(np.linalg.det(turned))
    return Frustum(np.concatenate([turned, [[0.3], [-0.2], [0.1]]], -1), np.array([1.6, 2.1]), 0.7)


def some_rays(frustum, n=200):
    """Origins about the mean camera, directions forward and of no particular length."""
    generator = np.random.default_rng(0)
    pose = frustum.camera_to_world
    origins = pose[:, 3] + generator.uniform(-0.3, 0.3, (n, 3))
    local = np.concatenate([generator.uniform(-0.5, 0.5, (n, 2)), generator.uniform(0.5, 2, (n, 1))], -1)
    return torch.tensor(origins), torch.tensor(local @ pose[:, :3].T)


def test_a_point_of_a_ray_is_where_its_point_in_ndc_is(frustum):
    origins, directions = some_rays(frustum)
    starts, ways = rays_to_ndc(origins, directions, frustum)
    for t in (0.5, 3.0, 1000.0):
        t_ndc = distance_to_ndc(torch.full((len(origins),), t, dtype=torch.float64), origins, directions, frustum)
        expected = points_to_ndc(origins + t * directions, frustum)
        assert torch.allclose(starts + t_ndc[:, None] * ways, expected, atol=1e-12)


def test_t_goes_from_the_near_plane_to_infinity(frustum):
    origins, directions = some_rays(frustum)
    starts, ways = rays_to_ndc(origins, directions, frustum)
    assert torch.allclose(starts[:, 2], torch.tensor(-1.0, dtype=torch.float64))
    assert torch.allclose((starts + ways)[:, 2], torch.tensor(1.0, dtype=torch.float64))
    far = distance_to_ndc(torch.full((len(origins),), 1e9, dtype=torch.float64), origins, directions, frustum)
    assert ((far > 1 - 1e-8) & (far < 1)).all()


def test_distances_go_there_and_back(frustum):
    origins, directions = some_rays(frustum)
    t = torch.linspace(0.1, 50, len(origins), dtype=torch.float64)
    there = distance_to_ndc(t, origins, directions, frustum)
    assert torch.allclose(distance_from_ndc(there, origins, directions, frustum), t, rtol=1e-10)


def published_rays(table, size):
    """LLFF's recipe in its own axes: bd_factor 0.75, recentred, near plane at 1; rays of pixel corners (NeRF's pixels)."""
    blocks = table[:, :15].reshape(-1, 3, 5)
    poses = np.stack([blocks[:, :, 1], -blocks[:, :, 0], blocks[:, :, 2], blocks[:, :, 3]], -1)
    poses[:, :, 3] /= 0.75 * table[:, 15].min()
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    back, up = unit(poses[:, :, 2].sum(0)), poses[:, :, 1].sum(0)
    right = unit(np.cross(up, back))
    average = np.eye(4)
    average[:3] = np.stack([right, unit(np.cross(back, right)), back, poses[:, :, 3].mean(0)], 1)
    bottom = np.broadcast_to([[0, 0, 0, 1.0]], (len(poses), 1, 4))
    poses = np.linalg.inv(average) @ np.concatenate([poses, bottom], 1)
    width, height = size
    focal = table[0, 14] * width / table[0, 9]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    local = np.stack([(x - width / 2) / focal, -(y - height / 2) / focal, -np.ones(x.shape)], -1).reshape(-1, 3)
    d = np.einsum("nij,pj->npi", poses[:, :3, :3], local)
    o = np.broadcast_to(poses[:, None, :3, 3], d.shape)
    o = o - (1 + o[..., 2:]) / d[..., 2:] * d
    s = np.array([2 * focal / width, 2 * focal / height])
    o_ndc = np.concatenate([-s * o[..., :2] / o[..., 2:], 1 + 2 / o[..., 2:]], -1)
    d_ndc = np.concatenate([-s * (d[..., :2] / d[..., 2:] - o[..., :2] / o[..., 2:]), -2 / o[..., 2:]], -1)
    return o_ndc, d_ndc


def assert_as_published(folder, scene, atol):
    found = np.load(folder / "poses_bounds.npy")
    size = scene.cameras.sizes[0]
    expected = published_rays(found, size)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    corners = np.stack([x.ravel(), y.ravel()], -1)
    for i in range(0, len(scene.cameras), 3):
        focal, center = scene.cameras.intrinsics[i, :2], scene.cameras.intrinsics[i, 2:]
        flat = np.concatenate([(corners - center) / focal, np.ones((len(corners), 1))], -1)  # without the lens LLFF leaves out
        directions = torch.tensor(flat @ scene.cameras.camera_to_worlds[i, :, :3].T)
        origins = torch.tensor(scene.cameras.centers[i]).expand_as(directions)
        ours = rays_to_ndc(origins, directions, scene.ndc)
        for mine, theirs in zip(ours, expected, strict=True):
            assert np.allclose(mine.numpy() * [1, -1, 1], theirs[i], atol=atol)


@pytest.mark.parametrize("axes", ["auto", "recentred", "spherified"])
def test_rays_are_the_published_ones_whatever_the_axes(tmp_path, axes):
    sample_llff.make(tmp_path)
    assert_as_published(tmp_path, load_scene(tmp_path, overrides=Overrides(axes=axes)), 1e-9)


def test_rays_of_real_fern_are_the_published_ones():
    assert_as_published(data_folder("fern_8"), load_scene(data_folder("fern_8")), 1e-3)  # its lens is COLMAP's: other digits


def test_scenes_that_do_not_face_one_way_have_no_ndc():
    assert load_scene(data_folder("fox_270x480")).ndc is None
