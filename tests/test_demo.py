"""The demo makes what it says: a comparison, a video and a mesh, of a scene whose pictures are exact."""

import math
import re

import imageio.v3 as imageio
import pytest
import torch
import trimesh
from click.testing import CliRunner

from taichi_nerf.apps.main import main
from taichi_nerf.demo.pictures import RADIUS, look_at_center, trace
from taichi_nerf.rays import Rays


def rays(origins, directions):
    directions = torch.nn.functional.normalize(torch.tensor(directions), dim=-1)
    return Rays(torch.tensor(origins), directions, torch.zeros(len(directions)))


def test_the_true_picture_covers_the_ball_and_not_the_sky():
    color, coverage = trace(rays([[3.0, 0.12, 0.0], [3.0, 0.12, 0.0]], [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert coverage.tolist() == [1, 0]
    assert 0 < color[0].min() <= color[0].max() <= 1


@pytest.mark.parametrize("azimuth", [0.0, 1.0, math.pi])
def test_cameras_are_opencv_and_look_at_the_middle(azimuth):
    pose = look_at_center(azimuth, 0.4)
    rotation, position = pose[:, :3], pose[:, 3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(position + RADIUS * rotation[:, 2], torch.zeros(3), atol=1e-6, rtol=0)
    assert rotation[1, 1] < 0  # the image's y axis points down


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg leaves its pipes open
def test_a_few_seconds_make_all_files(cpu, tmp_path):
    result = CliRunner().invoke(main, ["demo", "--arch", "cpu", "--seconds", "8", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert float(re.search(r"PSNR ([\d.]+) dB on held-out test views", result.stdout)[1]) > 12
    comparison = imageio.imread(tmp_path / "out/comparison.png")
    assert comparison.shape == (4 * 128, 4 * 128, 3)
    video = imageio.imread(tmp_path / "out/orbit.mp4", plugin="FFMPEG")
    assert video.shape == (60, 128, 128, 3)
    mesh = trimesh.load(tmp_path / "out/mesh.ply")
    assert len(mesh.faces) > 12  # more than a box: a slow machine makes few steps in that time
    assert abs(mesh.bounds).max() <= 1.01
    again = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "out")])
    assert again.exit_code == 1
    assert "already has files in it" in again.stderr
