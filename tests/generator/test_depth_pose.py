"""Depth and pose: geometry against closed forms, Monodepth2's sizes and folders, and a ball whose turn is known."""

import json
import math
from dataclasses import replace

import pytest
import torch

from taichi_nerf.generator.depth_pose import geometry
from taichi_nerf.generator.depth_pose import training as depth_pose_training
from taichi_nerf.generator.depth_pose.files import DepthPoseError, load_depth_pose, save_depth_pose
from taichi_nerf.generator.depth_pose.loss import photometric, reprojection_loss, smoothness, ssim_distance, warped
from taichi_nerf.generator.depth_pose.model import DepthPose, DepthPoseSettings
from taichi_nerf.generator.depth_pose.networks import DepthDecoder, Encoder, PoseDecoder
from taichi_nerf.generator.depth_pose.training import (
    BALL_RADIUS,
    BALL_SHARE,
    DepthPoseTraining,
    ball_of,
    draw,
    train_depth_pose,
)
from taichi_nerf.generator.directions import pca
from taichi_nerf.generator.turns import Turns
from taichi_nerf.metrics import ssim
from taichi_nerf.settings import OlderSettings

from turning_sphere import FIELD_OF_VIEW, TURN, Ball


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        parts = [Encoder(), DepthDecoder(Encoder().channels), Encoder(64, 2), PoseDecoder(512)]
    classifier = 512 * 1000 + 1000  # which the published encoders carry along
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    found = [counts[0] + classifier, counts[1], counts[2] + classifier, counts[3]]
    assert [n / 1e6 for n in found] == pytest.approx([11.69, 3.15, 11.70, 1.31], abs=0.006)


def test_parameters_are_named_as_in_monodepth2():
    assert "encoder.layer2.0.downsample.1.running_mean" in Encoder(8).state_dict()
    names = DepthDecoder(Encoder(8).channels).state_dict()
    assert "decoder.0.conv.conv.weight" in names
    assert "decoder.13.conv.bias" in names
    assert len(names) == 28
    assert "net.3.bias" in PoseDecoder(16).state_dict()


def test_disparity_spans_the_depths_evenly_in_their_inverses():
    depth = geometry.depth_of(torch.tensor([0.0, 0.5, 1.0]), 0.5, 2.0)
    assert depth.tolist() == pytest.approx([2.0, 0.8, 0.5])


def test_rotations_are_matrix_exponentials_and_have_gradients_at_zero():
    axis_angle = torch.cat([torch.randn(5, 3), 1e-5 * torch.randn(2, 3), torch.zeros(1, 3)]).double().requires_grad_()
    rotation = geometry.rotation_of(axis_angle)
    x, y, z = axis_angle.detach().unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).view(-1, 3, 3)
    assert torch.allclose(rotation, torch.linalg.matrix_exp(cross), atol=1e-10)
    rotation.sum().backward()
    assert axis_angle.grad.isfinite().all()


def test_six_numbers_and_motions_are_each_others_inverses():
    six = 0.5 * torch.randn(6, 6).double()
    motion = geometry.motion_of(six, 0.7)
    assert torch.allclose(geometry.six_of(motion, 0.7), six, atol=1e-9)
    eye = torch.eye(3, 4).double().expand(6, 3, 4)
    assert torch.allclose(geometry.chained(motion, geometry.inverted(motion)), eye, atol=1e-12)
    point = torch.randn(6, 3, 1).double()
    then = geometry.motion_of(0.5 * torch.randn(6, 6).double(), 0.0)
    apply = lambda m, p: m[:, :, :3] @ p + m[:, :, 3:]  # noqa: E731
    assert torch.allclose(apply(geometry.chained(motion, then), point), apply(then, apply(motion, point)))


def test_turning_leaves_the_pivot_where_it_is():
    motion = geometry.motion_of(torch.tensor([[0.1, 0.8, -0.3, 0, 0, 0]]), 1.0)
    assert torch.allclose(motion @ torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 0, 1]), atol=1e-6)


def test_the_warp_of_a_plane_is_its_homography(cpu):
    """A plane n·p = 1 seen by two cameras: pixels are related by K (R + t nᵀ) K⁻¹, whatever is painted on it."""
    size, focal = 64, 70.0
    k = torch.tensor([[focal, 0, 32], [0, focal, 32], [0, 0, 1]]).double()
    normal = torch.tensor([0.1, -0.15, 0.9]).double()
    motion = geometry.motion_of(torch.tensor([[0.03, -0.08, 0.05, 0.02, 0.01, -0.03]]).double(), 1.0)
    at = torch.arange(size).double() + 0.5
    pixels = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.ones(size, size).double()], -1)
    depth = 1 / (pixels @ torch.linalg.inv(k).T @ normal)
    homography = k @ (motion[0, :, :3] + motion[0, :, 3:] @ normal[None]) @ torch.linalg.inv(k)
    where = pixels @ homography.T
    where = where[..., :2] / where[..., 2:]
    paint = lambda p: torch.stack([p[..., 0] * 0.01, p[..., 1] * 0.01, (p[..., 0] + p[..., 1]) * 0.005])  # noqa: E731
    intrinsics = torch.tensor([[focal, focal, 32, 32]]).double()
    found, valid = warped(paint(pixels)[None], depth[None], motion, intrinsics)
    inside = ((where > 1) & (where < size - 1)).all(-1)
    assert inside.float().mean() > 0.6
    assert valid[0][inside].all()
    assert (found[0] - paint(where)).abs()[:, inside].max() < 1e-9


def test_equal_pictures_have_no_distance_and_others_ssims_own():
    a, b = torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 20)
    assert photometric(a, a).abs().max() < 1e-6
    assert ssim_distance(a, b).mean() > 0.2
    smooth = (a + 0.02 * b).clamp(0, 1)
    assert ssim_distance(a, smooth).mean() < 0.02
    assert (1 - ssim(a[0].permute(1, 2, 0), smooth[0].permute(1, 2, 0))) / 2 < 0.02


def test_what_stands_still_tells_nothing_and_the_better_source_counts():
    target = torch.rand(1, 3, 16, 16)
    worse, better = torch.rand(1, 3, 16, 16), target + 0.01
    loss, share = reprojection_loss(target, [worse, better], [worse, worse])
    assert share > 0.95
    assert loss < 0.05
    _, share = reprojection_loss(target, [worse, worse], [target, worse])
    assert share == 0


def test_smoothness_is_free_where_the_picture_has_an_edge():
    step = torch.ones(1, 1, 8, 8)
    step[..., 4:] = 2
    flat, edge = torch.zeros(1, 3, 8, 8), 10 * (step - 1).expand(1, 3, 8, 8)
    assert smoothness(step, edge) < 0.01 * smoothness(step, flat)
    assert smoothness(torch.ones(1, 1, 8, 8), flat) == 0


def test_folders_are_monodepth2s_and_come_back(tmp_path):
    torch.manual_seed(0)
    model = DepthPose(DepthPoseSettings(width=4, learn_focal=True)).eval()
    save_depth_pose(tmp_path / "nets", model)
    assert torch.load(tmp_path / "nets" / "encoder.pth", weights_only=True)["height"] == 64
    again = load_depth_pose(tmp_path / "nets")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert again.settings == model.settings
    assert torch.equal(again.depth(images), model.depth(images))
    first = torch.tensor([True, False])
    assert torch.equal(again.motion(images, images.flip(0), first), model.motion(images, images.flip(0), first))
    told = json.loads((tmp_path / "nets" / "settings.json").read_text())
    assert told.pop("shift") == 0
    (tmp_path / "nets" / "settings.json").write_text(json.dumps(told))
    with pytest.warns(OlderSettings, match=r"settings\.json: of an older version .* taken as shift = 1\.0$"):
        assert load_depth_pose(tmp_path / "nets").settings == replace(model.settings, shift=1.0)  # poses made all their shifts
    (tmp_path / "nets" / "settings.json").unlink()
    assert load_depth_pose(tmp_path / "nets").settings.farthest == 100.0  # as a folder of theirs
    torch.save({"net.0.weight": torch.zeros(1)}, tmp_path / "nets" / "pose.pth")
    with pytest.raises(DepthPoseError, match=r"pose\.pth: net\.0\.weight"):
        load_depth_pose(tmp_path / "nets")


def test_a_width_that_a_file_claims_costs_no_memory(tmp_path):
    """A million channels are the rows of one small matrix; the layers after it would have 10^12 weights each."""
    save_depth_pose(tmp_path, DepthPose(DepthPoseSettings(width=4)))
    (tmp_path / "settings.json").unlink()
    encoder = torch.load(tmp_path / "encoder.pth", weights_only=True)
    torch.save({**encoder, "encoder.conv1.weight": torch.zeros(10**6, 1)}, tmp_path / "encoder.pth")
    with pytest.raises(DepthPoseError, match=r"encoder.conv1.weight: expected shape \(1000000, 3, 7, 7\), it is \(1000000, 1\)"):
        load_depth_pose(tmp_path)


def test_depths_begin_as_a_ball_before_the_pivot():
    model = DepthPose(DepthPoseSettings(width=4, nearest=0.6, farthest=1.5))
    depth = model.depth_of(ball_of(model, 101))[0, 0]
    at = (torch.arange(101) + 0.5) / 101 * 2 - 1
    x, y = at / BALL_RADIUS, at[:, None] / BALL_RADIUS
    expected = 1 - BALL_SHARE * 0.4 * (1 - x**2 - y**2).clamp_min(0).sqrt()
    assert torch.allclose(depth, expected, atol=1e-5)
    assert (float(depth[50, 50]), float(depth[0, 0])) == pytest.approx((0.7, 1.0), abs=1e-3)


def test_the_order_of_a_pair_inverts_its_motion():
    model = DepthPose(DepthPoseSettings(width=4)).eval()
    a, b = torch.rand(2, 2, 3, 64, 64)
    forward = model.motion(a, b, torch.tensor([True, True]))
    back = model.motion(b, a, torch.tensor([False, False]))
    assert torch.allclose(geometry.chained(forward, back), torch.eye(3, 4).expand(2, 3, 4), atol=1e-5)


def a_short_training(monkeypatch, **training):
    """Its model; and of every step its rates and whether it was shown a ball."""
    made, seen = [], []
    optimiser_of, batch_loss = depth_pose_training.optimiser_of, depth_pose_training.batch_loss
    monkeypatch.setattr(depth_pose_training, "optimiser_of", lambda *given: made.append(optimiser_of(*given)) or made[0])

    def noted(*given):
        seen.append(([group["lr"] for group in made[0].param_groups], given[-1]))
        return batch_loss(*given)

    monkeypatch.setattr(depth_pose_training, "batch_loss", noted)
    turns = Turns(Ball(), pca(Ball(), 2000, 2), reach=1.5)
    settings = DepthPoseSettings(width=8, field_of_view=FIELD_OF_VIEW, nearest=0.65, farthest=1.35)
    model, _ = train_depth_pose(turns, settings, DepthPoseTraining(batch=2, n_subjects=4, **training))
    return model, seen


def test_every_weight_learns_that_of_poses_quicker_at_rates_that_end_at_a_tenth_and_from_a_ball(cpu, monkeypatch):
    model, seen = a_short_training(monkeypatch, steps=8, learning_rate=1e-3, pose_rate=5.0, ball_first=0.25)
    rates, balls = zip(*seen, strict=True)
    assert torch.allclose(torch.tensor(rates), torch.tensor([[1e-3, 5e-3]] * 6 + [[1e-4, 5e-4]] * 2))
    assert balls == (True,) * 2 + (False,) * 6
    torch.manual_seed(0)
    before = DepthPose(model.settings).state_dict()
    still = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    assert still == ["root_of_focal"]  # which is given, and learned only where that is asked for


class Marked:
    """In place of turns: an image's left half is marked with how far it is turned."""

    reach = 1.0

    def turned(self, codes, steps):
        return steps

    def images(self, steps):
        images = torch.full((len(steps), 3, 4, 4), -9.0)
        images[..., :2] = steps.view(-1, 1, 1, 1)
        return images


def test_in_the_mirror_the_order_of_a_turn_is_the_other_one():
    training = DepthPoseTraining(batch=200, neighbours=(0.2, 0.5))
    target, (before, after), firsts = draw(Marked(), torch.zeros(3, 1, 1), training, torch.Generator().manual_seed(0))
    is_mirrored = target[:, 0, 0, 0] == -9
    assert 60 < is_mirrored.sum() < 140
    at, lower, higher = (image.amax((1, 2, 3)) for image in (target, before, after))
    for apart in (at - lower, higher - at):
        assert (apart.min() > 0.199) & (apart.max() < 0.501)
    assert torch.equal(firsts[0], is_mirrored)
    assert torch.equal(firsts[1], ~is_mirrored)


def test_the_loss_has_smoothness_and_networks_see_jittered_pictures(cpu):
    """Without jitter it is the same for all random numbers; what smoothness adds grows with its weight."""
    turns = Turns(Ball(), pca(Ball(), 2000, 2), reach=1.5)
    model = DepthPose(DepthPoseSettings(width=4, field_of_view=FIELD_OF_VIEW)).eval()
    images = turns.images(turns.turned(turns.codes([0, 1, 2, 3]), torch.tensor([0.0, 0.2, -0.3, 0.4])))
    target, source, first = images[:2], images[2:], torch.tensor([True, False])

    def found(seed=0, **training):
        training = DepthPoseTraining(**{"jitter": 0.0, "smoothness": 0.0, **training})
        torch.manual_seed(5)
        drawn = depth_pose_training.batch_loss(model, target, [source], [first], training, torch.Generator().manual_seed(seed))
        return drawn[0].item()

    assert found(0) == found(1)
    assert found(0, jitter=0.3) != found(1, jitter=0.3)
    some, more = (found(smoothness=weight) - found() for weight in (1.0, 3.0))
    assert some > 1e-6
    assert more == pytest.approx(3 * some, rel=0.05)


def test_the_turn_of_a_ball_is_learned_from_its_pictures(cpu):
    """Nothing but images: the relative yaw has to come out, up to scale, also for balls and places that were not trained on."""
    ball = Ball()
    turns = Turns(ball, pca(ball, 20_000, 2), reach=1.5)
    settings = DepthPoseSettings(width=8, field_of_view=FIELD_OF_VIEW, nearest=0.65, farthest=1.35)
    training = DepthPoseTraining(steps=80, batch=4, learning_rate=2e-3, n_subjects=20, neighbours=(0.1, 0.4), smoothness=1e-3)
    model, told = train_depth_pose(turns, settings, training)
    assert told["steps"] == 80
    steps = torch.linspace(-1.2, 1.2, 9)
    with torch.no_grad():
        code = turns.codes([700])
        motions = model.motions_along(turns.images(turns.turned(code.expand(9, -1, -1), steps)), 4)
    yaw = geometry.axis_angle_of(motions[:, :, :3])[:, 1]
    truth = steps * TURN * turns.directions.deviations[0]
    correlation = torch.corrcoef(torch.stack([yaw, truth]))[0, 1].abs()
    assert correlation > 0.9
    with torch.no_grad():
        depths = model.depth(turns.images(turns.turned(code.expand(3, -1, -1), steps[3:6])))
    radius = (torch.stack(torch.meshgrid(*[torch.arange(64) - 31.5] * 2, indexing="xy"), -1)).norm(dim=-1)
    assert float(depths[:, radius < 6].mean()) < float(depths[:, (radius > 18) & (radius < 22)].mean())  # no hollow ball
    assert math.isfinite(told["loss"])
