"""Patches, and the cameras that patches are rendered by."""

import math

import numpy as np
import pytest
import torch
from ball_scene import RADIUS, views_of_ball
from torch.testing import assert_close

from taichi_nerf.priors.channels import inverse_depth
from taichi_nerf.priors.patch_cameras import (
    FOCAL,
    HEIGHT,
    WIDTH,
    PatchLens,
    moved_pose,
    random_slopes,
    random_window,
    small_turn,
    window_pixels,
)
from taichi_nerf.priors.patch_sources import axis_cosines, procedural_pictures, scene_pictures
from taichi_nerf.priors.patches import Augmentation, PatchSet, RgbdPicture, shrunk

PLAIN = Augmentation(False, 0.0, 0.0, 0.0)


def picture(color, inverse, alpha=None, focal=50.0):
    filled = torch.full(inverse.shape, 255, dtype=torch.uint8)
    return RgbdPicture(color, inverse.half(), filled if alpha is None else alpha, focal)


def test_a_patch_is_a_window_of_its_picture(generator):
    """At a picture's own focal length, pixel for pixel."""
    color = torch.randint(0, 256, (12, 15, 3), generator=generator).byte()
    inverse = torch.rand(12, 15, generator=generator)
    patches = PatchSet([picture(color, inverse)], 8, (50.0, 50.0), augmentation=PLAIN, nearest=1.0)
    both = torch.cat([color.float() / 255, inverse.half().float()[..., None]], -1).movedim(-1, 0)
    windows = both.unfold(1, 8, 1).unfold(2, 8, 1).flatten(1, 2).movedim(0, 1)  # [n, 4, 8, 8]
    for patch in (patches.draw(20, generator) + 1) / 2:
        assert (windows - patch).abs().amax((1, 2, 3)).min() < 2e-4  # colors are at least 1e-4


def test_wider_windows_are_averaged(generator):
    color = torch.randint(0, 256, (16, 16, 3), generator=generator).byte()
    patches = PatchSet([picture(color, torch.zeros(16, 16))], 8, (25.0, 25.0), "rgb", PLAIN)
    expected = color.float().view(8, 2, 8, 2, 3).mean((1, 3)).movedim(-1, 0) / 255
    assert_close((patches.draw(1, generator)[0] + 1) / 2, expected)


def test_nothing_is_far_away_and_of_one_color(generator):
    alpha = torch.zeros(8, 8, dtype=torch.uint8)
    alpha[:, 4:] = 255
    patches = PatchSet(
        [picture(torch.zeros(8, 8, 3).byte(), torch.full((8, 8), 0.5), alpha)], 8, (50.0, 50.0), augmentation=PLAIN, nearest=1.0
    )
    first, second = patches.draw(2, generator)
    assert_close(first[3, :, :4], torch.full((8, 4), -1.0))
    assert_close(first[3, :, 4:], torch.zeros(8, 4))
    assert_close(first[:3, :, :4], first[:3, :1, :1].expand(3, 8, 4))
    assert (first[:3, 0, 0] - second[:3, 0, 0]).abs().max() > 1e-3


def test_holes_in_depth_are_filled_and_larger_ones_avoided(generator):
    inverse = torch.full((8, 16), 0.4)
    inverse[:, 9:] = -1.0
    inverse[3, 3] = -1.0
    patches = PatchSet([picture(torch.zeros(8, 16, 3).byte(), inverse)], 8, (50.0, 50.0), "d", PLAIN, nearest=1.0)
    drawn = (patches.draw(30, generator) + 1) / 2
    assert_close(drawn, torch.full_like(drawn, 0.4), atol=1e-3, rtol=0)


def test_depth_is_cut_off_at_the_nearest(generator):
    inverse = torch.tensor([0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]).expand(8, 8)  # 1 / metres
    for nearest in (0.2, 1.0):
        patches = PatchSet([picture(torch.zeros(8, 8, 3).byte(), inverse)], 8, (50.0, 50.0), "d", PLAIN, nearest)
        expected = inverse_depth(1 / inverse, nearest)
        assert_close((patches.draw(1, generator)[0, 0] + 1) / 2, expected, atol=1e-3, rtol=0)
        assert_close(expected[0, -1], torch.tensor(1.0))


def test_pictures_finer_than_any_patch_are_shrunk_and_give_the_same_patches(generator):
    """Colors and depths of what is there, by how much of it there is: over any background that is the mean of the pixels."""
    color = torch.randint(0, 256, (24, 24, 3), generator=generator).byte()
    inverse = 0.1 + torch.rand(24, 24, generator=generator)
    alpha = (255 * (torch.rand(24, 24, generator=generator) < 0.7)).byte()
    fine = picture(color, inverse, alpha, focal=75.0)
    coarse = shrunk(fine, 3)
    assert (coarse.inverse.shape, coarse.focal) == ((8, 8), 25.0)
    share = alpha.float()[..., None] / 255
    over_grey = (share * color.float() + (1 - share) * 99).view(8, 3, 8, 3, 3).mean((1, 3))
    shown = coarse.alpha.float()[..., None] / 255
    assert_close(shown * coarse.color.float() + (1 - shown) * 99, over_grey, atol=1.0, rtol=0)  # they are whole numbers
    depth = (share[..., 0] * inverse.half().float()).view(8, 3, 8, 3).mean((1, 3))
    assert_close(shown[..., 0] * coarse.inverse.float(), depth, atol=5e-3, rtol=0)
    assert PatchSet([fine], 8, (20.0, 20.0)).pictures[0].focal == 25.0
    assert PatchSet([fine], 8, (20.0, 50.0)).pictures[0].focal == 75.0


def test_what_is_unknown_stays_unknown_in_a_shrunk_picture():
    inverse = torch.full((6, 6), 0.5)
    inverse[4, 1] = -1.0
    coarse = shrunk(picture(torch.zeros(6, 6, 3).byte(), inverse), 3).inverse
    assert_close(coarse.float(), torch.tensor([[0.5, 0.5], [-1.0, 0.5]]))
    uneven = shrunk(picture(torch.zeros(7, 6, 3).byte(), torch.full((7, 6), 0.5)), 3)
    assert uneven.inverse.shape == uneven.alpha.shape == (2, 2)


def test_augmented_patches_stay_within_bounds_and_keep_flat_depth_flat(generator):
    color = torch.randint(0, 256, (8, 8, 3), generator=generator).byte()
    patches = PatchSet([picture(color, torch.full((8, 8), 0.3))], 8, (50.0, 50.0), nearest=1.0)
    drawn = patches.draw(50, generator)
    assert drawn.abs().max() <= 1
    depth = (drawn[:, 3] + 1) / 2
    assert_close(depth, depth[:, :1, :1].expand_as(depth))
    assert depth.min() >= 0.3 * math.exp(-0.31)
    assert depth.max() <= 0.3 * math.exp(0.31)
    assert depth[:, 0, 0].std() > 0.01


def test_pictures_that_are_too_small_are_told_of():
    with pytest.raises(ValueError, match="no picture holds"):
        PatchSet([picture(torch.zeros(7, 7, 3).byte(), torch.zeros(7, 7))], 8, (50.0, 50.0))


@pytest.mark.parametrize("kind", ["z", "ray", "inverse"])
def test_depths_of_scenes_become_planar_metres(kind):
    """A ball in closed form; its pictures are the same whatever its depth maps hold."""
    scene, cameras = views_of_ball(n_views=2, size=32, depth_kind=kind)
    found = scene_pictures(scene, metric_scale=3.0)
    assert len(found) == 2
    middle = found[0].inverse[15, 15].float()  # half a pixel off the axis through the ball's centre
    distance = np.linalg.norm(cameras.centers[0]) - RADIUS
    assert middle.item() == pytest.approx(1 / (3 * distance), rel=2e-3)
    assert found[0].inverse[0, 0] == -1  # unknown
    assert found[0].focal == pytest.approx(1.4 * 32)


def test_a_wall_seen_along_rays_is_flat():
    """Hypersim's case: lengths of rays, times their cosine with the axis, are the wall's distance."""
    _, cameras = views_of_ball(n_views=1, size=16)
    y, x = np.mgrid[:16, :16] + 0.5
    slopes = np.stack([(x - 8) / 22.4, (y - 8) / 22.4, np.ones_like(x)], -1)
    lengths = 2.0 * np.linalg.norm(slopes, axis=-1)
    assert_close(torch.from_numpy(lengths.ravel() * axis_cosines(cameras)), torch.full((256,), 2.0, dtype=torch.float64))


def test_pictures_shrunk_as_they_come_give_the_patches_of_whole_ones():
    scene, _ = views_of_ball(n_views=2, size=64)
    whole, small = scene_pictures(scene), scene_pictures(scene, finest=8.0)
    assert [picture.inverse.shape for picture in small] == [(8, 8)] * 2
    assert not any(images._kept for images in (scene.images, scene.depths.images))
    drawn = [PatchSet(found, 4, (5.0, 8.0)) for found in (whole, small)]
    assert_close(*(patches.draw(8, torch.Generator().manual_seed(0)) for patches in drawn))
    assert drawn[0]._areas.tolist() == drawn[1]._areas.tolist() == [64.0 * 64] * 2


def test_scenes_without_depth_are_told_of():
    from dataclasses import replace

    scene, _ = views_of_ball(n_views=1)
    with pytest.raises(ValueError, match="no depth maps"):
        scene_pictures(replace(scene, depths=None))


def test_procedural_pictures_are_the_same_for_a_seed_and_of_scenes_that_nobody_measures(cpu, monkeypatch):
    from taichi_nerf.priors import patch_sources

    monkeypatch.setattr(patch_sources, "SIZE", (24, 16))
    monkeypatch.setattr(patch_sources, "FOCAL", 16.0)
    seeds = []
    describe = patch_sources.describe
    monkeypatch.setattr(patch_sources, "describe", lambda family, seed: seeds.append(seed) or describe(family, seed))
    first, second = (procedural_pictures("objects", 5, seed=0) for _ in range(2))
    assert min(seeds) >= 10_000
    assert len(set(seeds)) == 2
    for a, b in zip(first, second, strict=True):
        assert_close(a.color, b.color)
        assert_close(a.inverse, b.inverse)
    assert 0.1 < first[0].inverse.max() < 1  # one to ten metres


def test_turns_are_rotations_of_up_to_18_degrees(generator):
    turns = torch.stack([small_turn(generator) for _ in range(300)])
    assert_close(turns @ turns.mT, torch.eye(3).expand(300, 3, 3), atol=1e-5, rtol=0)
    angles = torch.rad2deg(torch.acos(((turns.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1)))
    assert 10 < angles.mean() < 18
    assert angles.max() <= 18.01
    assert turns.mean(0).sub(torch.eye(3)).abs().max() < 0.06  # no direction is preferred


def test_poses_move_by_up_to_20_centimetres(generator):
    pose = torch.eye(3, 4)
    shifts = torch.stack([moved_pose(pose, 2.0, generator)[:, 3] for _ in range(200)])
    assert shifts.abs().max() <= 0.1  # of units of two metres
    assert shifts.std(0).sub(0.2 / 12**0.5).abs().max() < 0.01


def test_windows_lie_anywhere_in_the_whole_picture_and_half_a_patch_around(generator):
    lens = PatchLens(48, FOCAL)
    first = torch.stack([random_slopes(lens, generator)[0] for _ in range(2000)]) * FOCAL + torch.tensor([128, 96])
    assert_close(first.amin(0), torch.tensor([-23.5, -23.5]), atol=1.0, rtol=0)
    assert_close(first.amax(0), torch.tensor([256 - 23.5, 192 - 23.5]), atol=1.0, rtol=0)
    theirs = torch.stack([random_slopes(lens, generator, "repo")[0] for _ in range(2000)]) * FOCAL + torch.tensor([128, 96])
    assert_close(theirs[:, 1].max(), torch.tensor(192 - 48 + 0.5), atol=1.0, rtol=0)


def test_wide_patches_lie_outside_of_the_picture_no_further_than_narrow_ones(generator):
    """What no camera saw is nobody's to judge."""
    lens, narrow = PatchLens(24, 24.0), PatchLens(48, FOCAL)
    assert lens.margin == narrow.margin == pytest.approx(24 / FOCAL)
    slopes = torch.stack([random_slopes(lens, generator) for _ in range(500)])
    assert_close(slopes.amax((0, 1))[0], torch.tensor(WIDTH / 2 + narrow.margin - 0.5 / 24), atol=0.02, rtol=0)


def test_patches_of_other_sizes_look_at_the_same_angle(generator):
    slopes = random_slopes(PatchLens(24, FOCAL / 2), generator)
    assert_close(slopes.amax(0) - slopes.amin(0), torch.full((2,), 23 / (FOCAL / 2)))
    assert pytest.approx(4 / 3) == WIDTH / HEIGHT


@pytest.mark.parametrize(("focal", "size"), [((300.0, 310.0), (400, 300)), ((60.0, 60.0), (64, 48)), ((500.0, 500.0), (100, 40))])
def test_windows_of_images_lie_inside_of_them(generator, focal, size):
    """Also where the image sees less than the patch would: then the patch is as narrow as it."""
    lens = PatchLens(24, 87.5)
    starts = []
    for _ in range(100):
        window = random_window(lens, focal, size, generator)
        pixels = window_pixels(lens, window)
        low, high = pixels.amin(0), pixels.amax(0)
        half = torch.tensor([window.across, window.down]) / 2
        assert (low - half >= -1e-3).all()
        assert (high + half <= torch.tensor(size) + 1e-3).all()
        assert window.across <= focal[0] / lens.focal + 1e-6
        starts.append(low)
    room = torch.tensor(size) - 24 * torch.tensor([window.across, window.down])
    assert_close(torch.stack(starts).amax(0) - torch.stack(starts).amin(0), room, rtol=0.1, atol=0.1)
