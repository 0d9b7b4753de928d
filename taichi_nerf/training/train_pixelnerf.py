"""pixelNeRF over a set of objects, into a run folder: RUN/config.json, checkpoint.safetensors, metrics.jsonl, model.safetensors,
preview/validation.png (objects that are not trained on: source view | truth | render, several views), plots/training.png.

with RunFolder.create(path) as folder:
    train(config, folder, device)
"""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.export.colors import to_bytes
from taichi_nerf.export.files import write_png
from taichi_nerf.export.training_plot import training_plot
from taichi_nerf.fields.pixel_aligned_field import Encoded
from taichi_nerf.file_error import one_line
from taichi_nerf.report import Report, silent
from taichi_nerf.runtime import current
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.settings import to_json_dict
from taichi_nerf.training.checkpoint import save_checkpoint
from taichi_nerf.training.distributed import World
from taichi_nerf.training.interrupt import Stopped
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.meter import Meter
from taichi_nerf.training.pictures import pixel_centers
from taichi_nerf.training.pixelnerf_config import PixelNerfConfig
from taichi_nerf.training.pixelnerf_model import MODEL_FILE, Prior, load_prior, save_model
from taichi_nerf.training.pixelnerf_objects import ObjectSet, ViewedObject
from taichi_nerf.training.pixelnerf_trainer import PixelNerfTrainer, settle_statistics
from taichi_nerf.training.run import Outcome, go_on
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.weights.pixelnerf import load_resnet

ROW_EVERY = 5.0  # seconds of training between rows of metrics
N_SETTLED = 64  # batches that batch normalisation is settled with
N_SHOWN, N_TARGETS = 6, 3  # objects of a validation, and views of each


def train(
    config: PixelNerfConfig,
    folder: RunFolder,
    device: torch.device,
    *,
    resume: bool = False,
    encoder: Path | None = None,  # torchvision's weights to begin with
    start: str | None = None,  # a run, a file of weights, or builtin, to begin with
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
    world: World = World(),
) -> Outcome:
    """Until the budget is spent or `stop()`; `Stopped` before the first step. The main process alone writes."""
    keep_freed_memory()
    torch.manual_seed(config.run.seed)
    objects, validation = ObjectSet(config.objects, "train"), None
    with suppress(SceneError):  # a set without such objects is trained on all the same
        validation = ObjectSet(config.objects, "val")
    trainer = PixelNerfTrainer(config, objects, device, world)
    if encoder is not None:
        load_resnet(trainer.field.encoder, encoder)
    if start is not None:
        begin_with(trainer, load_prior(start, device), start)
    trainer.warm_up()
    if resume and folder.checkpoint.exists():
        go_on(trainer, folder)
    n_before = trainer.n_steps
    world.broadcast(trainer.field)
    about = describe_run(config, objects)
    if world.any_rank(stop()):
        raise Stopped
    if world.is_main:
        folder.write_config(about)  # first: here a run that is replaced goes
        folder.truncate_metrics(trainer.n_steps)
    stopped = _train(trainer, validation, folder, about, report, stop)
    if world.is_main:
        settle_statistics(trainer.field, objects, config.batch, N_SETTLED, device)
        save_model(folder.path / MODEL_FILE, Prior(trainer.field, config), {"steps": str(trainer.n_steps)})
        if not stopped:
            folder.plots.mkdir(exist_ok=True)
            training_plot(folder.read_metrics(), folder.plots / "training.png")
    guard = trainer.guard
    return Outcome(trainer.n_steps, trainer.stopwatch.seconds, stopped, guard.n_skipped, guard.n_returns, n_before)


def begin_with(trainer: PixelNerfTrainer, prior: Prior, name: str) -> None:
    """Take over a model's weights; its networks have to be those of the run's settings."""
    try:
        trainer.field.load_state_dict(prior.field.state_dict())
    except RuntimeError as error:
        what = one_line(error, 160)
        raise RunError(name, f"its networks are not those of this run's settings; see --preset and --set ({what})") from None


def _train(
    trainer: PixelNerfTrainer,
    validation: ObjectSet | None,
    folder: RunFolder,
    about: dict[str, object],
    report: Report,
    stop: Callable[[], bool],
) -> bool:
    """The loop. True if `stop` ended it."""
    run, world, meter = trainer.config.run, trainer.world, Meter(trainer.world.size)
    saved_at = shown_at = trainer.stopwatch.seconds
    stopped = False
    while not (stopped or trainer.is_done):
        meter.add(trainer.step())
        trainer.agree()
        stopped = world.any_rank(stop())
        seconds = trainer.stopwatch.seconds
        ends = stopped or trainer.is_done
        shows = (trainer.is_done or seconds - shown_at >= run.validate_every) and validation is not None
        if ends or shows or meter.seconds >= ROW_EVERY:
            row = meter.row()
            if shows and world.is_main and validation is not None:
                shown_at = seconds
                row["validation_psnr"] = validate(trainer, validation, folder.preview / "validation.png")
            report(trainer.progress, meter.text(row, trainer.progress))
            if world.is_main:
                folder.append_metrics(row)
        if ends or seconds - saved_at >= run.save_every:
            saved_at = seconds
            if world.is_main:
                save_checkpoint(folder.checkpoint, trainer.state_dict(), {"config": json.dumps(about)})
    return stopped


def describe_run(config: PixelNerfConfig, objects: ObjectSet) -> dict[str, object]:
    """What config.json says."""
    about = {"location": str(Path(config.objects.path).resolve()), "n_objects": len(objects), "kind": "objects"}
    backend = current()
    return {"settings": to_json_dict(config), "scene": about, "arch": backend.arch, "device": backend.device_name}


def validate(trainer: PixelNerfTrainer, validation: ObjectSet, file: Path) -> float:
    """Mean PSNR, from the first view of some objects to others, and a picture of it."""
    settle_statistics(trainer.field, trainer.objects, trainer.config.batch, N_SETTLED // 4, trainer.device)
    prior = Prior(trainer.field, trainer.config)
    n = min(N_SHOWN, len(validation))
    chosen = [validation[int(i)] for i in np.linspace(0, len(validation) - 1, n).round()]
    found = [compare(prior, item, [0], targets_of(item), trainer.device) for item in chosen]
    write_png(file, np.concatenate([row for row, _ in found]))
    return float(np.mean([value for _, values in found for value in values]))


def targets_of(item: ViewedObject) -> list[int]:
    """Views between the first and the last, but not the first, where there are others."""
    return np.unique(np.linspace(min(1, item.n_views - 1), item.n_views - 1, N_TARGETS).round().astype(int)).tolist()


def compare(
    prior: Prior, item: ViewedObject, sources: list[int], targets: list[int], device: torch.device
) -> tuple[np.ndarray, list[float]]:
    """Sources | truth, render, truth, render, … as bytes, and the PSNR of each target."""
    shown, values = [to_bytes(item.pictures[view].numpy()) for view in sources], []
    encoded = prior.encode(item, sources, device)
    for view in targets:
        color = render_view(prior, item, encoded, view, device)
        truth = item.pictures[view].float() / 255
        values.append(-10 * math.log10(max(float((color - truth).square().mean()), 1e-10)))
        shown += [to_bytes(truth), to_bytes(color)]
    return np.concatenate(shown, 1), values


def render_view(
    prior: Prior, item: ViewedObject, encoded: Encoded, view: int, device: torch.device, seed: int | None = None
) -> Tensor:
    """[h, w, 3] what one of the object's cameras sees."""
    width, height = item.size
    shift = prior.config.field.pixel_center - 0.5
    rays = item.rays(pixel_centers(width, height) + shift, torch.full((width * height,), view), device)
    return prior.picture(encoded, rays, item.size, (item.near, item.far), seed).color.cpu()
