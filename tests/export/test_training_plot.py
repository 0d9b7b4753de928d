"""The picture of a training: what it draws, and what odd rows do to it."""

import json
import math

import imageio.v3 as imageio
import numpy as np
import pytest

from taichi_nerf.export import training_plot
from taichi_nerf.export.files import ExportError


def rows(n=200):
    generator = np.random.default_rng(0)
    for i in range(n):
        loss = 0.08 * math.exp(-i / 20) + 3e-4
        yield {
            "step": 4 * i,
            "seconds": 0.3 * i,
            "loss": loss,
            "train_psnr": -10 * math.log10(loss),
            "rays_per_second": 2e5 * generator.uniform(0.9, 1.1),
            "samples_per_second": 2e6 * generator.uniform(0.9, 1.1),
            "n_samples_per_ray": 10.0,
        }


def has_color(picture, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(picture.astype(int) - wanted).max(-1) < 8).sum() > 100


def test_three_panels_are_drawn_the_same_bytes_every_time(tmp_path):
    for name in ("a.png", "plots/b.png"):
        training_plot.training_plot(list(rows()), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "plots/b.png").read_bytes()
    picture = imageio.imread(tmp_path / "a.png")[..., :3]
    assert picture.shape == (450, 1500, 3)
    assert has_color(picture[:, :500], training_plot.RED)
    assert has_color(picture[:, 500:1000], training_plot.BLUE)
    assert has_color(picture[:, 1000:], training_plot.GREEN)
    assert has_color(picture[:, 1000:], training_plot.BLUE)


def without(name):
    return [{key: value for key, value in row.items() if key != name} for row in rows()]


ODD = {
    "nothing": [],
    "one row": list(rows(1)),
    "two rows": list(rows(2)),
    "empty rows": [{}, {}],
    "no seconds": without("seconds"),
    "no loss": without("loss"),
    "no rates": without("rays_per_second"),
    "all NaN": [dict.fromkeys(row, math.nan) for row in rows()],
    "all null": [dict.fromkeys(row) for row in rows()],
    "text": [dict.fromkeys(row, "fast") for row in rows()],
    "all equal": [dict.fromkeys(row, 1.0) for row in rows()],
    "zeros": [dict.fromkeys(row, 0) for row in rows()],
    "negative": [dict.fromkeys(row, -1.0) for row in rows()],
    "huge": [dict.fromkeys(row, 1e300) for row in rows()],
    "infinite now and then": [
        {**row, "loss": math.inf, "train_psnr": -math.inf} if i % 3 else row for i, row in enumerate(rows())
    ],
    "read from JSON": [json.loads(json.dumps({**row, "loss": math.nan})) for row in rows()],
    "very many": list(rows(9000)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_rows_still_give_a_picture(tmp_path, name):
    training_plot.training_plot(ODD[name], tmp_path / "a.png")
    assert imageio.imread(tmp_path / "a.png").shape[:2] == (450, 1500)


def test_a_row_without_a_value_leaves_a_gap_and_no_zero():
    column = training_plot.column([{"a": 1}, {}, {"a": None}, {"a": math.nan}, {"a": "1"}, {"a": 2.5}], "a")
    assert np.array_equal(column, [1, np.nan, np.nan, np.nan, np.nan, 2.5], equal_nan=True)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_smoothed_values_are_the_means_of_their_neighbours(n):
    values = np.random.default_rng(0).normal(size=30)
    values[[3, 4, 17]] = np.nan
    found = training_plot.smoothed(values, n)
    for i in range(30):
        around = values[max(0, i - n // 2) : i + n // 2 + 1]
        wanted = np.nanmean(around) if np.isfinite(values[i]) else np.nan
        assert found[i] == pytest.approx(wanted, nan_ok=True)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ExportError, match=r"a\.png: is a folder"):
        training_plot.training_plot(list(rows(3)), tmp_path / "a.png")
