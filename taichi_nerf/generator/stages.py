"""The stages after the generator, each from a model folder into it: what it needs is loaded, what it learned is saved and shown.

`start` a backend first: the warp is a kernel.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from taichi_nerf.export.colors import color_depth
from taichi_nerf.generator.depth_pose.files import load_depth_pose, save_depth_pose
from taichi_nerf.generator.depth_pose.geometry import six_of
from taichi_nerf.generator.depth_pose.model import DepthPose, DepthPoseSettings
from taichi_nerf.generator.depth_pose.training import DepthPoseTraining, train_depth_pose
from taichi_nerf.generator.directions import Directions, load_directions, save_directions
from taichi_nerf.generator.evaluation.feature_files import save_features
from taichi_nerf.generator.evaluation.features import FeatureNetwork, FeatureSettings, train_features
from taichi_nerf.generator.grids import save_grid
from taichi_nerf.generator.image_set import ImageSet
from taichi_nerf.generator.model_folder import ModelFolder
from taichi_nerf.generator.refiner.files import load_refiner, save_refiner
from taichi_nerf.generator.refiner.network import Refiner, RefinerSettings, refine
from taichi_nerf.generator.refiner.training import RefinerTraining, depths_of, make_pairs, train_refiner
from taichi_nerf.generator.stylegan2.generator import Generator, as_bytes
from taichi_nerf.generator.turns import REACH, Turns
from taichi_nerf.report import Report, silent

SHOWN_SEEDS = [500, 501, 502, 503]
SHOWN_PLACES = 9


def never() -> bool:
    return False


def open_turns(folder: ModelFolder, device: torch.device | str = "cpu", reach: float = REACH) -> Turns:
    """The generator with its directions."""
    generator = folder.load_generator().to(device)
    directions = load_directions(folder.needs(folder.directions, "directions"), generator.settings.w_dim)
    return Turns(generator, directions, reach)


def reach_of(folder: ModelFolder) -> float:
    """How far the turns went that depth and pose were learned from."""
    return float(folder.read_about().get("depth_pose", {}).get("reach", REACH))


def open_depth_pose(folder: ModelFolder, device: torch.device | str = "cpu") -> DepthPose:
    return load_depth_pose(folder.needs(folder.depth_pose, "depth-pose")).to(device)


def open_refiner(folder: ModelFolder, device: torch.device | str = "cpu") -> tuple[Refiner, float]:
    refiner, reach = load_refiner(folder.needs(folder.refiner, "refine"))
    return refiner.to(device), reach


def keep_directions(folder: ModelFolder, found: Directions, about: dict[str, Any], generator: Generator) -> None:
    """Save directions; show what the yaw does to four subjects of the generator in which they were found."""
    save_directions(folder.may_change().directions, found)
    turns = Turns(generator, found)
    steps = turns.positions(SHOWN_PLACES)
    subjects = [code.expand(SHOWN_PLACES, -1, -1) for code in turns.codes(SHOWN_SEEDS)[:, None]]
    rows = [as_bytes(turns.images(turns.turned(codes, steps))) for codes in subjects]
    save_grid(folder.pictures / "directions_yaw.png", torch.cat(rows).cpu().numpy(), SHOWN_PLACES)
    told = {"yaw_component": found.yaw_component, "yaw_layers": list(turns.layers), "yaw_sign": found.yaw_sign}
    folder.tell_about("directions", {**about, **told})


def make_depth_pose(
    folder: ModelFolder, settings: DepthPoseSettings, training: DepthPoseTraining, device: torch.device | str = "cpu",
    seed: int = 0, reach: float = REACH, report: Report = silent, stop: Callable[[], bool] = never,
) -> dict[str, Any]:  # fmt: skip
    turns, started = open_turns(folder.may_change(), device, reach), time.monotonic()
    model, told = train_depth_pose(turns, settings, training, device, seed, report, stop)
    save_depth_pose(folder.depth_pose, model)
    about = {"seconds": round(time.monotonic() - started), "seed": seed, "reach": reach, **asdict(training)}
    folder.tell_about("depth_pose", {**about, **told})
    steps = turns.positions(SHOWN_PLACES)
    rows = []
    for code in turns.codes(SHOWN_SEEDS)[:, None]:
        images = turns.images(turns.turned(code.expand(SHOWN_PLACES, -1, -1), steps))
        rows += [as_bytes(images).cpu().numpy(), depth_pictures(depths_of(model, images), settings)]
    save_grid(folder.pictures / "depth.png", np.concatenate(rows), SHOWN_PLACES)
    return told


def depth_pictures(depths: torch.Tensor, settings: DepthPoseSettings) -> np.ndarray[Any, Any]:
    """[n, h, w, 3] bytes."""
    return np.stack([color_depth(depth.cpu(), settings.nearest, settings.farthest) for depth in depths])


def make_refiner(
    folder: ModelFolder, settings: RefinerSettings, training: RefinerTraining, device: torch.device | str = "cpu",
    seed: int = 0, reach: float = REACH, report: Report = silent, stop: Callable[[], bool] = never,
) -> dict[str, Any]:  # fmt: skip
    turns, model = open_turns(folder.may_change(), device, reach), open_depth_pose(folder, device)
    started = time.monotonic()
    pairs = make_pairs(turns, model, list(range(training.n_subjects)), training.n_pairs, lambda d, text: report(0.2 * d, text))

    def later(done: float, text: str) -> None:
        report(0.2 + 0.8 * done, text)

    refiner, told = train_refiner(turns, model, settings, training, pairs, seed, later, stop)
    save_refiner(folder.refiner, refiner, reach)
    about = {"seconds": round(time.monotonic() - started), "seed": seed, "reach": reach, **asdict(training), **asdict(settings)}
    losses = {name: value for name, value in told.items() if name != "steps"}  # of the same names as their weights
    folder.tell_about("refine", {**about, "steps": told["steps"], "losses": losses})
    show_refined(folder, turns, model, refiner)
    return told


def show_refined(folder: ModelFolder, turns: Turns, model: DepthPose, refiner: Refiner) -> None:
    """Of each subject: turned as it is, and refined."""
    pairs = make_pairs(turns, model, SHOWN_SEEDS, SHOWN_PLACES)
    rows = []
    for i in range(len(SHOWN_SEEDS)):
        codes = pairs.source_codes[i : i + 1].expand(len(pairs.steps), -1, -1)
        turned = turns.turned(codes, pairs.steps)
        refined = refine(refiner, codes, turned, six_of(pairs.motions[i], model.settings.pivot), turns.layers)
        rows += [as_bytes(turns.images(turned)), as_bytes(turns.images(refined))]
    save_grid(folder.pictures / "refined.png", torch.cat(rows).cpu().numpy(), SHOWN_PLACES)


def make_features(
    folder: ModelFolder, images: ImageSet, steps: int, device: torch.device | str = "cpu", seed: int = 0,
    report: Report = silent,
) -> FeatureNetwork:  # fmt: skip
    started = time.monotonic()
    settings = FeatureSettings(size=images.size, knows_yaw=images.yaws is not None)
    network = train_features(images, settings, steps, device=device, seed=seed, report=report)
    save_features(folder.may_change().features, network)
    told = {"seconds": round(time.monotonic() - started), "steps": steps, "pictures": len(images), "seed": seed}
    folder.tell_about("features", told)
    return network
