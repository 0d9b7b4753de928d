"""The camera rig against cameras in 64 bits, finite differences, and motions of the whole scene."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.cameras import FISHEYE, OPENCV, PINHOLE, make_cameras
from taichi_nerf.trajectories import look_at

N = 6


def cameras(models=PINHOLE, distortion=None):
    random = np.random.default_rng(0)
    positions = 3 * random.normal(size=(N, 3))
    poses = look_at(positions, random.normal(size=(N, 3)) / 5, np.array([0.0, 0, 1]))
    intrinsics = np.array([60.0, 55.0, 32.0, 24.0]) + random.normal(size=(N, 4))
    return make_cameras(poses, intrinsics, (64, 48), models, distortion)


def pixels_and_views(n=200):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(n, 2, generator=generator) * torch.tensor([64.0, 48.0])
    return pixels, torch.randint(N, (n,), generator=generator).int()


def random_rotation(random, angle=None):
    axis = random.normal(size=3)
    axis = axis / np.linalg.norm(axis) * (random.uniform(0.1, 1) if angle is None else angle)
    return torch.linalg.matrix_exp(torch.tensor(np.cross(np.eye(3), axis).T.copy()))


def disturbed(rig, size, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rig.turns.copy_(size * torch.randn(N, 3, generator=generator))
        rig.shifts.copy_(size * torch.randn(N, 3, generator=generator))


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize(
    ("models", "distortion"),
    [(PINHOLE, None), (OPENCV, [0.1, -0.02, 0, 0, 0, 0, 1e-3, -2e-3]), (FISHEYE, [0.05, 0.01, 0, 0, 0, 0, 0, 0])],
)
def test_without_corrections_rays_are_those_of_the_given_cameras(backend, models, distortion, refined):
    given = cameras(models, distortion)
    rig = CameraRig(given, refined, refined)
    pixels, views = pixels_and_views()
    rays = rig.rays(pixels, views)
    for view in range(N):
        chosen = views == view
        origins, directions = given.rays(view, pixels[chosen].numpy())
        assert_close(rays.origins[chosen].detach().double(), torch.tensor(origins), atol=1e-6, rtol=1e-6)
        assert_close(rays.directions[chosen].detach().double(), torch.tensor(directions), atol=2e-6, rtol=0)


def test_corrections_turn_a_camera_about_its_centre_and_move_it():
    """By 90° about the vertical axis; and along where it looks, which does not turn it."""
    rig = CameraRig(cameras(), refine_poses=True)
    poses, given = rig.poses, rig.camera_to_worlds
    with torch.no_grad():
        rig.turns[2] = torch.tensor([0, 0, np.pi / 2])
        rig.shifts[2] = 0.5 * given[2, :, 2]
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert_close(poses()[2, :, :3], quarter @ given[2, :, :3], atol=1e-6, rtol=0)
    assert_close(poses()[2, :, 3], given[2, :, 3] + 0.5 * given[2, :, 2])
    others = [0, 1, 3, 4, 5]
    assert_close(poses()[others], given[others], atol=1e-6, rtol=0)


def test_a_camera_that_moves_keeps_what_it_looks_at_in_its_middle():
    """To first order: a hundredth of the distance sideways leaves less than a thousandth of it, not a hundredth."""
    rig = CameraRig(cameras(), refine_poses=True)
    given = rig.camera_to_worlds
    looked_at = given[:, :, 3] + rig.distance * given[:, :, 2]
    with torch.no_grad():
        rig.shifts.copy_(0.01 * rig.distance * (given[:, :, 0] + 2 * given[:, :, 1]))
    poses = rig.poses()
    assert_close(poses[:, :, 3], given[:, :, 3] + rig.shifts)
    across = torch.einsum("nij,ni->nj", poses[:, :, :3], looked_at - poses[:, :, 3])[:, :2]
    assert across.norm(dim=-1).max() < 1e-3 * rig.distance


def test_one_focal_length_factor_is_for_all():
    rig = CameraRig(cameras(), refine_intrinsics=True)
    with torch.no_grad():
        rig.log_focal.fill_(np.log(1.1))
    assert_close(rig.lenses()[:, :2], 1.1 * rig.intrinsics[:, :2])
    assert torch.equal(rig.lenses()[:, 2:], rig.intrinsics[:, 2:])


def test_only_what_is_refined_is_a_parameter():
    sizes = {(p, i): sum(x.numel() for x in CameraRig(cameras(), p, i).parameters()) for p in (0, 1) for i in (0, 1)}
    assert sizes == {(0, 0): 0, (0, 1): 1, (1, 0): 6 * N, (1, 1): 6 * N + 1}
    assert not CameraRig(cameras()).is_refined


def test_gradients_of_corrections_are_those_of_finite_differences(cpu):
    """In 64 bits, at corrections that are not zero."""
    rig = CameraRig(cameras(), True, True).double()
    disturbed(rig, 0.1)
    pixels, views = pixels_and_views(30)
    pixels = pixels.double()

    def rays(turns, shifts, log_focal):
        named = {"turns": turns, "shifts": shifts, "log_focal": log_focal}
        return torch.func.functional_call(_Rays(rig), {f"rig.{name}": value for name, value in named.items()}, (pixels, views))

    corrections = [x.detach().clone().requires_grad_() for x in (rig.turns, rig.shifts, rig.log_focal + 0.1)]
    assert torch.autograd.gradcheck(rays, corrections)


class _Rays(torch.nn.Module):
    def __init__(self, rig):
        super().__init__()
        self.rig = rig

    def forward(self, pixels, views):
        rays = self.rig.rays(pixels, views)
        return rays.origins, rays.directions


@pytest.mark.parametrize("seed", range(4))
def test_other_cameras_follow_a_motion_of_the_whole_scene(seed):
    """Against the scene moved in 64 bits."""
    random = np.random.default_rng(seed)
    given = cameras()
    rig = CameraRig(given, refine_poses=True).double()
    rotation, translation = random_rotation(random), random.normal(size=3)
    wanted = torch.tensor(given.moved(random.uniform(0.5, 2), rotation.numpy(), translation).camera_to_worlds)
    seen, others = [0, 1, 2, 4], [3, 5]
    rig.take(wanted[seen], torch.tensor(seen))
    assert (rig.poses()[others] - wanted[others]).abs().max() > 0.1
    rig.carry_along(torch.tensor(seen))
    assert_close(rig.poses().detach(), wanted, atol=1e-5, rtol=0)  # given poses have 32 bits


def test_cameras_that_turned_to_a_scene_in_another_place_take_the_others_there():
    """Seven look at the middle from all around, then past it at u, from where they are: so does an eighth, which follows them."""
    corners = np.array([[x, y, z] for x in (-2.0, 2) for y in (-2.0, 2) for z in (-2.0, 2)])
    place, up = np.array([0.03, -0.05, 0.04]), np.array([0.0, 0, 1])
    rig = CameraRig(make_cameras(look_at(corners, np.zeros(3), up), np.array([60.0, 60, 32, 24]), (64, 48)), True).double()
    seen = torch.arange(7)
    rig.take(torch.tensor(look_at(corners, place, up))[seen], seen)
    rig.carry_along(seen)
    pose = rig.poses()[7].detach().numpy()
    misses = np.linalg.norm(np.cross(pose[:, 2], place - pose[:, 3]))
    given = rig.camera_to_worlds[7].numpy()
    assert misses < 0.1 * np.linalg.norm(np.cross(given[:, 2], place - given[:, 3]))


def test_cameras_that_only_turn_on_the_spot_keep_their_scale():
    random = np.random.default_rng(4)
    poses = look_at(np.tile([1.0, 2, 0.5], (N, 1)), random.normal(size=(N, 3)), np.array([0.0, 0, 1]))
    rig = CameraRig(make_cameras(poses, np.array([60.0, 55, 32, 24]), (64, 48)), refine_poses=True).double()
    rotation = random_rotation(random)
    wanted = torch.cat([rotation @ torch.tensor(poses[:, :, :3]), torch.tensor(poses[:, :, 3:])], -1)
    rig.take(wanted[:5], torch.arange(5))
    rig.carry_along(torch.arange(5))
    assert_close(rig.poses()[5, :, :3].detach(), wanted[5, :, :3], atol=1e-6, rtol=0)
    assert_close(rig.poses()[5, :, 3].detach(), torch.tensor(poses[5, :, 3]), atol=1e-6, rtol=0)


def test_carrying_others_along_leaves_the_views_of_training_alone_and_does_not_add_up():
    rig = CameraRig(cameras(), refine_poses=True)
    disturbed(rig, 0.1)
    before = rig.turns.detach().clone(), rig.shifts.detach().clone()
    rig.carry_along(torch.tensor([0, 1]))  # two cameras do not tell a motion of the scene from their own
    assert torch.equal(rig.turns, before[0])
    rig.carry_along(torch.tensor([0, 1, 2, 3]))
    for now, then in zip((rig.turns, rig.shifts), before, strict=True):
        assert torch.equal(now[:4], then[:4])
        assert not torch.equal(now[4:], then[4:])
    once = rig.poses().detach().clone()
    rig.carry_along(torch.tensor([0, 1, 2, 3]))
    assert_close(rig.poses().detach(), once, atol=1e-6, rtol=0)
