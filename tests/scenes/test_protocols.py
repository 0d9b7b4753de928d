"""Which few views are trained on, and which are never."""

from types import SimpleNamespace

import numpy as np
import pytest

from taichi_nerf.scenes import SceneError
from taichi_nerf.scenes.splits import choose_splits


def source(n):
    return SimpleNamespace(names=[f"{i}.png" for i in range(n)], splits={}, folder="scene")


@pytest.mark.parametrize(
    ("k", "expected"),
    [(3, [1, 10, 19]), (6, [1, 4, 7, 12, 15, 19])],  # fern: 20 views, of which 0, 8 and 16 are the test
)
def test_even_views_are_those_of_few_view_papers(k, expected):
    splits, _, notes = choose_splits(source(20), n_views=k, protocol="even")
    train = np.setdiff1d(np.arange(20), [0, 8, 16])
    assert splits["train"].tolist() == train[np.round(np.linspace(0, 16, k)).astype(int)].tolist() == expected
    assert splits["test"].tolist() == [0, 8, 16]
    assert any("spread evenly" in note for note in notes)


@pytest.mark.parametrize(
    ("given", "train", "test", "rule"),
    [
        ({"train": [1, 2, 5], "test": [7]}, [1, 2, 5], [7], "the scene's own"),
        ({"test": [7, 9]}, [0, 1, 2, 3, 4, 5, 6, 8], [7, 9], "the scene's own"),
        ({"train": [1, 2, 5], "val": [3]}, [1, 2, 5], [3], "its validation views are the test"),
        ({"val": [3, 4]}, [0, 1, 2, 5, 6, 7, 8, 9], [3, 4], "its validation views are the test"),
        ({"train": [1, 2, 3, 4, 5, 6, 7, 8, 9]}, [2, 3, 4, 5, 6, 7, 8], [1, 9], "of those that the scene trains on"),
        ({"train": list(range(10))}, [1, 2, 3, 4, 5, 6, 7, 9], [0, 8], "every 8th view held out"),
        ({"test": list(range(10))}, [1, 2, 3, 4, 5, 6, 7, 9], [0, 8], "every 8th view held out"),
    ],
)
def test_whatever_splits_a_scene_has_are_kept(given, train, test, rule):
    """Views that a file holds out are never trained on, and views that it leaves out of its training neither."""
    scene = source(10)
    scene.splits = {name: np.array(index) for name, index in given.items()}
    splits, said, _ = choose_splits(scene)
    assert {name: index.tolist() for name, index in splits.items()} == {"train": train, "test": test}
    assert rule in said


def test_dtus_protocol_is_that_of_pixelnerf_and_regnerf():
    splits, rule, _ = choose_splits(source(49), n_views=6, protocol="dtu")
    assert splits["train"].tolist() == [25, 22, 28, 40, 44, 48]
    assert splits["test"].tolist() == [
        1,
        2,
        9,
        10,
        11,
        12,
        14,
        15,
        23,
        24,
        26,
        27,
        29,
        30,
        31,
        32,
        33,
        34,
        35,
        41,
        42,
        43,
        45,
        46,
        47,
    ]
    assert "DTU" in rule


@pytest.mark.parametrize(
    ("n", "k", "protocol", "told"),
    [
        (48, 3, "dtu", "scene: protocol: dtu is for scans of 49 or 64 views; there are 48"),
        (135, 3, "dtu", "scene: protocol: dtu is for scans of 49 or 64 views; there are 135"),
        (49, 4, "dtu", "give --n-views 3, 6 or 9"),
        (49, None, "dtu", "dtu tells which views --n-views takes; give --n-views 3, 6 or 9"),
        (49, None, "even", "even tells which views --n-views takes; give --n-views"),
    ],
)
def test_a_protocol_that_does_not_fit_tells_what_would(n, k, protocol, told):
    with pytest.raises(SceneError, match=told):
        choose_splits(source(n), n_views=k, protocol=protocol)


def test_dtus_test_views_do_not_take_the_place_of_a_scenes_own():
    own = source(49)
    own.splits = {"train": np.arange(40), "test": np.arange(40, 49)}
    with pytest.raises(SceneError, match="dtu has test views of its own, and so has this scene"):
        choose_splits(own, n_views=3, protocol="dtu")
