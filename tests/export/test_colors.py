"""Colors of depths and normals, and the legend drawn into pictures."""

import tracemalloc

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from taichi_nerf.export import colors, scale_bar
from taichi_nerf.export.colors import GREY, HELIX, color_depth, color_normals, pad_to_even, side_by_side, to_bytes


def test_bytes_are_the_nearest_and_never_wrap_around():
    values = np.array([-0.1, 0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 0.5, 1, 1.1, 200, np.inf, -np.inf, np.nan])
    assert to_bytes(values).tolist() == [0, 0, 0, 1, 128, 255, 255, 255, 255, 0, 0]
    assert to_bytes(torch.tensor(values)).tolist() == to_bytes(values).tolist()
    assert to_bytes(torch.tensor([0.25], requires_grad=True)).tolist() == [64]
    assert to_bytes(torch.tensor([0.25], dtype=torch.bfloat16)).tolist() == [64]
    assert to_bytes(to_bytes(values)).tolist() == to_bytes(values).tolist()


def test_near_is_lighter_than_far_all_the_way_and_no_color_is_grey():
    lab = rgb2lab(HELIX / 255)
    steps = -np.diff(lab[::8, 0])
    assert steps.min() > 0.8 * steps.mean()
    assert lab[0, 0] > 90
    assert lab[-1, 0] < 25
    assert np.hypot(lab[:, 1], lab[:, 2]).min() > 30


def test_equal_steps_of_depth_look_equal():
    """In OKLab, from the bytes back: published matrices, inverted."""
    values = HELIX / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_cones.append([0.0883024619, 0.2817188376, 0.6299787005])
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    to_lab.append([0.0259040371, 0.7827717662, -0.8086757660])
    lab = np.cbrt(linear @ np.array(to_cones).T) @ np.array(to_lab).T
    steps = np.linalg.norm(np.diff(lab[::15], axis=0), axis=-1)
    assert np.abs(steps / steps.mean() - 1).max() < 0.06
    assert np.abs(np.hypot(lab[:, 1], lab[:, 2]) - 0.15).max() < 0.006


@pytest.mark.parametrize("inverse", [False, True])
def test_depths_beyond_the_ends_take_their_colors_and_none_is_grey(inverse):
    depth = torch.tensor([[0.5, 1.0, 4.0, 9.0], [torch.nan, torch.inf, 0.0, -1.0]])
    picture = color_depth(depth, 1.0, 4.0, inverse=inverse)
    assert picture.dtype == np.uint8
    assert (picture[0] == HELIX[[0, 0, -1, -1]]).all()
    assert (picture[1] == GREY).all()


def test_the_middle_of_the_colors_is_the_middle_of_depth_or_of_its_inverse():
    assert (color_depth(np.array([[3.0]]), 2, 4)[0, 0] == HELIX[128]).all()
    assert (color_depth(np.array([[8 / 3]]), 2, 4, inverse=True)[0, 0] == HELIX[[127, 128]]).all(-1).any()


def test_less_opacity_is_more_grey():
    depth, opacity = np.full((1, 3), 2.0), torch.tensor([[0.0, 0.5, 1.0]])
    picture = color_depth(depth, 1, 3, opacity).astype(int)
    assert (picture[0, 0] == GREY).all()
    assert (picture[0, 2] == HELIX[128]).all()
    assert np.abs(picture[0, 1] - (GREY + HELIX[128].astype(int)) / 2).max() <= 0.5
    with pytest.raises(ValueError, match="opacity: expected shape"):
        color_depth(depth, 1, 3, opacity.T)


@pytest.mark.parametrize("ends", [(0, 1), (2, 2), (3, 2), (1, np.inf), (np.nan, 1)])
def test_near_and_far_have_to_be_in_order(ends):
    with pytest.raises(ValueError, match="0 < near < far"):
        color_depth(np.ones((2, 2)), *ends)


def read_number(mask):
    """The text in a mask of a number written with dots of one pixel, column by column."""
    columns = [tuple(mask[:, i]) for i in range(mask.shape[1])]
    text, start = "", 0
    while start < len(columns):
        for letter, rows in scale_bar.GLYPHS.items():
            glyph = [tuple(row[i] == "#" for row in rows) for i in range(len(rows[0]))]
            if columns[start : start + len(glyph)] == glyph:
                text, start = text + letter, start + len(glyph) + 1
                break
        else:
            raise AssertionError("no such letter")
    return text


@pytest.mark.parametrize("value", [0.05, 12.5, 1e6, 2e-7, 1234, 0.001, 987.6, 30])
def test_a_written_number_reads_as_itself(value):
    assert float(read_number(scale_bar.write_number(value, 1))) == value


def test_ticks_stand_where_the_strip_has_the_color_of_their_depth():
    picture = color_depth(np.full((170, 120), np.nan), 2.0, 6.0, scale_bar=True)
    strip, ticks = picture[:, 114], picture[:, 111]
    rows = np.flatnonzero((ticks == 255).all(-1))
    assert len(rows) == 5
    for row, value in zip(rows[::-1], (2, 3, 4, 5, 6), strict=True):
        wanted = color_depth(np.array([[float(value)]]), 2.0, 6.0)[0, 0].astype(int)
        assert np.abs(strip[row].astype(int) - wanted).max() <= 6
        letters = (picture[row - 2 : row + 3, 100:109] == 255).all(-1)
        assert read_number(letters[:, letters.any(0)]) == str(value)


@pytest.mark.parametrize("size", [(40, 40), (135, 240), (800, 800), (1080, 1920)])
@pytest.mark.parametrize("ends", [(2.0, 6.0), (0.05, 100.0), (1234.5, 98765.0), (1e-5, 2e-5), (1.0, 1.00001)])
@pytest.mark.parametrize("inverse", [False, True])
def test_a_scale_bar_fits_into_any_picture_and_leaves_its_left_half_alone(size, ends, inverse):
    depth = np.full(size, ends[0])
    picture = color_depth(depth, *ends, scale_bar=True, inverse=inverse)
    assert (picture[:, : size[1] // 2] == HELIX[0]).all() or min(size) < 100
    assert (picture[:, 3 * size[1] // 4 :] != HELIX[0]).any()


def test_a_scale_bar_is_refused_where_it_cannot_be_read():
    with pytest.raises(ValueError, match="40 x 40 pixels, got 30 x 200"):
        color_depth(np.ones((200, 30)), 1, 2, scale_bar=True)


def test_round_numbers_are_round_within_the_ends_and_few():
    for near, far in np.random.default_rng(0).uniform(0.01, 50, (200, 2)):
        low, high = sorted((near, far + 60))
        numbers = scale_bar.round_numbers(low, high, False)
        assert 2 <= len(numbers) <= 9
        assert low - 1e-9 <= numbers[0] < numbers[-1] <= high + 1e-9
        assert all(len(f"{number:.10g}".replace(".", "").strip("0")) <= 3 for number in numbers)
    assert scale_bar.round_numbers(0.3, 30, True) == [0.5, 1, 2, 5, 10, 20]


def test_normals_are_half_themselves_plus_a_half():
    normals = np.array([[[1.0, 0, 0], [0, -3, 0], [0, 0, 0], [np.nan, 0, 1]]])
    assert color_normals(normals).tolist() == [[[255, 128, 128], [128, 0, 128], [GREY] * 3, [GREY] * 3]]
    assert color_normals(torch.tensor(normals), np.array([[0.0, 1, 1, 1]]))[0, 0].tolist() == [GREY] * 3


def test_side_by_side_adds_nothing():
    left, right = np.full((5, 4, 3), 10, np.uint8), torch.full((5, 3, 3), 1.0)
    picture = side_by_side([left, right])
    assert picture.shape == (5, 7, 3)
    assert (picture[:, :4] == 10).all()
    assert (picture[:, 4:] == 255).all()
    for pictures in ([], [left, left[1:]], [left[..., 0]]):
        with pytest.raises(ValueError, match="of one height"):
            side_by_side(pictures)


def test_odd_pictures_repeat_their_edge_and_even_ones_stay():
    picture = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
    padded = pad_to_even(picture)
    assert padded.shape == (6, 4, 3)
    assert (padded[:5, :3] == picture).all()
    assert (padded[5] == padded[4]).all()
    assert (padded[:, 3] == padded[:, 2]).all()
    even = np.zeros((4, 6, 3), np.uint8)
    assert pad_to_even(even) is even


def test_large_pictures_are_made_by_rows(monkeypatch):
    """As they would be at once, and beside the bytes only some rows are in memory as floats."""
    random = np.random.default_rng(0)
    shape = (300, 200)
    depth, opacity = random.uniform(-1, 5, shape).astype(np.float32), random.uniform(-0.1, 1.1, shape).astype(np.float32)
    normals, color = random.normal(size=(2, *shape, 3)).astype(np.float32)
    makers = (
        lambda: colors.to_bytes(color),
        lambda: colors.color_depth(depth, 1, 4, opacity),
        lambda: colors.color_normals(normals, opacity),
    )
    at_once = [make() for make in makers]
    monkeypatch.setattr(colors, "AT_ONCE", 5 * 200 * 3)
    for make, whole in zip(makers, at_once, strict=True):
        tracemalloc.start()
        found = make()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found == whole).all()
        assert peak < 3 * found.nbytes
