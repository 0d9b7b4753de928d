"""A recorded path goes through what was chosen, and `render` reads it."""

import json

import numpy as np
import pytest

from taichi_nerf.camera_path import read_camera_path
from taichi_nerf.viewer.eye import Eye
from taichi_nerf.viewer.numbered_files import NumberedFiles
from taichi_nerf.viewer.path_recorder import PathRecorder


def recorder(n):
    made = PathRecorder()
    made.eyes = [Eye.of([k, k * k, 1], [np.cos(0.1 * k), 0, np.sin(0.1 * k), 0], 0.7 + 0.1 * k, 1.4) for k in range(n)]
    return made


def test_the_file_goes_through_every_chosen_camera_and_keeps_its_field_of_view(tmp_path):
    made = recorder(3)
    file = made.save(NumberedFiles(tmp_path / "new"), seconds=1.0, fps=20, height=101, closed=False)
    path, fps = read_camera_path(file)
    assert (len(path), fps) == (41, 20)
    assert path.sizes[0].tolist() == [140, 100]
    for k, eye in enumerate(made.eyes):
        nearest = np.abs(path.centers - eye.position).sum(-1).argmin()
        assert {0: nearest == 0, 1: 0 < nearest < 40, 2: nearest == 40}[k]
        np.testing.assert_allclose(path.centers[nearest], eye.position, atol=0.08)
    np.testing.assert_allclose(np.degrees(made.eyes[0].fov_y), json.loads(file.read_text())["fov_y_degrees"], rtol=1e-5)


def test_a_closed_path_returns_and_one_camera_is_a_path(tmp_path):
    assert len(recorder(3).cameras(1.0, 10, 64, closed=True)) == 30
    assert len(recorder(1).cameras(1.0, 10, 64, closed=True)) == 1


def test_no_file_replaces_another(tmp_path):
    files = {recorder(2).save(NumberedFiles(tmp_path), 1.0, 10, 64, False).name for _ in range(3)}
    assert files == {"camera_path_1.json", "camera_path_2.json", "camera_path_3.json"}


def test_without_cameras_there_is_no_path(tmp_path):
    with pytest.raises(ValueError, match="at least one camera"):
        PathRecorder().save(NumberedFiles(tmp_path), 1.0, 10, 64, False)
