"""What is left to look at after a training."""

import imageio.v3 as imageio
import numpy as np
import small_run
import torch

from taichi_nerf.scenes.shrink import shrink
from taichi_nerf.training import preview
from taichi_nerf.training.methods import make_model


def test_previews_of_large_pictures_are_small_and_tell_how_far_they_are(cpu, small_scene, tmp_path, monkeypatch):
    config, scene = small_run.configured(small_scene, steps=1)
    model = make_model(config, scene, torch.device("cpu"))
    whole = preview.preview(model, scene, 0)
    assert whole.shape == (40, 160, 3)
    monkeypatch.setattr(preview, "LONGEST", 10)
    told = []
    files = preview.save_previews(model, scene, tmp_path, lambda number, n: told.append((number, n)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    shown = [imageio.imread(file) for file in files]
    assert [picture.shape for picture in shown] == [(10, 40, 3)] * 3
    view = int(scene.splits["test"][0])
    monkeypatch.undo()
    large = shrink(preview.preview(model, scene, view)[:, :40], 10, 10)
    assert np.abs(shown[0][:, :10].astype(int) - large).max() <= 2  # alpha over white before or after
