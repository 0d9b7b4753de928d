"""A small scene and settings that train on it in a second or two."""

from dataclasses import replace
from pathlib import Path

import torch

from taichi_nerf.procedural import make_scene
from taichi_nerf.training import presets
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.run import train
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.training.scene_files import open_scene

SMALL = ("batch.n_samples=8192", "field.n_levels=6", "occupancy.resolution=32")  # what --set makes of the presets
SETTINGS = [word for text in SMALL for word in ("--set", text)]


def make(folder: Path) -> Path:
    return make_scene("objects", folder, n_views=10, n_val=0, n_test=3, size=40, n_samples=1)


def configured(scene_folder: Path, **run):
    """Config and scene."""
    settings = SceneSettings(str(scene_folder.resolve()))
    scene = open_scene(settings)
    config, _ = presets.choose(scene, settings, RunSettings(**run), torch.device("cpu"))
    config = replace(
        config,
        batch=replace(config.batch, n_samples=8192),
        field=replace(config.field, n_levels=6),
        occupancy=replace(config.occupancy, resolution=32),
    )
    return config, scene


def trained(path: Path, config, scene, resume: bool = False, stop_after: int | None = None):
    """Train into a folder, stopping after so many steps of this training."""
    asked = iter(range(10**9))
    folder = RunFolder.open(path).locked() if resume else RunFolder.create(path)
    with folder:
        told: list[str] = []
        # It is also asked while pictures are read, which comes before compiling.
        stop = lambda: stop_after is not None and "compiling" in told and next(asked) >= stop_after  # noqa: E731
        report = lambda done, text: told.append(text)  # noqa: E731
        return train(config, scene, folder, torch.device("cpu"), resume=resume, stop=stop, report=report)
