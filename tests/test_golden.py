"""Small pictures through most kernels at once, against ones that the reference drew in 64 bits.

Measured: at most 1 of 255 levels on cpu and lavapipe.
"""

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from taichi_nerf import ops

from golden import FOLDER, NAMES, draw


@pytest.mark.parametrize("name", NAMES)
def test_draws_the_stored_picture(name, backend):
    wanted = imageio.imread(FOLDER / f"{name}.png").astype(int)
    drawn = draw(name, ops, backend.torch_device, torch.float32)
    found = (drawn.clamp(0, 1) * 255).round().byte().cpu().numpy().astype(int)
    assert np.abs(found - wanted).max() <= 2
    assert np.abs(found - wanted).mean() < 0.05


def test_the_stored_pictures_show_something():
    for name in NAMES:
        picture = imageio.imread(FOLDER / f"{name}.png")
        assert picture.shape == (32, 32, 3)
        assert picture.std() > 20
