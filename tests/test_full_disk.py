"""A disk that is full: one line that names the file that was to be written, and whatever stood there stays."""

import os
import subprocess
import sys

import pytest

WRITERS = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from taichi_nerf.apps.command import describe
from taichi_nerf.training.json_file import write_json
from taichi_nerf.generator.copying import copy_model
from taichi_nerf.generator.depth_pose.files import save_depth_pose
from taichi_nerf.generator.depth_pose.model import DepthPose, DepthPoseSettings
from taichi_nerf.generator.image_set import ImageSet, save_image_set
from taichi_nerf.generator.model_folder import ModelFolder
from taichi_nerf.generator.stylegan2.generator import Generator, GeneratorSettings
from taichi_nerf.generator.stylegan2.published import write_rosinality
from taichi_nerf.training import metrics_file
from taichi_nerf.training.run_folder import RunFolder

at = Path(sys.argv[1])
model = ModelFolder(at / "model")
model.path.mkdir()
model.about.write_text("{}" + 999 * " ")
config = dict.fromkeys(("settings", "scene", "arch", "device"), "")
writers = {
    "images.npz": lambda file: save_image_set(file, ImageSet(np.zeros((9, 8, 8, 3), np.uint8))),
    "encoder.pth": lambda file: save_depth_pose(file.parent, DepthPose(DepthPoseSettings(size=64, width=8))),
    "theirs.pt": lambda file: write_rosinality(file, Generator(GeneratorSettings(8, 16, 16, 2, 64, 16))),
    "about.json": lambda file: copy_model(model, ModelFolder(file.parent), half=False),
    "config.json": lambda file: RunFolder(file.parent).write_config(config),
    "figures.json": lambda file: write_json(file, 999 * "1"),
    "metrics.jsonl": lambda file: metrics_file.append(file, {"step": 1, "note": 99 * "x"}),
}
for name, write in writers.items():
    file = at / name.partition(".")[0] / name
    file.parent.mkdir()
    file.write_text("{}\\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (99, resource.RLIM_INFINITY))  # the nearest to a full disk that needs no rights
    try:
        write(file)
    except Exception as error:
        print(describe(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert file.read_text().startswith("{}\\n"), f"{file} is lost"
    assert list(file.parent.iterdir()) == [file], f"something is left beside {file}"
"""
NAMES = ("images.npz", "encoder.pth", "theirs.pt", "about.json", "config.json", "figures.json", "metrics.jsonl")


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
def test_a_full_disk_is_one_line_that_names_the_file_and_leaves_what_stood_there(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITERS, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    for line, name in zip(told, NAMES, strict=True):
        file = tmp_path / name.partition(".")[0] / name
        assert line in (f"{file}: File too large", f"{file}: cannot be written: File too large")
