"""`scene info --check`: figures that are small where a scene agrees with itself and large where a convention is wrong."""

from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_transforms

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes import load_scene
from taichi_nerf.scenes.check import check_files, check_points, check_scene
from taichi_nerf.scenes.describe import describe
from taichi_nerf.scenes.source import DepthFiles, Points, Source
from taichi_nerf.trajectories import look_at

SIZE, FOCAL = (64, 48), 50.0
KINDS = ("z", "ray", "inverse")


def poses():
    found = np.zeros((6, 4, 4))
    for i, angle in enumerate(np.linspace(-0.5, 0.5, 6)):
        c, s = np.cos(angle), np.sin(angle)
        found[i, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        found[i, :3, 3] = [-4 * np.sin(angle), 0, 4 - 4 * np.cos(angle)]
    return found


def make_source(tmp_path, kind, bump=0.0):
    """Views of the plane z = 6 + bump · (view number), with 16-bit depth maps; a tenth of the pixels is not measured."""
    cameras = make_cameras(poses(), [FOCAL, FOCAL, 32, 24], SIZE)
    u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    files = []
    for i in range(len(cameras)):
        origins, directions = cameras.rays(i, np.stack([u.ravel(), v.ravel()], -1))
        along = (6 + bump * i - origins[:, 2]) / directions[:, 2]
        z = along * (directions @ cameras.forwards[i])
        values = {"ray": along / 0.001, "z": z / 0.001, "inverse": 1 / z / 0.00001}[kind]
        values = np.rint(values).clip(1, 65534).astype(np.uint16).reshape(SIZE[1], SIZE[0])
        values[:, ::10] = 65535
        files.append(tmp_path / f"{kind}_{i}.png")
        imageio.imwrite(files[-1], values)
    depth = DepthFiles(files, 0.00001 if kind == "inverse" else 0.001, kind, 65535)
    return Source("rgbd", tmp_path, [file.name for file in files], cameras, files, depth=depth)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_maps_of_one_plane_agree(tmp_path, kind):
    (figure,) = check_scene(make_source(tmp_path, kind))
    assert figure.unit == "%"
    assert figure.value < 1.5  # of pixels that are 3 % of the plane apart, the nearest is read


def test_a_wrong_kind_axis_or_unit_shows(tmp_path):
    source = make_source(tmp_path, "z")
    good = check_scene(source)[0].value
    flipped = source.cameras.camera_to_worlds.copy()
    flipped[:, :, 1:] *= -1
    flipped[:, :, 3] *= -1
    turned = replace(source, cameras=make_cameras(flipped, source.cameras.intrinsics, SIZE))
    assert not check_scene(turned)[0].value < 5 * good
    long = replace(source, depth=replace(source.depth, unit=0.002))
    assert not check_scene(long)[0].value < 5 * good


def test_maps_that_are_missing_are_left_out(tmp_path):
    source = make_source(tmp_path, "z")
    some = replace(source, depth=replace(source.depth, files=[None, *source.depth.files[1:]]))
    assert check_scene(some)[0].value < 1.5
    none = replace(source, depth=replace(source.depth, files=[None] * 6))
    assert check_scene(none) == []


def test_a_scene_with_neither_tracks_nor_depths_has_no_figures(tmp_path):
    source = replace(make_source(tmp_path, "z"), depth=None)
    assert check_scene(source) == []
    assert check_scene(replace(source, points=Points.without_tracks(np.ones((5, 3))))) == []


def test_mean_over_points_of_the_mean_over_what_saw_them():
    cameras = make_cameras(poses(), [FOCAL, FOCAL, 32, 24], SIZE)
    positions = np.array([[0.0, 0, 6], [1, 0, 6]])
    seen_by, seen = np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1])
    exact = np.stack([cameras.project(i, positions[[j]])[0][0] for i, j in zip(seen_by, seen, strict=True)])
    off = np.array([[1.0, 0], [2, 0], [3, 0], [0, 10]])
    points = Points(positions, np.zeros((2, 3), np.uint8), seen_by, seen, exact + off)
    (figure,) = check_points(cameras, points)
    assert figure.value == pytest.approx((2 + 10) / 2)


def test_points_behind_their_camera_are_counted():
    cameras = make_cameras(poses(), [FOCAL, FOCAL, 32, 24], SIZE)
    points = Points(
        np.array([[0.0, 0, 6], [0, 0, -6]]), np.zeros((2, 3), np.uint8), np.array([0, 0]), np.array([0, 1]), np.zeros((2, 2))
    )
    (figure,) = check_points(cameras, points)
    assert "1 are not" in figure.detail
    assert np.isfinite(figure.value)


# --- an object seen from all sides ----------------------------------------------------------------------------------------


def sphere(tmp_path, n_views):
    """Views of a unit sphere from a ring at distance 4, with exact depths along the axis; 0 beside it."""
    angles = np.linspace(0, 2 * np.pi, n_views, endpoint=False)
    positions = 4 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    cameras = make_cameras(look_at(positions, np.zeros(3), np.array([0.0, 0, 1])), [80, 80, 32, 24], SIZE)
    u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    files = []
    for i in range(n_views):
        origins, directions = cameras.rays(i, np.stack([u.ravel(), v.ravel()], -1))
        b = (origins * directions).sum(-1)
        inside = b * b - 15
        along = -b - np.sqrt(np.maximum(inside, 0))
        z = np.where(inside > 0, along * (directions @ cameras.forwards[i]), 0)
        files.append(tmp_path / f"{i}.npy")
        np.save(files[-1], z.reshape(SIZE[1], SIZE[0]).astype(np.float32))
    return Source("made", tmp_path, [file.name for file in files], cameras, files, depth=DepthFiles(files, 1.0, "z"))


@pytest.mark.parametrize("n_views", [8, 40])
def test_the_far_side_of_an_object_does_not_count_as_disagreement(tmp_path, n_views):
    """Views from all around see the whole sphere in their picture, but different sides of its surface."""
    source = sphere(tmp_path, n_views)
    (figure,) = check_scene(source)
    assert figure.value < 1
    assert not check_scene(replace(source, depth=replace(source.depth, unit=1.25)))[0].value < 3 * figure.value


def test_views_that_share_no_surface_are_not_compared(tmp_path):
    (figure,) = check_scene(sphere(tmp_path, 3))
    assert np.isnan(figure.value)
    assert "same surface" in figure.detail


# --- damaged files --------------------------------------------------------------------------------------------------------


def test_damaged_pictures_masks_and_depth_maps_are_counted_and_named(tmp_path):
    sample_transforms.make(tmp_path, n=9)
    assert check_files(load_scene(tmp_path))[0].value == 0
    for name in ("images/000.png", "images/004.png", "masks/002.png", "depths/001.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:45])  # its header is whole
    done = []
    scene = load_scene(tmp_path)
    (figure,) = check_files(scene, lambda share, text: done.append(share))
    assert (figure.value, figure.unit) == (4, "of 27")
    assert "000.png: is no readable image" in figure.detail
    assert "and 1 more" in figure.detail
    assert done == sorted(done)
    assert np.isfinite(check_scene(scene)[0].value)  # with the maps that are whole
    assert describe(scene)["pictures"]["channels"] == 3
