"""Which cameras a path by name has."""

from types import SimpleNamespace

import numpy as np
import pytest
import sample_llff
import sample_transforms
import small_run
import torch

from taichi_nerf.cameras import Cameras, make_cameras
from taichi_nerf.rendering import Picture
from taichi_nerf.scenes import load_scene
from taichi_nerf.settings import apply_settings
from taichi_nerf.training import pictures
from taichi_nerf.training.pictures import picture_by, picture_of_view
from taichi_nerf.training.render_path import cameras_of_path, depth_range, frames
from taichi_nerf.training.run import load_run

from opengl_views import write_picture


def test_test_views_of_several_sizes_are_frames_only_of_one_that_is_given(tmp_path):
    sample_transforms.make(tmp_path, n=10)
    write_picture(tmp_path / "images/000.png", 24, 16, 3)
    scene = load_scene(tmp_path)
    with pytest.raises(ValueError, match=r"of 2 sizes \(12 x 8, 24 x 16\), and frames are of one: give --width"):
        cameras_of_path(scene, "test")
    found, _ = cameras_of_path(scene, "test", width=6)
    assert found.sizes.tolist() == [[6, 4]] * 2
    pixels = np.array([[1.5, 2.5], [4, 0.5]])
    for frame, view, ratio in ((0, 0, 4), (1, 8, 2)):
        assert np.allclose(found.rays(frame, pixels)[1], scene.cameras.rays(view, pixels * ratio)[1])


def test_a_spiral_before_an_llff_scene_looks_where_llffs_own_does(tmp_path):
    """At 1 / (0.25 / 0.9 near + 0.75 / 5 far) ahead of the mean camera, by the bounds in the poses file."""
    sample_llff.make(tmp_path)
    scene = load_scene(tmp_path)
    found, _ = cameras_of_path(scene, "spiral", n_frames=8)
    poses = sample_llff.poses()[scene.splits["train"]]
    near, far = 5.0, 40.0
    ahead = poses[:, :, 2].mean(0) / np.linalg.norm(poses[:, :, 2].mean(0))
    target = poses[:, :, 3].mean(0) + ahead / (0.25 / (0.9 * near) + 0.75 / (5 * far))
    away = scene.scene_from_source(target) - found.centers
    assert np.abs(np.cross(away, found.forwards)).max() < 1e-9
    assert ((away * found.forwards).sum(-1) > 0).all()


@pytest.mark.parametrize("refined", ["poses.refine=true", "poses.intrinsics=true"])
def test_paths_are_laid_along_the_cameras_as_training_corrected_them(cpu, small_scene, tmp_path, refined):
    config, scene = small_run.configured(small_scene, steps=40)
    config = apply_settings(config, [refined, "poses.intrinsics=true", "poses.learning_rate=0.02"])
    small_run.trained(tmp_path / "run", config, scene)
    run = load_run(tmp_path / "run", torch.device("cpu"))
    test_views, _ = cameras_of_path(run.scene, "test")
    given, _ = cameras_of_path(scene, "test")
    for place, view in enumerate(scene.splits["test"]):
        wanted = picture_of_view(run.model, int(view), scene.cameras.sizes[view]).color
        assert (picture_by(run.model, test_views, place).color - wanted).abs().mean() < 1e-4
        assert (picture_by(run.model, given, place).color - wanted).abs().mean() > 1e-3


def test_a_pixel_is_the_mean_of_its_rays(cpu):
    """A wall 2 away, left of x = 3.35 pixels; right of it a half transparent one, 6 away. Two of five rays see the first."""
    camera = Cameras(
        np.eye(3, 4)[None], np.array([[10.0, 10, 4, 3]]), np.array([[8, 6]]), np.zeros(1, np.int32), np.zeros((1, 8))
    )
    widths = []

    def picture(rays, size, with_normals):
        x = 10 * rays.directions[:, 0] / rays.directions[:, 2] + 4
        is_left = (x < 3.35).view(size[1], size[0])
        widths.append(rays.radii.mean())
        opacity, depth = torch.where(is_left, 1.0, 0.5), torch.where(is_left, 2.0, 6.0)
        return Picture(opacity[..., None] * torch.tensor([1.0, 0, 0]), opacity, depth, is_left[..., None] * torch.ones(3))

    model = SimpleNamespace(picture=picture, box=torch.zeros(2, 3))
    found = picture_by(model, camera, 0, with_normals=True, antialias=5)
    row = torch.tensor([1.0, 1, 1, 0.7, 0.5, 0.5, 0.5, 0.5])
    assert torch.allclose(found.opacity, row.expand(6, 8))
    assert torch.allclose(found.color[..., 0], found.opacity)
    assert torch.allclose(found.depth[0], torch.tensor([2.0, 2, 2, (2 * 2 + 1.5 * 6) / 3.5, 6, 6, 6, 6]))
    assert torch.allclose(found.normals[0, :, 0], torch.tensor([1.0, 1, 1, 0.4, 0, 0, 0, 0]))
    picture_by(model, camera, 0)
    assert torch.allclose(torch.stack(widths[:25]).mean(), widths[-1] / 5, rtol=1e-2)  # cones that fill a pixel together


def test_rays_of_a_pixel_are_those_of_a_larger_picture(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=40)
    small_run.trained(tmp_path / "run", config, scene)
    model = load_run(tmp_path / "run", torch.device("cpu")).model
    camera = scene.cameras[[0]]
    large = picture_by(model, camera.resized(2 * camera.sizes[0]), 0, with_normals=True)
    found = picture_by(model, camera, 0, with_normals=True, antialias=2)
    for one, four in ((found.color, large.color), (found.opacity, large.opacity), (found.normals, large.normals)):
        of_pixels = four.unflatten(1, (-1, 2)).mean(2).unflatten(0, (-1, 2)).mean(1)
        assert (one - of_pixels).abs().max() < 1e-3


def test_of_a_large_picture_only_some_rays_are_in_memory(cpu, monkeypatch):
    """Depth is the ray's place in the picture: rows are where they belong, and no part has more rays than allowed."""
    camera = Cameras(
        np.eye(3, 4)[None], np.array([[10.0, 10, 4, 3]]), np.array([[8, 7]]), np.zeros(1, np.int32), np.zeros((1, 8))
    )
    asked = []

    def picture(rays, size, with_normals):
        asked.append(len(rays.origins))
        x, y = (10 * (rays.directions[:, i] / rays.directions[:, 2]).view(size[1], size[0]) for i in (0, 1))
        return Picture(torch.stack([x, y, y], -1), torch.ones_like(x), y, None)

    model = SimpleNamespace(picture=picture, box=torch.zeros(2, 3))
    whole = [picture_by(model, camera, 0, antialias=n) for n in (1, 2)]
    assert asked == [56] * 5
    monkeypatch.setattr(pictures, "PIXELS_AT_ONCE", 20)
    told = []
    picture_by(model, camera, 0, report=told.append)
    assert told == pytest.approx([2 / 7, 4 / 7, 6 / 7, 1])
    asked.clear()
    for n, at_once in zip((1, 2), whole, strict=True):
        for part, of_whole in zip(picture_by(model, camera, 0, antialias=n)[:3], at_once[:3], strict=True):
            assert torch.allclose(part, of_whole, atol=1e-6)
    assert max(asked) <= 20


def test_the_range_of_depths_is_that_of_the_whole_path(cpu):
    """Eleven frames on their way from a wall: it is 1 to 11 away, and a twentieth of each picture shows nothing."""
    poses = np.tile(np.eye(3, 4), (11, 1, 1))
    poses[:, 2, 3] = -np.arange(11.0)
    path = make_cameras(poses, [40.0, 40, 20, 20], [40, 40])

    def picture(rays, size, with_normals):
        depth = (1 - rays.origins[:, 2]).view(size[1], size[0])
        opacity = torch.ones_like(depth)
        opacity[: size[1] // 20] = 0.4
        return Picture(torch.zeros(*depth.shape, 3), opacity, torch.where(opacity > 0.5, depth, 99), None)

    bounds = SimpleNamespace(near=0.25, far=7.0)
    run = SimpleNamespace(model=SimpleNamespace(picture=picture, box=torch.zeros(2, 3)), scene=SimpleNamespace(bounds=bounds))
    assert depth_range(run, path) == pytest.approx((1, 11))
    near, far = depth_range(run, path[3])
    assert (near, far) == pytest.approx((4, 4 * 1.01))  # not empty
    run.model.picture = lambda rays, size, with_normals: Picture(None, torch.zeros(size[::-1]), torch.zeros(size[::-1]), None)
    assert depth_range(run, path) == (0.25, 7)  # where nothing is seen, the scene's


def test_what_no_frame_shows_and_a_path_without_frames_are_told(small_scene):
    scene = load_scene(small_scene)
    for n_frames in (0, -3):
        with pytest.raises(ValueError, match=f"at least one frame, not {n_frames}"):
            cameras_of_path(scene, "orbit", n_frames)
    orbit, _ = cameras_of_path(scene, "orbit", 2)
    for what, named in ((["colour"], "'colour'"), ([], "nothing")):
        with pytest.raises(ValueError, match=f"expected some of color, depth, opacity, normals, got {named}"):
            next(frames(None, orbit, [0], what))
