"""Random pixels of many pictures."""

import numpy as np
import pytest
import torch

from taichi_nerf.training.pixel_batches import draw_pixels, draw_rows, pack_pictures, pixels_at

SIZES = {"same": [(7, 5)] * 4, "mixed": [(7, 5), (3, 8), (1, 1), (10, 2)]}
FULL = {np.uint8: 255, np.uint16: 65535, np.float16: 1, np.float32: 1}


def pictures(sizes, channels, dtype):
    generator = np.random.default_rng(0)
    values = [generator.integers(0, FULL[dtype], (h, w, channels), endpoint=True) for w, h in sizes]
    if FULL[dtype] == 1:
        values = [generator.uniform(0, 3, value.shape) for value in values]
    return [value.astype(dtype) for value in values]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", FULL)
def test_every_pixel_comes_with_its_place_view_and_color(sizes, channels, dtype):
    shown = pictures(SIZES[sizes], channels, dtype)
    views = [3, 1, 0]
    table = pack_pictures(shown, np.array(SIZES[sizes]), views)
    found = pixels_at(table, torch.arange(len(table.values), dtype=table.starts.dtype))
    expected_colors = np.concatenate([shown[v].reshape(-1, channels) for v in views]).astype(np.float32) / FULL[dtype]
    assert np.allclose(found.colors.numpy(), expected_colors, atol=1e-7)
    assert found.views.tolist() == [v for v in views for _ in range(shown[v].shape[0] * shown[v].shape[1])]
    for view, position, color in zip(found.views, found.positions, found.colors, strict=True):
        x, y = (position - 0.5).long().tolist()
        assert np.allclose(shown[view][y, x].astype(np.float32) / FULL[dtype], color, atol=1e-7)
    assert (found.views.dtype, found.colors.dtype) == (torch.int32, torch.float32)


def test_the_table_keeps_the_type_on_disk():
    table = pack_pictures(pictures(SIZES["same"], 3, np.uint8), np.array(SIZES["same"]), range(4))
    assert table.values.dtype == torch.uint8
    assert table.values.element_size() * table.values.numel() == 4 * 35 * 4


def test_all_pixels_are_equally_likely():
    """Chi squared over 91 pixels of pictures of four sizes: 90 degrees of freedom, so 90 ± 13."""
    table = pack_pictures(pictures(SIZES["mixed"], 1, np.uint8), np.array(SIZES["mixed"]), range(4))
    drawn = draw_pixels(table, 91_000, torch.Generator().manual_seed(1))
    names = [(int(v), float(x), float(y)) for v, (x, y) in zip(drawn.views, drawn.positions.tolist(), strict=True)]
    n_pixels = len(table.values)
    counts = np.unique(np.array(names), axis=0, return_counts=True)[1]
    assert len(counts) == n_pixels
    mean = 91_000 / n_pixels
    assert abs(((counts - mean) ** 2 / mean).sum() - (n_pixels - 1)) < 5 * np.sqrt(2 * n_pixels)


def test_the_same_seed_draws_the_same_pixels_and_none_is_fine():
    table = pack_pictures(pictures(SIZES["same"], 3, np.uint8), np.array(SIZES["same"]), range(4))
    a, b = (draw_pixels(table, 20_000, torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert draw_pixels(table, 0).colors.shape == (0, 3)


def test_alpha_is_1_where_some_pictures_have_none():
    mixed = [pictures([(7, 5)], 4, np.uint8)[0], pictures([(7, 5)], 3, np.uint8)[0]]
    table = pack_pictures(mixed, np.array([(7, 5)] * 2), [0, 1])
    assert table.n_channels == 4
    assert (pixels_at(table, torch.arange(35, 70, dtype=torch.int32)).colors[:, 3] == 1).all()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_pictures_of_all_kinds_go_together(order):
    """Grey of 8 bits, grey of 16 and a color: each keeps its brightness, whichever comes first."""
    grey, color = pictures([(7, 5)], 1, np.uint8)[0], pictures([(7, 5)], 3, np.uint8)[0]
    deep = pictures([(7, 5)], 1, np.uint16)[0]
    shown, truth = [grey, deep, color], [grey / 255, deep / 65535, color / 255]
    table = pack_pictures([shown[i] for i in order], np.array([(7, 5)] * 3), range(3))
    found = pixels_at(table, torch.arange(105, dtype=torch.int32)).colors.view(3, 5, 7, 3).numpy()
    for colors, i in zip(found, order, strict=True):
        assert np.allclose(colors, np.broadcast_to(truth[i], (5, 7, 3)), atol=0.5 / 255 + 1e-6)


def test_a_picture_of_another_size_is_named():
    color = pictures([(7, 5)], 3, np.uint8)[0]
    with pytest.raises(ValueError, match="view 1 is a picture of shape"):
        pack_pictures([color, color], np.array([(7, 5), (7, 6)]), [0, 1])
    with pytest.raises(ValueError, match="no views"):
        pack_pictures([color], np.array([(7, 5)]), [])


def drawn(sizes, n, **options):
    table = pack_pictures(pictures(sizes, 3, np.uint8), np.array(sizes), range(len(sizes)))
    return table, draw_rows(table, n, torch.Generator().manual_seed(3), **options)


def test_rows_are_even_over_all_pixels_or_all_of_one_picture():
    table, rows = drawn(SIZES["mixed"], 40_000)
    counts = torch.bincount(rows, minlength=len(table.values)).double()
    mean = 40_000 / len(table.values)
    assert ((counts - mean) ** 2 / mean).sum() < len(counts) + 4 * (2 * len(counts)) ** 0.5  # χ², four sigma
    views = {pixels_at(table, drawn(SIZES["mixed"], 50, one_view=True)[1]).views.unique().item() for _ in range(3)}
    assert len(views) == 1  # of one seed
    table, rows = drawn([(40, 30)] * 3, 300, one_view=True)
    assert len(pixels_at(table, rows).views.unique()) == 1
    assert len(rows.unique()) > 200


@pytest.mark.parametrize("one_view", [False, True])
def test_a_crop_keeps_to_the_middle_and_reaches_all_of_it(one_view):
    table, rows = drawn([(40, 20)] * 2, 20_000, one_view=one_view, share=0.5)
    found = pixels_at(table, rows)
    assert (found.positions.amin(0), found.positions.amax(0)) == (pytest.approx([10.5, 5.5]), pytest.approx([29.5, 14.5]))
    n_reached = len(rows.unique())
    assert n_reached == (200 if one_view else 400)
