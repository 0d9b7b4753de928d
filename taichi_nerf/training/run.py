"""From a configuration to a run folder: warm up, train, write down how it goes, and save.

with RunFolder.create(path) as folder:
    train(config, scene, folder, device)
run = load_run(path, device)                  # what evaluation, rendering and export begin with

A model of one's own is trained by `train(…, model=mine)`, and opened again by `load_run(path, device, make=MyModel)`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from taichi_nerf.export.training_plot import training_plot
from taichi_nerf.file_error import one_line
from taichi_nerf.quoting import quote
from taichi_nerf.report import Report, silent
from taichi_nerf.runtime import current
from taichi_nerf.scenes import SceneData
from taichi_nerf.scenes.in_sight import expect_something_in_sight
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.budget import Stopwatch
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint
from taichi_nerf.training.config import Config
from taichi_nerf.training.distributed import World
from taichi_nerf.training.interrupt import Stopped
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.meter import Meter
from taichi_nerf.training.methods import config_class, make_model
from taichi_nerf.training.model import Model
from taichi_nerf.training.onlooker import Onlooker
from taichi_nerf.training.own_parts import expect_own_model, expect_own_parts, own_parts
from taichi_nerf.training.preview import save_previews
from taichi_nerf.training.resident_model import taken_up
from taichi_nerf.training.room import expect_room, expect_room_for_tables
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.training.run_kinds import SCENE, open_kind
from taichi_nerf.training.scene_files import open_scene, scene_hash
from taichi_nerf.training.terms import Term
from taichi_nerf.training.terms_of import terms_of
from taichi_nerf.training.trainer import Trainer

ROW_EVERY = 1.0  # seconds of training between rows of metrics


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    n_steps: int
    seconds: float  # of training
    stopped: bool  # before its budget was spent
    n_skipped: int  # steps that were no numbers
    n_returns: int  # to an earlier state, after it had gone bad
    n_before: int = 0  # steps that the folder had already


@dataclass(frozen=True)
class Run:
    """A trained model and all that it was trained from."""

    folder: RunFolder
    config: Config
    scene: SceneData
    model: Model
    n_steps: int
    warnings: list[str]


def train(
    config: Config,
    scene: SceneData,
    folder: RunFolder,
    device: torch.device | str,
    *,
    resume: bool = False,
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
    world: World = World(),
    onlooker: Onlooker | None = None,
    model: Model | None = None,  # None: the configured method's
    terms: Sequence[Term] = (),  # of the loss, besides those that are configured
) -> Outcome:
    """Train until the budget is spent or `stop()`, which is asked between pictures as they are read, and between steps. The main
    process alone writes.

    Asked to stop before the first step, it raises `Stopped`, and the folder is as it was.

    `resume` goes on from the folder's checkpoint as if it had never been interrupted; without one yet, from the beginning.
    """

    def reading(done: float, text: str) -> None:
        if world.size == 1 and stop():  # one of several would leave the others waiting
            raise Stopped
        report(done, text)

    if not resume:
        expect_something_in_sight(scene)
    elif folder.checkpoint.exists():
        expect_own_parts(folder, model, terms)
    keep_freed_memory()
    trainer = Trainer(taken_up(config) if resume else config, scene, device, world, model=model, terms=terms, report=reading)
    report(0.0, "compiling")
    world.broadcast(trainer.model)
    trainer.warm_up()
    if resume and folder.checkpoint.exists():
        go_on(trainer, folder)
    n_before = trainer.n_steps
    about = describe_run(config, scene) | own_parts(model, terms)
    if _agree(trainer, stop()):
        raise Stopped
    if world.is_main:
        folder.write_config(about)  # first: here a run that is replaced goes
        folder.truncate_metrics(trainer.n_steps)
    onlooker = onlooker or Onlooker()
    onlooker.begins(trainer)
    stopped = _train(trainer, folder, about, report, stop, onlooker)
    if world.is_main and not stopped:
        folder.plots.mkdir(exist_ok=True)
        training_plot(folder.read_metrics(), folder.plots / "training.png")
        save_previews(trainer.model, scene, folder.preview, lambda number, n: report(1.0, f"preview {number} of {n}"))
    guard = trainer.guard
    return Outcome(trainer.n_steps, trainer.stopwatch.seconds, stopped, guard.n_skipped, guard.n_returns, n_before)


def expect_to_train(config: Config, scene: SceneData, device: torch.device, resume: bool = False) -> None:
    """Refuse what `train` would before it reads pictures and compiles, and write nothing."""
    if not resume:
        expect_something_in_sight(scene)
    config, views = taken_up(config) if resume else config, [int(view) for view in scene.splits["train"]]
    expect_room_for_tables(config, device)
    expect_room(scene, views, make_model(config, scene, device).needs_depth, config.scene.downscale)
    terms_of(config, scene, views, device)


def _train(
    trainer: Trainer, folder: RunFolder, about: dict[str, object], report: Report, stop: Callable[[], bool], onlooker: Onlooker
) -> bool:
    """The loop. True if `stop` ended it."""
    meter = Meter(trainer.world.size)
    saved_at = trainer.stopwatch.seconds
    stopped = False
    while not (stopped or trainer.is_done):
        step = trainer.step()
        meter.add(step)
        asked = onlooker.stepped(step)
        stopped = _agree(trainer, stop())
        seconds = trainer.stopwatch.seconds
        ends = stopped or trainer.is_done
        due = asked or seconds - saved_at >= trainer.config.run.save_every
        if ends or due or meter.seconds >= ROW_EVERY:
            row = meter.row()
            report(trainer.progress, meter.text(row, trainer.progress))
            if trainer.world.is_main:
                folder.append_metrics(row)
        if ends or due:
            saved_at = seconds
            if trainer.world.is_main:
                save_checkpoint(folder.checkpoint, trainer.state_dict(), {"config": json.dumps(about)})
    return stopped


def _agree(trainer: Trainer, wish: bool) -> bool:
    """Whether any rank wishes to stop. Ranks that train together also share the clock and the model's pace:
    the schedule and the end follow from these."""
    world, model = trainer.world, trainer.model
    if world.size == 1:
        return wish
    seconds, pace, wishes = world.mean(trainer.stopwatch.seconds, model.pace, float(wish))
    trainer.stopwatch, model.pace = Stopwatch(seconds), pace
    return wishes > 0


class Resumable(Protocol):
    """A trainer of whatever kind."""

    config: Any
    world: World
    generator: torch.Generator
    n_steps: int

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def go_on(trainer: Resumable, folder: RunFolder) -> None:
    """From the folder's checkpoint."""
    state, _ = load_checkpoint(folder.checkpoint)
    try:
        trainer.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        told = f"does not fit to the settings and the scene as it is now ({_first_line(error)}); train anew"
        raise RunError(folder.checkpoint, told) from error
    if trainer.world.rank:  # the main process's random numbers are in the checkpoint; the others draw others
        trainer.generator.manual_seed(trainer.world.own_seed(trainer.config.run.seed) + trainer.n_steps)


def describe_run(config: Config, scene: SceneData) -> dict[str, object]:
    """What config.json says."""
    about = {"location": str(scene.folder.resolve()), "content_hash": scene_hash(scene), "kind": scene.kind}
    backend = current()
    return {"settings": to_json_dict(config), "scene": about, "arch": backend.arch, "device": backend.device_name}


def read_settings(folder: RunFolder) -> Config:
    """The configuration of a run."""
    settings, source = folder.read_config()["settings"], str(folder.config)
    return from_json_dict(config_class(settings, source), settings, source)


def scene_of_run(folder: RunFolder, config: Config) -> tuple[SceneData, list[str]]:
    """The scene that a run was trained on, and warnings."""
    path = Path(config.scene.path)
    if not path.exists():
        raise RunError(folder.config, f"settings.scene.path: {path} is not there any more; name its new place with --scene")
    scene = open_scene(config.scene)
    known = folder.read_config()["scene"].get("content_hash")
    changed = [] if known == scene_hash(scene) else [f"{path}: its files are not those that {folder.path} was trained on"]
    return scene, changed


def load_run(
    path: Path | str,
    device: torch.device | str,
    scene: Path | str | None = None,
    make: Callable[[Any, SceneData, torch.device], Model] = make_model,
) -> Run:
    """A trained run, ready to render. `scene`: where its scene is now, if it was moved; `make`: makes the untrained model from
    configuration, scene and device, if it is not the configured method's."""
    path, device = Path(path), torch.device(device)
    folder = open_kind(path, SCENE)
    config = read_settings(folder)
    if scene is not None:
        if not Path(scene).exists():
            raise RunError(f"--scene {scene}", "no such file or folder")
        config = replace(config, scene=replace(config.scene, path=str(Path(scene).resolve())))
    found, warnings = scene_of_run(folder, config)
    if not folder.checkpoint.exists():
        raise RunError(path, f"has no checkpoint yet; `taichi-nerf train --resume --out {quote(path)}` goes on with it")
    state, _ = load_checkpoint(folder.checkpoint)
    if make is make_model:
        expect_own_model(folder)
    model = make(taken_up(config), found, device)
    try:
        model.load_state_dict(state["model"])
    except (KeyError, RuntimeError) as error:
        raise RunError(folder.checkpoint, f"does not fit to {folder.config} and its scene ({_first_line(error)})") from error
    found = replace(found, cameras=model.rig.corrected(found.cameras))  # paths are laid along where they are now
    return Run(folder, config, found, model.eval(), int(state["n_steps"]), warnings)


def _first_line(error: Exception) -> str:
    return f"it lacks {error.args[0]}" if isinstance(error, KeyError) else one_line(error, 160)
