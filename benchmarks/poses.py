"""Disturb the cameras of a scene, train with `poses.refine`, and tell how near to the truth they come back.

    python -m taichi_nerf.benchmarks.poses --scene SCENE [--degrees 2] [--percent 2] [--seconds 120 | --steps N] [--json FILE]

Every training camera is turned about a random axis by `degrees` and moved in a random direction by `percent` of its distance to
the middle of the scene. What moves all cameras as one body is no error: the corrected cameras are laid over the true ones
by a similarity, and test views, which were not disturbed, are looked at through its inverse. Errors are told with the cameras'
centres laid over each other; for test views, what the cameras look at is. Turns that all cameras have in common stand for a
shift of the scene, which nothing but parallax tells from a shift of the centres.

No similarity lays all cameras exactly over the true ones. So test views are also looked at after their cameras alone were fitted
to their pictures, the field being left as it is (BARF, Lin et al. 2021, section 4.1), which is done to both runs alike.
"""

import argparse
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.cameras import Cameras
from taichi_nerf.metrics import psnr
from taichi_nerf.runtime import start
from taichi_nerf.scenes import SceneData, load_scene
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.methods import changed, choose
from taichi_nerf.training.ngp_model import NgpModel
from taichi_nerf.training.pictures import background_of, over, picture_by, truth_of_view
from taichi_nerf.training.targets import Targets
from taichi_nerf.training.trainer import Trainer

SimilarityParts = tuple[float, NDArray, NDArray]  # scale, rotation [3, 3], shift [3]


@dataclass(frozen=True)
class Result:
    degrees: float  # mean over the training views
    percent: float  # of their distance to the middle
    degrees_before: float
    percent_before: float
    psnr: float  # mean over the test views
    psnr_undisturbed: float
    fitted_psnr: float  # with the cameras of test views fitted
    fitted_psnr_undisturbed: float
    n_steps: int


def run(folder: Path, degrees: float, percent: float, budget: RunSettings, settings: list[str], device: torch.device) -> Result:
    scene = load_scene(folder)
    views = [int(view) for view in scene.splits["train"]]
    truth = scene.cameras.camera_to_worlds
    disturbed = disturb(truth, views, math.radians(degrees), percent / 100)
    _, before = errors(disturbed[views], truth[views])
    plain = train(scene, folder, budget, settings, device)
    trainer = train(with_poses(scene, disturbed), folder, budget, [*settings, "poses.refine=true"], device)
    found = trainer.model.rig.poses().detach().cpu().double().numpy()
    similarity, after = errors(found[views], truth[views])
    laid, true = moved(scene.cameras, by_sight(similarity, found[views], truth[views])), scene.cameras
    plain_psnr, psnr = test_psnr(plain, scene, true), test_psnr(trainer, scene, laid)
    fitted_plain, fitted = (test_psnr(made, scene, fit(made, scene, at)) for made, at in ((plain, true), (trainer, laid)))
    return Result(*after, *before, psnr, plain_psnr, fitted, fitted_plain, trainer.n_steps)


def disturb(poses: NDArray, views: list[int], angle: float, share: float, seed: int = 0) -> NDArray:  # [n, 3, 4]
    random, disturbed = np.random.default_rng(seed), poses.copy()
    for view in views:
        axis, way = (v / np.linalg.norm(v) for v in random.normal(size=(2, 3)))
        turn = torch.linalg.matrix_exp(torch.from_numpy(np.cross(np.eye(3), axis) * angle)).numpy()
        disturbed[view, :, :3] = turn @ poses[view, :, :3]
        disturbed[view, :, 3] += share * np.linalg.norm(poses[view, :, 3]) * way
    return disturbed


def errors(found: NDArray, truth: NDArray) -> tuple[SimilarityParts, tuple[float, float]]:
    """The similarity (scale, rotation, shift) that lays `found` over `truth`, and what is left: mean degrees, mean percent."""
    u, _, v = np.linalg.svd(sum(t[:, :3] @ f[:, :3].T for t, f in zip(truth, found, strict=True)))
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
    arms, wanted = ((p[:, :, 3] - p[:, :, 3].mean(0)) for p in (found, truth))
    arms = arms @ rotation.T
    scale = float((arms * wanted).sum() / (arms * arms).sum())
    shift = truth[:, :, 3].mean(0) - scale * rotation @ found[:, :, 3].mean(0)
    cosines = [(np.trace(t[:, :3].T @ rotation @ f[:, :3]) - 1) / 2 for t, f in zip(truth, found, strict=True)]
    left = scale * found[:, :, 3] @ rotation.T + shift - truth[:, :, 3]
    percent = 100 * np.linalg.norm(left, axis=-1) / np.linalg.norm(truth[:, :, 3], axis=-1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return (scale, rotation, shift), (float(angles.mean()), float(percent.mean()))


def with_poses(scene: SceneData, poses: NDArray) -> SceneData:
    return replace(scene, cameras=replace(scene.cameras, camera_to_worlds=poses))


def train(scene: SceneData, folder: Path, budget: RunSettings, settings: list[str], device: torch.device) -> Trainer:
    config, _ = choose(scene, SceneSettings(str(folder)), budget, device)
    trainer = Trainer(changed(config, settings), scene, device)
    trainer.warm_up()
    while not trainer.is_done:
        trainer.step()
    trainer.model.eval()
    return trainer


def by_sight(similarity: SimilarityParts, found: NDArray, truth: NDArray) -> SimilarityParts:
    """Its shift chosen anew: what lies in the middle of the found cameras' pictures, as far away as the middle of the scene, is
    laid over what lies there in the true ones', by least squares of what is left across the views."""
    scale, rotation, _ = similarity
    distance, ahead = np.median(np.linalg.norm(truth[:, :, 3], axis=-1)), truth[:, :, 2]
    looked_at = (scale * found[:, :, 3] + distance * found[:, :, 2]) @ rotation.T
    across = np.eye(3) - 0.99 * ahead[:, :, None] * ahead[:, None, :]
    left = np.einsum("nij,nj->i", across, truth[:, :, 3] + distance * ahead - looked_at)
    return scale, rotation, np.linalg.solve(across.sum(0), left)


def moved(cameras: Cameras, similarity: SimilarityParts) -> Cameras:
    """True cameras as the trained model has the world."""
    scale, rotation, shift = similarity
    return cameras.moved(1 / scale, rotation.T, -rotation.T @ shift / scale)


def fit(trainer: Trainer, scene: SceneData, cameras: Cameras, n_steps: int = 200, n_rays: int = 4096) -> Cameras:
    """The cameras of the test views corrected so that the field, which stays, explains their pictures best."""
    views, model = [int(view) for view in scene.splits["test"]], trainer.model
    model.rig = CameraRig(cameras, refine_poses=True).to(trainer.device)
    trainer.targets = Targets.of(scene, views, trainer.config.batch.masks == "alpha", False, trainer.device)
    trainer.errors = None
    if isinstance(model, NgpModel):
        model.rooms = None  # no step is left out here
    optimiser = torch.optim.Adam(model.rig.parameters(), lr=1e-3)
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = 1e-3 * 0.05 ** (step / n_steps)
        optimiser.zero_grad()
        trainer.compare(trainer.draw(n_rays)).loss.backward()
        optimiser.step()
    return replace(cameras, camera_to_worlds=model.rig.poses().detach().cpu().double().numpy())


def test_psnr(trainer: Trainer, scene: SceneData, cameras: Cameras) -> float:
    values = []
    for view in scene.splits["test"]:
        picture = picture_by(trainer.model, cameras, int(view))
        height, width = picture.opacity.shape
        background = background_of("white", height, width, 0)
        truth, alpha, _ = truth_of_view(scene, int(view), trainer.config.batch.masks == "alpha")
        values.append(
            psnr(over(picture.color.cpu(), picture.opacity.cpu(), background), torch.lerp(background, truth, alpha[..., None]))
        )
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--scene", type=Path, required=True)
    parser.add_argument("--degrees", type=float, default=2.0)
    parser.add_argument("--percent", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--steps", type=int, help="of each training, instead of seconds")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    keep_freed_memory()
    device = start(options.arch).torch_device
    budget = RunSettings(steps=options.steps) if options.steps else RunSettings(time_budget=options.seconds)
    found = run(options.scene, options.degrees, options.percent, budget, options.settings, device)
    print(f"before: {found.degrees_before:.2f}° and {found.percent_before:.2f} %")
    print(f"after {found.n_steps} steps: {found.degrees:.3f}° and {found.percent:.3f} %")
    print(f"test views: {found.psnr:.2f} dB; with cameras undisturbed {found.psnr_undisturbed:.2f} dB")
    print(f"their cameras fitted: {found.fitted_psnr:.2f} dB; likewise undisturbed {found.fitted_psnr_undisturbed:.2f} dB")
    if options.json:
        write_json(options.json, json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
