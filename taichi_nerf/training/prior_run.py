"""A training of a prior from start to end: its settings, the patches that they name, the folder.

OUT/config.json    the settings, from which `--resume` goes on
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from taichi_nerf.priors.patch_sources import blank_picture, procedural_pictures, scene_pictures
from taichi_nerf.priors.patches import PatchSet, RgbdPicture
from taichi_nerf.priors.prior import FILE, PriorSettings
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes import load_scene
from taichi_nerf.scenes.procedural import FAMILIES, family_and_number
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.atomic import replacing
from taichi_nerf.training.folder_lock import LOCK, FolderLock
from taichi_nerf.training.interrupt import Stopped
from taichi_nerf.training.run_folder import RunError
from taichi_nerf.training.run_kinds import PATCHES, require_kind
from taichi_nerf.training.train_prior import PriorTrainer, PriorTraining, train_prior

N_PICTURES = 1000  # of a family, unless it says
HELD_OUT = 20  # one picture of so many
FILES = ("checkpoint.safetensors", "metrics.jsonl", FILE, "samples.png")  # beside config.json
FORMAT = "prior"


@dataclass(frozen=True)
class PatchSettings:
    """What patches a prior learns from."""

    sources: tuple[str, ...] = ("rooms:1600", "objects:400")  # families of procedural scenes and how many pictures, or folders
    metric_scale: float = 1.0  # metres per unit of length in the files of folders
    closest: float = 0.8  # focal lengths of patches, as shares of the prior's: how far they may stand from their pixels' angle
    farthest: float = 1.3
    seed: int = 0


@dataclass(frozen=True)
class PriorConfig:
    prior: PriorSettings = PriorSettings()
    patches: PatchSettings = PatchSettings()
    training: PriorTraining = PriorTraining()
    half: bool = False  # numbers of the file of 16 bits


def run(
    config: PriorConfig,
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    threads: int | None = None,  # that torch may use
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[bool, PriorTrainer]:
    """Make the patches, train, and write. True if `stop` ended it; `Stopped` if that was before the first step.

    Until a step was tried the folder is as it was.
    """
    if threads is not None:
        torch.set_num_threads(threads)

    def told(done: float, text: str) -> None:
        if stop():
            raise Stopped
        report(done, text)

    with FolderLock(out):
        return _run(config, out, device, resume, report, told, stop)


def _run(
    config: PriorConfig, out: Path, device: torch.device, resume: bool, report: Report, told: Report, stop: Callable[[], bool]
) -> tuple[bool, PriorTrainer]:
    families = [family_and_number(source, FAMILIES, N_PICTURES) for source in config.patches.sources]
    if None not in families:
        patch_set(config, [blank_picture()])  # complains of patches that no picture holds before minutes of rendering
    pictures, held_out = pictures_of(config.patches, told, focal_lengths(config)[1])
    sets = patch_set(config, pictures), patch_set(config, held_out)
    trainer = PriorTrainer(config.prior, config.training, *sets, device)
    trainer.warm_up()
    if stop():
        raise Stopped
    with replacing(out / "config.json") as stream:
        stream.write(json.dumps({"kind": FORMAT, "settings": to_json_dict(config)}, indent=1).encode() + b"\n")
        stream.flush()  # the new settings are on the disk before the former training goes
        for name in () if resume else FILES:
            (out / name).unlink(missing_ok=True)
    # A prior is given away: which folders it learned from is told by their names, not by where they lay.
    data = [source if family else Path(source).name for source, family in zip(config.patches.sources, families, strict=True)]
    made = {"data": data, "n_pictures": len(pictures), "seed": config.training.seed}
    stopped = train_prior(trainer, out, made, resume=resume, half=config.half, report=report, stop=stop)
    return stopped, trainer


def pictures_of(settings: PatchSettings, report: Report, finest: float = math.inf) -> tuple[list[RgbdPicture], list[RgbdPicture]]:
    """To learn from, and to hold out; no finer than patches of that focal length need them."""
    pictures: list[RgbdPicture] = []
    held_out: list[RgbdPicture] = []
    families = [family_and_number(source, FAMILIES, N_PICTURES) for source in settings.sources]  # before the first is rendered
    scenes = [load_scene(Path(source)) for source, family in zip(settings.sources, families, strict=True) if family is None]
    for family in families:
        if family is None:
            found = scene_pictures(scenes.pop(0), settings.metric_scale, report, finest)
        else:
            found = procedural_pictures(*family, settings.seed, report)
        n_held_out = max(1, len(found) // HELD_OUT)
        pictures += found[:-n_held_out] or found
        held_out += found[-n_held_out:]
    return pictures, held_out


def placed(source: str) -> str:
    """A source that means the same wherever `--resume` is called: a family as it stands, a folder by where it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def patch_set(config: PriorConfig, pictures: list[RgbdPicture]) -> PatchSet:
    prior = config.prior
    return PatchSet(pictures, prior.size, focal_lengths(config), prior.variant, nearest=prior.nearest)


def focal_lengths(config: PriorConfig) -> tuple[float, float]:
    """The least and the largest of patches, in their pixels."""
    return config.patches.closest * config.prior.focal, config.patches.farthest * config.prior.focal


def require_free(out: Path, overwrite: bool) -> None:
    """A folder that may be written to: new, empty, or with a prior's training that may be replaced."""
    if out.exists() and not out.is_dir():
        raise RunError(out, "is a file; a training of a prior is a folder")
    there = {file.name for file in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if there and not is_prior_run(out):
        raise RunError(out, f"is no training of a prior and not empty (it holds {sorted(there)[0]}); choose another --out")
    if there and not overwrite:
        raise RunError(out, "holds a training already; --resume goes on with it, --overwrite replaces it")


def is_prior_run(out: Path) -> bool:
    return (_read(out / "config.json") or {}).get("kind") == FORMAT


def read_config(out: Path, steps: int | None, seconds: float | None) -> PriorConfig:
    """The settings of a training that exists, with another budget if one is given."""
    require_kind(out, PATCHES)
    data = _read(out / "config.json")
    if data is None or data.get("kind") != FORMAT:
        raise RunError(out, "holds no training of a prior (no config.json of one)")
    config = from_json_dict(PriorConfig, data.get("settings"), str(out / "config.json"))
    if steps is None and seconds is None:
        return config
    return replace(config, training=replace(config.training, steps=steps, seconds=seconds))


def _read(file: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
