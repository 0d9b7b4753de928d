"""Training a generator into a model folder: budgets, growth, checkpoints, pictures, resuming."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.generator.grids import save_grid
from taichi_nerf.generator.image_set import ImageSet, resized
from taichi_nerf.generator.model_folder import TRAIN, ModelError, ModelFolder
from taichi_nerf.generator.stylegan2.generator import GeneratorSettings, as_bytes, latents_of_seeds
from taichi_nerf.generator.stylegan2.growth import take_over
from taichi_nerf.generator.stylegan2.training import GanSettings, GanTraining
from taichi_nerf.report import Report, silent
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training import metrics_file
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint

SHOWN_SEEDS = list(range(32))
SAME = 2.0  # of 255, by which pictures may differ on average that another machine rendered, or that were encoded anew
PARTS = 4  # a side, of which pictures are known again by the mean colors
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class GanRun:
    """What a training is made of, beside its budget."""

    networks: GeneratorSettings
    gan: GanSettings
    grow_at: int = 0  # images up to which it trains at half the resolution
    precision: str = "float32"
    seed: int = 0
    save_seconds: float = 60.0
    picture_images: int = 10_000  # from one grid to the next

    def __post_init__(self) -> None:
        if self.grow_at and self.networks.resolution < 16:
            raise ValueError(f"growing begins at half of {self.networks.resolution} pixels, and 8 are the least; leave it out")


class _Course:
    """The training of the moment, and the change of resolution."""

    def __init__(self, run: GanRun, images: ImageSet, device: torch.device | str):
        self.run, self.images, self.device = run, images, device
        self.training = self._at(run.networks.resolution // 2 if run.grow_at else run.networks.resolution)

    def _at(self, resolution: int) -> GanTraining:
        networks = replace(self.run.networks, resolution=resolution)
        pictures = resized(self.images.images, resolution)
        precision = PRECISIONS[self.run.precision]
        return GanTraining(pictures, networks, self.run.gan, self.device, self.run.seed, precision)

    def load(self, state: dict[str, Any]) -> None:
        if state["resolution"] != self.training.networks.resolution:
            self.training = self._at(state["resolution"])
        self.training.load(state["training"])

    def grow(self) -> None:
        if self.training.networks != self.run.networks and self.training.n_images >= self.run.grow_at:
            larger = self._at(self.run.networks.resolution)
            take_over(larger, self.training)
            self.training = larger


def begun(folder: ModelFolder) -> GanRun:
    """What the training in this folder is made of."""
    return from_json_dict(GanRun, load_checkpoint(folder.needs(folder.gan, TRAIN))[0]["run"], str(folder.gan))


def known_by(images: ImageSet) -> Tensor:
    """[n, PARTS, PARTS, 3] mean colors of each picture's parts: what a set is known by again."""
    parts = images.images.reshape(len(images), PARTS, images.size // PARTS, PARTS, images.size // PARTS, 3)
    return torch.from_numpy(parts.mean((2, 4), dtype=np.float32))


def are_same(before: Tensor, now: Tensor) -> bool:
    """Whether two sets are known by the same. Older versions knew a picture by the mean of all its numbers."""
    now = now.mean((1, 2, 3)) if before.ndim == 1 else now
    return before.shape == now.shape and float((before - now).abs().reshape(len(now), -1).mean(1).max()) <= SAME


def train_generator(
    folder: ModelFolder,
    images: ImageSet,
    run: GanRun,
    device: torch.device | str = "cpu",
    *,
    n_images: int | None = None,
    seconds: float | None = None,
    resume: bool = False,
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
) -> GanTraining:
    """Train until so many images were shown, or for so many seconds in all, whichever comes first."""
    course, spent, pictures = _Course(run, images, device), 0.0, known_by(images)
    if resume:
        state, _ = load_checkpoint(folder.needs(folder.gan, TRAIN))
        if not are_same(state.get("pictures", pictures), pictures):
            raise ModelError(folder.gan, "was trained on other pictures than these; --resume goes on with the same ones")
        course.load(state)
        spent = state["seconds"]
        metrics_file.truncate(folder.metrics, course.training.n_steps)
    else:
        folder.may_begin()
    folder.path.mkdir(parents=True, exist_ok=True)
    started = saved = time.monotonic()

    def elapsed() -> float:
        return spent + time.monotonic() - started

    def save() -> None:
        training = course.training
        state = {
            "run": to_json_dict(run),
            "training": training.state(),
            "resolution": training.networks.resolution,
            "seconds": elapsed(),
            "pictures": pictures,
        }
        save_checkpoint(folder.gan, state, {})
        folder.save_generator(training.average)

    row: dict[str, float] = {}
    while not stop():
        training = course.training
        fractions = [training.n_images / n_images] if n_images else []
        fractions += [elapsed() / seconds] if seconds else []
        if fractions and max(fractions) >= 1:
            break
        course.grow()
        training = course.training
        row.update(training.step())
        if training.n_steps % 50 == 0:
            metrics_file.append(folder.metrics, {"step": training.n_steps, "images": training.n_images, **row})
        rate = training.n_images / max(elapsed(), 1e-9)
        report(max(fractions, default=0.0), f"{training.n_images} images, {rate:.0f} a second, "
               f"generator {row['generator']:.2f}, discriminator {row['discriminator']:.2f}")  # fmt: skip
        if training.n_images // run.picture_images > (training.n_images - run.gan.batch) // run.picture_images:
            save_samples(folder, training)
        if time.monotonic() - saved > run.save_seconds:
            save()
            saved = time.monotonic()
    save()
    save_samples(folder, course.training)
    about = {"images": course.training.n_images, "seconds": round(elapsed()), "pictures": len(images), **to_json_dict(run)}
    folder.tell_about("train", about)
    return course.training


@torch.no_grad()
def save_samples(folder: ModelFolder, training: GanTraining) -> None:
    """What the running mean makes of 32 seeds."""
    z = latents_of_seeds(SHOWN_SEEDS, training.networks.z_dim).to(training.device)
    pictures = as_bytes(training.average(z)).cpu().numpy()
    save_grid(folder.pictures / f"gan_{training.n_images // 1000:05d}k.png", pictures, 8)
