"""`benchmarks/few_view.py`: which scenes it makes, and that it tells figures of them."""

import json
import sys

import numpy as np

from taichi_nerf.benchmarks import few_view
from taichi_nerf.scenes import load_scene


def turned_apart(scene):
    """0 where all views look the same way, 1 where they look everywhere."""
    return 1 - np.linalg.norm(scene.cameras.camera_to_worlds[:, :, 2].mean(0))


def test_rooms_are_seen_from_one_side_or_from_anywhere_in_them(cpu, tmp_path, monkeypatch, capsys):
    command = ["few_view", "--rooms", "rooms", "--seeds", "1,2", "--variants", "photometric", "--steps", "2", "--size", "16"]
    command += ["--arch", "cpu", "--scenes-folder", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", command)
    few_view.main()
    rows = json.loads((tmp_path / "figures.json").read_text())["scenes"]
    assert [row["name"] for row in rows] == ["rooms_1", "objects_2"]
    told = rows[0]["photometric"]
    assert f"| rooms_1 | {told['psnr']:.2f} | {told['depth_error']:.3f} |" in capsys.readouterr().out
    (_, _, facing), _ = few_view.procedural([1, 2], 16, tmp_path)
    assert turned_apart(load_scene(facing)) < 0.3 < 0.6 < turned_apart(load_scene(tmp_path / "rooms_1_16"))
