"""The demo makes what it says: figures, a video and a mesh of a scene whose truth is exact."""

import json
import re

import imageio.v3 as imageio
import numpy as np
import pytest
import trimesh
from click.testing import CliRunner
from failing_starts import contents

from taichi_nerf import demo
from taichi_nerf.apps.main import main
from taichi_nerf.procedural import make as procedural_make
from taichi_nerf.procedural import open_made
from taichi_nerf.scenes.procedural import signed_distance
from taichi_nerf.training.folder_lock import FolderLock


def test_a_new_demo_in_a_folder_leaves_what_is_somebodys_own(cpu, tmp_path, monkeypatch):
    """Its scene is replaced as soon as the new one is there, and a run may have been trained into it."""
    monkeypatch.setattr(demo, "open_scene", lambda settings: 1 / 0)  # all that follows the scene
    for name, few in (("SIZE", 16), ("N_TRAINING_VIEWS", 1), ("N_TEST_VIEWS", 1)):
        monkeypatch.setattr(demo, name, few)
    for number in (1, 2):
        command = ["demo", "--arch", "cpu", "--seed", str(number), "--out", str(tmp_path), "--overwrite"]
        assert CliRunner().invoke(main, command).exit_code == 1
        assert open_made(tmp_path / "scene").seed == number
        (tmp_path / "scene/run").mkdir(exist_ok=True)
        (tmp_path / f"scene/run/{number}.txt").write_text("mine")
    assert (tmp_path / "scene/run/1.txt").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "scene"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg leaves its pipes open
def test_a_few_steps_make_all_files_which_a_start_that_fails_leaves(cpu, tmp_path, monkeypatch):
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["demo", "--arch", "cpu", "--steps", "100", "--out", str(out)])
    assert result.exit_code == 0, result.output
    psnr = float(re.search(r"PSNR ([\d.]+) dB, SSIM [\d.]+ on held-out test views after 100 steps", result.stdout)[1])
    assert psnr > 20
    figures = json.loads((out / "run/eval/test/metrics.json").read_text())
    assert (figures["n_images"], round(figures["psnr"], 2)) == (8, psnr)
    assert imageio.imread(out / "orbit.mp4", plugin="FFMPEG").shape == (60, 144, 288, 3)
    for line in result.stdout.splitlines()[2:]:
        assert re.match(re.escape(str(out)), line)
    mesh = trimesh.load(out / "mesh.ply")
    points = trimesh.sample.sample_surface(mesh, 5000, seed=0)[0]
    distance = np.abs(signed_distance(open_made(out / "scene").at(), np.asarray(points, np.float64)))
    assert np.median(distance) < 0.05  # of a scene 2.4 wide
    again = CliRunner().invoke(main, ["demo", "--out", str(out)])
    assert again.exit_code == 1
    assert "already has files in it" in again.stderr
    with FolderLock(out):
        held = CliRunner().invoke(main, ["demo", "--out", str(out), "--overwrite"])
    assert (held.exit_code, held.stderr.startswith(f"error: {out}: is held by this process already")) == (1, True)
    before = contents(out)
    monkeypatch.setattr(procedural_make, "_write_split", lambda *_: 1 / 0)
    assert CliRunner().invoke(main, ["demo", "--arch", "cpu", "--out", str(out), "--overwrite"]).exit_code == 1
    assert contents(out) == before
