"""Which cameras a path by name has."""

import numpy as np
import pytest
import sample_transforms

from taichi_nerf.scenes import load_scene
from taichi_nerf.training.render_path import cameras_of_path

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
