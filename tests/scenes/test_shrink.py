"""Pictures of another size."""

import tracemalloc

import numpy as np
import pytest

from taichi_nerf.scenes import shrink as module
from taichi_nerf.scenes.shrink import shrink

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(7, 5), (13, 24), (40, 3), (60, 50)])
def test_in_parts_as_at_once(monkeypatch, channels, size):
    image = RANDOM.integers(0, 256, (25, 39, channels), np.uint8)
    at_once = shrink(image, *size)
    monkeypatch.setattr(module, "AT_ONCE", 500)
    assert at_once.shape == (size[1], size[0], channels)
    assert (shrink(image, *size) == at_once).all()


def test_an_area_that_is_covered_counts_by_how_much_of_it_is():
    image = np.array([[[0], [90], [240]]], np.uint8)
    assert shrink(image, 2, 1)[0, :, 0].tolist() == [30, 190]


def test_a_photo_is_never_a_float_as_a_whole():
    image = np.zeros((1500, 2000, 3), np.uint8)
    tracemalloc.start()
    shrink(image, 286, 214)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * image.nbytes
