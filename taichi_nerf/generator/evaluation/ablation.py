"""The paper's ablation: the refiner trained without each of the paper's losses, everything else equal."""

from dataclasses import replace
from functools import partial
from typing import Any

from taichi_nerf.generator.depth_pose.model import DepthPose
from taichi_nerf.generator.evaluation.report import Instruments, figures
from taichi_nerf.generator.evaluation.turned import turn_subjects
from taichi_nerf.generator.model_folder import ModelFolder
from taichi_nerf.generator.refiner.network import RefinerSettings
from taichi_nerf.generator.refiner.training import RefinerTraining, make_pairs, train_refiner
from taichi_nerf.generator.turns import Turns
from taichi_nerf.report import Report, silent


def without(training: RefinerTraining) -> dict[str, RefinerTraining]:
    """The trainings of the ablation, by their names in the figures."""
    return {
        "full": training,
        "without_warp": replace(training, warp=0.0),
        "without_feat": replace(training, feature=0.0),
        "without_latent": replace(training, latent_share=0.0),
    }


def ablate(
    folder: ModelFolder, turns: Turns, model: DepthPose, seeds: list[int], n_places: int, tools: Instruments,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Figures of each, trained with the settings that the model's own refiner was trained with."""
    about = folder.read_about().get("refine", {})
    training, settings = trained_with(about)
    pairs = make_pairs(turns, model, list(range(training.n_subjects)), training.n_pairs)
    found = {}
    for i, (name, changed) in enumerate(without(training).items()):
        refiner, _ = train_refiner(turns, model, settings, changed, pairs, about.get("seed", 0), partial(_told, report, i, name))
        found[name] = figures(turn_subjects(turns, model, refiner, seeds, n_places), tools)["refined"]
    return found


def trained_with(about: dict[str, Any]) -> tuple[RefinerTraining, RefinerSettings]:
    """What the note of a refiner tells of its training; one from before L_turn or L_nat tells nothing of it, and had none."""
    about = {"turn": 0.0, "natural": 0.0} | about
    training, settings = (
        {name: value for name, value in about.items() if name in kind.__dataclass_fields__}
        for kind in (RefinerTraining, RefinerSettings)
    )
    return RefinerTraining(**training), RefinerSettings(**settings)


def _told(report: Report, number: int, name: str, done: float, text: str) -> None:
    report((number + done) / 4, f"{name}: {text}")
