"""Learning depth and pose from a generator's turning objects, without labels (section 3.3 of the paper).

Each sample is an object at a random place of its turn, and two neighbours, one to each side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator as Random
from torch import Tensor
from torch.nn import functional

from taichi_nerf.generator.depth_pose.loss import reprojection_loss, smoothness, warped
from taichi_nerf.generator.depth_pose.model import DepthPose, DepthPoseSettings
from taichi_nerf.generator.turns import Turns
from taichi_nerf.optimiser import Adam
from taichi_nerf.report import Report, silent
from taichi_nerf.training.interrupt import ends

BALL_RADIUS = 0.7  # of half the image
BALL_SHARE = 0.75  # of what lies between the pivot and the nearest depth


@dataclass(frozen=True)
class DepthPoseTraining:
    """How it is trained. Published: learning rate 1e-4 for 15 of 20 epochs, then a tenth; batches of 12."""

    steps: int = 1500
    batch: int = 12
    learning_rate: float = 5e-4
    n_subjects: int = 200
    neighbours: tuple[float, float] = (0.15, 0.6)  # standard deviations from the target to a source, from and to
    smoothness: float = 1e-3
    jitter: float = 0.2  # of brightness and contrast, in what the networks see
    ball_first: float = 0.2  # share of the training in which depths are taught a ball, and poses turn it; published: 0
    pose_rate: float = 20.0  # of the pose network's last layer, times the learning rate; published: 1


def train_depth_pose(
    turns: Turns,
    settings: DepthPoseSettings,
    training: DepthPoseTraining,
    device: torch.device | str = "cpu",
    seed: int = 0,
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[DepthPose, dict[str, Any]]:
    """The networks, frozen, and how the training went."""
    random = Random().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DepthPose(settings).to(device)
        codes = turns.codes(list(range(training.n_subjects)))
        optimiser = optimiser_of(model, training)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, max(1, training.steps * 3 // 4), 0.1)
        total, share, done = 0.0, 0.0, 0
        for step in range(training.steps):
            if ends(stop, step):
                break
            target, sources, firsts = draw(turns, codes, training, random)
            as_ball = step < training.ball_first * training.steps and settings.pivot > settings.nearest
            loss, learned = batch_loss(model, target, sources, firsts, training, random, as_ball)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            keep = min(0.98, step / (step + 1))
            total, share = keep * total + (1 - keep) * float(loss.detach()), keep * share + (1 - keep) * learned
            done = step + 1
            report(done / training.steps, f"step {done}: loss {total:.4f}, {100 * share:.0f} % of pixels in use")
    return model.eval().requires_grad_(False), {"steps": done, "loss": total, "pixels_in_use": share}


def optimiser_of(model: DepthPose, training: DepthPoseTraining) -> Adam:
    """The pose network gives a hundredth of its last layer; that learns faster, since turns have to find their size early."""
    last = list(model.pose_decoder.net[-1].parameters())
    others = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in last)]
    rate = training.learning_rate
    groups: list[dict[str, Any]] = [{"params": others}, {"params": last, "lr": training.pose_rate * rate}]
    return Adam(groups, rate)


def ball_of(model: DepthPose, size: int) -> Tensor:
    """[1, 1, size, size] disparities of a ball around the pivot, before what is as far as the pivot.

    A turn to the left of what is near looks like a turn to the right of what is far: from flat depths, chance decides whether
    objects come out hollow. From a ball they come out as they are.
    """
    settings = model.settings
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    inside = (1 - (at.square() + at[:, None].square()) / BALL_RADIUS**2).clamp_min(0)
    depth = settings.pivot - BALL_SHARE * (settings.pivot - settings.nearest) * inside.sqrt()
    far = 1 / settings.farthest
    return ((1 / depth - far) / (1 / settings.nearest - far)).clamp(0, 1)[None, None].to(model.root_of_focal)


@torch.no_grad()
def draw(turns: Turns, codes: Tensor, training: DepthPoseTraining, random: Random) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Targets [n, 3, size, size], the neighbours before and after them, and whether the target comes first."""
    n = training.batch
    chosen = codes[torch.randint(len(codes), (n,), generator=random)]
    at = (2 * torch.rand(n, generator=random) - 1) * turns.reach
    low, high = training.neighbours
    offsets = low + (high - low) * torch.rand(2, n, generator=random)
    places = torch.cat([at, at - offsets[0], at + offsets[1]])
    images = turns.images(turns.turned(chosen.repeat(3, 1, 1), places)).chunk(3)
    device = images[0].device
    firsts = [torch.zeros(n, dtype=torch.bool, device=device), torch.ones(n, dtype=torch.bool, device=device)]
    mirrored = torch.rand(n, generator=random).to(device).view(n, 1, 1, 1) < 0.5
    target, *sources = (torch.where(mirrored, image.flip(3), image) for image in images)
    # In the mirror objects turn the other way round: the order of the turn is the other one, too.
    return target, sources, [first ^ mirrored.view(n) for first in firsts]


def batch_loss(
    model: DepthPose, target: Tensor, sources: list[Tensor], firsts: list[Tensor], training: DepthPoseTraining, random: Random,
    as_ball: bool = False,
) -> tuple[Tensor, float]:  # fmt: skip
    """The mean over four scales, each enlarged to full size; and the share of pixels in use at the largest.

    `as_ball`: warps see a ball instead of the depths, which are taught to be one.
    """
    target, *sources = (model.seen(image) for image in (target, *sources))
    n, _, size, _ = target.shape
    strength = training.jitter
    drawn = (1 + strength * (2 * torch.rand(2, n, 1, 1, 1, generator=random) - 1)).to(target)

    def jittered(image: Tensor) -> Tensor:
        mean = image.mean((1, 2, 3), keepdim=True)
        return (((image - mean) * drawn[0] + mean) * drawn[1]).clamp(0, 1)

    disparities = model.disparities(jittered(target))
    motions = [
        model.motion_seen(jittered(target), jittered(source), first) for source, first in zip(sources, firsts, strict=True)
    ]
    intrinsics, ball = model.intrinsics(size, n), ball_of(model, size) if as_ball else None
    loss, in_use = target.new_zeros(()), 0.0
    for scale, disparity in enumerate(disparities):
        full = functional.interpolate(disparity, size=(size, size), mode="bilinear", align_corners=False)
        if ball is not None:
            loss = loss + (full - ball).abs().mean()
            full = ball.expand_as(full)
        depth = model.depth_of(full)[:, 0]
        warps = [warped(source, depth, motion, intrinsics)[0] for source, motion in zip(sources, motions, strict=True)]
        reprojected, share = reprojection_loss(target, warps, sources)
        small = functional.interpolate(target, size=disparity.shape[2:], mode="area")
        loss = loss + reprojected + training.smoothness / 2**scale * smoothness(disparity, small)
        in_use = float(share) if scale == 0 else in_use
    return loss / len(disparities), in_use
