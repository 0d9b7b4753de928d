"""Training the refiner: frozen generator, depth and pose, and pairs of a source and its turned images (sections 3.4 and 3.5)."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator as Random
from torch import Tensor

from taichi_nerf.generator.depth_pose.geometry import six_of
from taichi_nerf.generator.depth_pose.loss import warped
from taichi_nerf.generator.depth_pose.model import DepthPose
from taichi_nerf.generator.refiner.loss import turn_loss, visible_in_both, warp_loss
from taichi_nerf.generator.refiner.natural import NaturalMean
from taichi_nerf.generator.refiner.network import Refiner, RefinerSettings
from taichi_nerf.generator.turns import Turns
from taichi_nerf.report import Report, silent
from taichi_nerf.training.interrupt import ends

N_FOR_SPREAD = 4096  # codes whose standard deviation normalises all


@dataclass(frozen=True)
class RefinerTraining:
    """How it is trained. The paper: 800 subjects, 30 pairs each, λ_reg = λ_feat = 1."""

    steps: int = 1500
    batch: int = 16
    learning_rate: float = 5e-4
    n_subjects: int = 400
    n_pairs: int = 13  # turned images of a subject, over the whole reach
    warp: float = 1.0
    latent: float = 0.01  # λ_reg
    latent_share: float = 1.0  # of L_latent within λ_reg; 0 leaves it out
    feature: float = 1.0  # λ_feat, within λ_reg
    feature_resolution: int = 16
    turn: float = 3.5  # λ_turn
    natural: float = 0.4  # λ_nat
    clean_share: float = 0.5  # of the samples at t = 0, where the refiner is used; the others at any time


class Pairs(NamedTuple):
    """Subjects facing the camera, and the same turned; what frozen networks tell of them."""

    source_codes: Tensor  # [n, n_layers, w_dim]
    source_images: Tensor  # [n, 3, h, w]
    source_depths: Tensor  # [n, h, w]
    steps: Tensor  # [k] standard deviations
    motions: Tensor  # [n, k, 3, 4] from the source's camera to the turned one's
    masks: Tensor  # [n, k, h, w] pixels of the source that both see


@torch.no_grad()
def make_pairs(turns: Turns, model: DepthPose, seeds: list[int], n_turned: int,
               report: Report = silent) -> Pairs:  # fmt: skip
    """`n_turned` images of each seed over the reach of the turn, or one more: the source is among them."""
    steps = turns.positions(n_turned)
    n_turned, middle = len(steps), len(steps) // 2
    codes = turns.codes(seeds)
    found: list[list[Tensor]] = [[], [], [], []]
    for i, seed in enumerate(seeds):
        images = turns.images(turns.turned(codes[i : i + 1].expand(n_turned, -1, -1), steps.to(codes)))
        size = images.shape[-1]
        motions = model.motions_along(images, middle)
        depths = depths_of(model, images)
        source = images[middle : middle + 1]
        masks = visible_in_both(
            model, source.expand(n_turned, -1, -1, -1), images, depths[middle].expand(n_turned, size, size), depths, motions
        )
        for kept, value in zip(found, (source, depths[middle : middle + 1], motions[None], masks[None]), strict=True):
            kept.append(value)
        report((i + 1) / len(seeds), f"subject {seed}")
    source_images, source_depths, motions, masks = (torch.cat(kept) for kept in found)
    return Pairs(codes, source_images, source_depths, steps, motions, masks)


def depths_of(model: DepthPose, images: Tensor) -> Tensor:
    """[n, h, w] of images [n, 3, h, w], at their size."""
    depths = model.depth(images)
    size = images.shape[-1]
    if depths.shape[-1] == size:
        return depths
    return torch.nn.functional.interpolate(depths[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def train_refiner(
    turns: Turns,
    model: DepthPose,
    settings: RefinerSettings,
    training: RefinerTraining,
    pairs: Pairs,
    seed: int = 0,
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Refiner, dict[str, Any]]:
    """The running mean of the refiner, frozen, and how the training went."""
    random = Random().manual_seed(seed)
    device = pairs.source_codes.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        refiner = Refiner(settings).to(device)
    normalise(refiner, turns, random)
    natural = NaturalMean.of(turns, feature_resolution(turns, training), random) if training.natural else None
    average = copy.deepcopy(refiner).requires_grad_(False)
    optimiser = torch.optim.AdamW(refiner.parameters(), training.learning_rate, weight_decay=0.0)
    means: dict[str, float] = {}
    done = 0
    for step in range(training.steps):
        if ends(stop, step):
            break
        for group in optimiser.param_groups:  # a ramp down over the last half
            group["lr"] = training.learning_rate * min(1.0, 2 * (1 - step / training.steps))
        parts = batch_losses(turns, model, refiner, training, pairs, random, natural)
        total = training.warp * parts["warp"]
        total = total + training.latent * (training.latent_share * parts["latent"] + training.feature * parts["feature"])
        total = total + training.turn * parts["turn"] + training.natural * parts["natural"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(refiner.parameters(), 1.0)
        optimiser.step()
        decay = min(0.99, step / (step + 10))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), refiner.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        keep = min(0.98, step / (step + 1))
        means = {name: keep * means.get(name, 0.0) + (1 - keep) * float(value.detach()) for name, value in parts.items()}
        done = step + 1
        report(done / training.steps, f"step {done}: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    return average.eval(), {"steps": done, **means}


def normalise(refiner: Refiner, turns: Turns, random: Random) -> None:
    """Mean and spread of w, so that codes are of order one; and the direction of the turn."""
    generator = turns.generator
    refiner.turn.copy_(torch.nn.functional.normalize(turns.directions.yaw, dim=0))
    with torch.no_grad():
        z = torch.randn(N_FOR_SPREAD, generator.settings.z_dim, generator=random).to(refiner.mean.device)
        w = generator.mapping.w(z)
        refiner.mean.copy_(w.mean(0))
        refiner.deviation.copy_((w - w.mean(0)).square().mean().sqrt())


def feature_resolution(turns: Turns, training: RefinerTraining) -> int:
    return min(training.feature_resolution, turns.generator.settings.resolution)


def batch_losses(
    turns: Turns, model: DepthPose, refiner: Refiner, training: RefinerTraining, pairs: Pairs, random: Random,
    natural: NaturalMean | None,
) -> dict[str, Tensor]:  # fmt: skip
    """The losses of a batch of pairs."""
    n, device, layers = training.batch, pairs.source_codes.device, turns.layers
    subject = torch.randint(len(pairs.source_codes), (n,), generator=random)
    which = torch.randint(len(pairs.steps), (n,), generator=random)
    codes = pairs.source_codes[subject]
    turned = turns.turned(codes, pairs.steps[which].to(device))
    motion = pairs.motions[subject, which]
    w, edited = refiner.flat(codes, layers), refiner.flat(turned, layers)
    t = torch.randint(1, refiner.settings.n_times + 1, (n,), generator=random)
    t = torch.where(torch.rand(n, generator=random) < training.clean_share, 0, t).to(device)
    noise = torch.randn(edited.shape, generator=random).to(device)
    refined = refiner(w, refiner.noised(edited, t, noise), six_of(motion, model.settings.pivot), t)
    resolution = feature_resolution(turns, training)
    image, features = turns.generator.synthesis.with_features(refiner.unflat(refined, turned, layers), resolution)
    with torch.no_grad():
        wanted = turns.generator.synthesis.with_features(codes, resolution)[1]
    source = pairs.source_images[subject]
    size = source.shape[-1]
    warp = warped(image, pairs.source_depths[subject], motion, model.intrinsics(size, n))[0]
    still = image.new_zeros(())  # turned images are made where they count
    turn = turn_loss(model, model.seen(turns.images(turned)), model.seen(image)) if training.turn else still
    assert features is not None
    assert wanted is not None
    return {
        "warp": warp_loss(warp, source, pairs.masks[subject, which], 0.05),
        "latent": (refined - w).square().mean(),
        "feature": (features - wanted).square().mean(),
        "turn": turn,
        "natural": natural.loss(features[t == 0]) if natural is not None and bool((t == 0).any()) else still,
    }
