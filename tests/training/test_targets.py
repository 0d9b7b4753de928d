"""What pixels should look like, against the pictures themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball
from torch.testing import assert_close

from taichi_nerf.scenes.images import Images
from taichi_nerf.scenes.scene_data import Depths
from taichi_nerf.training.targets import Targets

CPU = torch.device("cpu")
VIEWS = [2, 0]


def in_memory(pictures):
    return Images([None] * len(pictures), arrays=pictures)


def all_of(scene, masks_are_alpha=False, with_depth=False, chances=None):
    targets = Targets.of(scene, VIEWS, masks_are_alpha, with_depth, CPU)
    return targets.at(torch.arange(len(targets)), chances)


def rows(pictures):
    return torch.from_numpy(np.concatenate([np.asarray(pictures[v]).reshape(-1, pictures[v].shape[-1]) for v in VIEWS]))


@pytest.fixture(scope="module")
def scene():
    return views_of_ball(3, 8)[0]


def test_every_pixel_has_the_color_alpha_place_and_view_of_the_file(scene):
    batch = all_of(replace(scene, masks=None))
    on_disk = rows(scene.images).float() / 255
    assert_close(batch.color, on_disk[:, :3])
    assert_close(batch.alpha, on_disk[:, 3])
    assert batch.weight is batch.depth is None
    assert batch.views.tolist() == [2] * 64 + [0] * 64
    assert batch.positions[9].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_without_alpha_are_filled(scene, channels):
    pictures = [np.full((8, 8, channels), 40 * i, np.uint8) for i in range(3)]
    batch = all_of(replace(scene, images=in_memory(pictures), masks=None))
    assert batch.alpha is None
    assert_close(batch.color, rows(pictures).expand(-1, 3).float() / 255)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("masks_are_alpha", [True, False])
def test_masks_that_hide_all_that_is_trained_on_are_an_error(scene, kind, masks_are_alpha):
    """Else every error would count zero, and training would tell of 100 dB."""
    masks = [np.zeros((8, 8, 1), kind) for _ in range(3)]
    masks[1][:] = 1  # of a view that is not trained on
    with pytest.raises(ValueError, match="ball: its masks hide every pixel of the views that are trained on"):
        all_of(replace(scene, masks=in_memory(masks)), masks_are_alpha)
    masks[2][7, 7] = 1
    all_of(replace(scene, masks=in_memory(masks)), masks_are_alpha)


def test_a_mask_is_either_how_much_is_there_or_what_is_known(scene):
    """As alpha it multiplies the picture's own; else it takes pixels out of the loss."""
    half = replace(scene, masks=in_memory([np.full((8, 8, 1), 51, np.uint8)] * 3))
    own = rows(scene.images)[:, 3].float() / 255
    as_alpha, ignored = all_of(half, masks_are_alpha=True), all_of(half)
    assert_close(as_alpha.alpha, 0.2 * own)
    assert as_alpha.weight is None
    assert_close(ignored.alpha, own)
    assert_close(ignored.weight, torch.full((128,), 0.2))
    plain = replace(half, images=in_memory([scene.images[v][..., :3].copy() for v in range(3)]))
    assert_close(all_of(plain, masks_are_alpha=True).alpha, torch.full((128,), 0.2))
    assert all_of(plain).alpha is None


def test_pixels_that_are_drawn_more_often_count_less(scene):
    chances = torch.rand(128, generator=torch.Generator().manual_seed(0)) + 0.5
    inside = rows(scene.masks)[:, 0].float() / 255
    assert_close(all_of(replace(scene, masks=None), chances=chances).weight, 1 / chances)
    assert_close(all_of(scene, chances=chances).weight, inside / chances)


def test_pictures_of_several_sizes_can_be_drawn_from(scene):
    sizes = np.array([(8, 8), (8, 8), (5, 3)])
    pictures = [scene.images[0], scene.images[1], scene.images[2][:3, :5]]
    mixed = replace(scene, cameras=replace(scene.cameras, sizes=sizes), images=in_memory(pictures), masks=None)
    assert_close(all_of(mixed).color, rows(pictures)[:, :3].float() / 255)
    assert all_of(mixed).views.tolist() == [2] * 15 + [0] * 64


@pytest.mark.parametrize("kind", ["ray", "z", "inverse"])
def test_depths_are_in_scene_units_and_inverse_ones_are_turned_over(kind):
    """A ray depth stays one along the ray; both others are along the axis."""
    scene, _ = views_of_ball(3, 8, kind)
    truth, _ = views_of_ball(3, 8, "z" if kind == "inverse" else kind)
    batch = all_of(scene, with_depth=True)
    assert_close(batch.depth, rows(truth.depths.images)[:, 0], rtol=1e-6, atol=0)
    assert (batch.depth > 0).sum() == (rows(scene.masks) > 0).sum() > 10


def test_what_was_not_measured_has_depth_zero(scene):
    stored = np.full((8, 8, 1), 2000, np.uint16)
    stored[0, 0], stored[0, 1], stored[1, 0] = 65535, 0, 1000
    maps = Depths(in_memory([stored] * 3), 0.001, "z", 65535, np.array([False, False, True]))
    depth = all_of(replace(scene, depths=maps, masks=None), with_depth=True).depth
    assert not depth[:64].any()  # view 2 has no map
    expected = torch.full((64,), 2.0)
    expected[0], expected[1], expected[8] = 0, 0, 1
    assert_close(depth[64:], expected)
    odd = np.array([[np.nan, np.inf], [-1, 3]], np.float32)[..., None]
    maps = Depths(in_memory([odd] * 3), 1.0, "z", 0.0, np.zeros(3, bool))
    assert set(all_of(replace(scene, depths=maps, masks=None), with_depth=True).depth.tolist()) == {0.0, 3.0}


def test_a_map_of_another_size_is_read_at_the_nearest_pixel(scene):
    small = np.arange(1, 17, dtype=np.float32).reshape(4, 4, 1)
    maps = Depths(in_memory([small] * 3), 1.0, "z", 0.0, np.zeros(3, bool))
    depth = all_of(replace(scene, depths=maps, masks=None), with_depth=True).depth[:64].view(8, 8)
    assert torch.equal(depth, torch.from_numpy(small[..., 0].repeat(2, 0).repeat(2, 1)))


@pytest.mark.parametrize("masks_are_alpha", [False, True])
def test_what_a_mask_hides_has_no_known_depth(scene, masks_are_alpha):
    """A wall behind an object, somebody who walks through: there is a distance, but not of what is to be learned."""
    maps = Depths(in_memory([np.full((8, 8, 1), 2, np.uint8)] * 3), 1.0, "z", 0, np.zeros(3, bool))
    left = np.zeros((8, 8, 1), np.uint8)
    left[:, :4] = 255
    masked = replace(scene, depths=maps, masks=in_memory([left] * 3))
    depth = all_of(masked, masks_are_alpha, with_depth=True).depth.view(2, 8, 8)
    assert torch.equal(depth, torch.tensor([2.0, 0.0]).repeat_interleave(4).expand(2, 8, 8))
    assert bool((all_of(replace(masked, masks=None), with_depth=True).depth == 2).all())


def test_depth_is_read_only_when_it_is_wanted(scene):
    assert Targets.of(scene, VIEWS, False, False, CPU).depths is None
    assert Targets.of(replace(scene, depths=None), VIEWS, False, True, CPU).depths is None


def test_weights_of_views_keep_their_ratio_and_are_one_on_average(scene):
    """mip-NeRF's lossmult: a pixel of a smaller picture counts for those that it stands for."""
    batch = all_of(replace(scene, masks=None, weights=np.array([4.0, 9.0, 1.0])))
    assert_close(batch.weight, torch.tensor([0.4] * 64 + [1.6] * 64))
    both = all_of(replace(scene, weights=np.array([4.0, 9.0, 1.0])))
    assert_close(both.weight, batch.weight * all_of(scene).weight)


def test_pictures_in_the_tables_are_not_kept_a_second_time():
    scene = views_of_ball(3, 8)[0]
    Targets.of(scene, VIEWS, False, True, CPU)
    assert not any(images._kept for images in (scene.images, scene.masks, scene.depths.images))


def test_reading_tells_how_far_it_is_and_can_be_given_up(scene):
    told = []
    Targets.of(scene, VIEWS, False, False, CPU, lambda done, text: told.append(text))
    assert told == ["reading picture 1 of 2", "reading picture 2 of 2"]

    def give_up(done, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Targets.of(scene, VIEWS, False, False, CPU, give_up)
