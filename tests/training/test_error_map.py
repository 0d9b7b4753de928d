"""Drawing pixels by error: stated chances are the true ones, and weights by them leave every mean what it was."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from taichi_nerf.training.error_map import REMEMBERED, TILE, ErrorMap
from taichi_nerf.training.pixel_batches import pack_pictures

SIZES = {"odd": [(33, 17)] * 2, "mixed": [(5, 3), (40, 20), (16, 16), (1, 37)]}


def of_sizes(sizes):
    pictures = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    return ErrorMap(pack_pictures(pictures, np.array(sizes), range(len(sizes))))


def learnt(sizes, seed=0):
    """A map with random errors in its tiles."""
    errors = of_sizes(sizes)
    errors.errors.copy_(torch.rand(len(errors.errors), generator=torch.Generator().manual_seed(seed)) ** 3)
    return errors


def tiles_by_hand(sizes):
    """The tile of every pixel, row by row, view after view."""
    found, first = [], 0
    for width, height in sizes:
        n_columns, n_rows = -(-width // TILE), -(-height // TILE)
        found += [first + y // TILE * n_columns + x // TILE for y in range(height) for x in range(width)]
        first += n_columns * n_rows
    return torch.tensor(found)


@pytest.mark.parametrize("sizes", SIZES)
def test_every_pixel_is_in_the_tile_around_it(sizes):
    errors = of_sizes(SIZES[sizes])
    by_hand = tiles_by_hand(SIZES[sizes])
    assert torch.equal(errors.tile_of(torch.arange(len(by_hand))), by_hand)
    assert len(errors.errors) == by_hand.max() + 1
    assert torch.equal(errors.area.long(), by_hand.bincount())


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pixels_are_drawn_as_often_as_is_stated(sizes, share):
    """Chi squared over all pixels, n - 1 degrees of freedom: within five of its deviations."""
    errors, n_pixels = learnt(SIZES[sizes]), len(tiles_by_hand(SIZES[sizes]))
    index, chances = errors.draw(400 * n_pixels, share, torch.Generator().manual_seed(1))
    counts = index.bincount(minlength=n_pixels)
    stated = torch.zeros(n_pixels).index_put((index,), chances)  # of all that were drawn
    drawn = counts > 0
    expected = stated[drawn].double() * 400
    chi_squared = ((counts[drawn] - expected) ** 2 / expected)[expected > 5].sum()
    n = int((expected > 5).sum())
    assert abs(chi_squared - n) < 5 * np.sqrt(2 * n)
    assert abs(stated.sum() / n_pixels - 1) < 0.02  # chances are relative to an even draw


@pytest.mark.parametrize("sizes", SIZES)
def test_weighting_by_the_inverse_of_chances_leaves_the_mean_unbiased(sizes):
    errors, n_pixels = learnt(SIZES[sizes]), len(tiles_by_hand(SIZES[sizes]))
    values = torch.rand(n_pixels, generator=torch.Generator().manual_seed(2)).double()
    index, chances = errors.draw(400_000, 0.5, torch.Generator().manual_seed(3))
    terms = values[index] / chances
    assert abs(terms.mean() - values.mean()) < 5 * terms.std() / 400_000**0.5
    assert chances.min() >= 0.5 - 1e-6  # what is drawn evenly bounds the weights


def test_errors_are_what_a_decaying_mean_makes_of_them():
    errors = of_sizes([(33, 17)])
    index = torch.tensor([0, 1, 40, 20])  # tiles 0, 0, 0 (second row) and 1
    errors.learn(index, torch.tensor([0.2, 0.4, 0.6, 0.1]))
    kept = REMEMBERED**3
    expected = torch.ones(6)
    expected[0], expected[1] = kept + (1 - kept) * 0.4, REMEMBERED + (1 - REMEMBERED) * 0.1
    torch.testing.assert_close(errors.errors, expected)


def test_a_map_learns_where_the_error_is():
    errors, generator = of_sizes([(64, 64)]), torch.Generator().manual_seed(4)
    for _ in range(50):
        index, _ = errors.draw(500, 0.5, generator)
        x, y = index % 64, index // 64
        errors.learn(index, torch.where((x < 16) & (y < 16), 1.0, 0.01))
    index, _ = errors.draw(20_000, 1.0, generator)
    share = ((index % 64 < 16) & (index // 64 < 16)).float().mean()
    assert abs(share - 1 / (1 + 15 * 0.01)) < 0.02


def test_an_error_that_is_not_a_number_is_not_learnt():
    errors = of_sizes([(16, 16)])
    errors.learn(torch.tensor([0, 1, 2]), torch.tensor([float("nan"), 0.5, float("inf")]))
    assert errors.errors.item() == pytest.approx(REMEMBERED + (1 - REMEMBERED) * 0.5)


def test_where_no_error_is_left_all_pixels_are_equally_likely():
    errors = of_sizes([(16, 16)])
    errors.errors.zero_()
    index, chances = errors.draw(1000, 1.0, torch.Generator().manual_seed(5))
    assert (chances == 1).all()
    assert index.unique().numel() > 200


def test_the_same_seed_draws_the_same():
    a, b = (learnt(SIZES["mixed"]).draw(500, 0.5, torch.Generator().manual_seed(6)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Sizes(TorchDispatchMode):
    """Notes how large the results of operations are, in-place ones left out."""

    def __init__(self, but):
        super().__init__()
        self.known, self.found = {tensor.data_ptr() for tensor in but}, []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        if isinstance(out, torch.Tensor) and out.data_ptr() not in self.known:
            self.found.append(out.numel())
        return out


def test_learning_touches_the_tiles_of_the_pixels_and_no_others():
    """Photographs have millions of tiles, a step thousands of pixels."""
    errors = of_sizes([(320, 320)] * 4)
    index = torch.arange(0, 100, 7)
    with Sizes([errors.errors, errors.sums, errors.counts]) as sizes:
        errors.learn(index, torch.ones(len(index)))
    assert max(sizes.found) <= 2 * len(index) < len(errors.errors)  # two numbers of each one's view
    assert not errors.sums.any()
    assert not errors.counts.any()
