"""Which cameras a path by name has."""

import numpy as np
import pytest
import sample_llff
import sample_transforms
import small_run
import torch

from taichi_nerf.scenes import load_scene
from taichi_nerf.training.pictures import picture_by, picture_of_view
from taichi_nerf.training.render_path import cameras_of_path
from taichi_nerf.training.run import load_run
from taichi_nerf.training.settings import apply_settings

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
def test_paths_are_laid_along_the_cameras_as_training_corrected_them(cpu, tmp_path, refined):
    config, scene = small_run.configured(small_run.make(tmp_path / "scene"), steps=40)
    config = apply_settings(config, [refined, "poses.intrinsics=true", "poses.learning_rate=0.02"])
    small_run.trained(tmp_path / "run", config, scene)
    run = load_run(tmp_path / "run", torch.device("cpu"))
    test_views, _ = cameras_of_path(run.scene, "test")
    given, _ = cameras_of_path(scene, "test")
    for place, view in enumerate(scene.splits["test"]):
        wanted = picture_of_view(run.model, int(view), scene.cameras.sizes[view]).color
        assert (picture_by(run.model, test_views, place).color - wanted).abs().mean() < 1e-4
        assert (picture_by(run.model, given, place).color - wanted).abs().mean() > 1e-3
