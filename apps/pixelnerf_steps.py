"""What the commands of `taichi-nerf pixelnerf` decide from their options."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taichi_nerf.training.pixelnerf_config import PixelNerfConfig


def configuration(objects: Path | None, out: Path, options: dict[str, Any]) -> "PixelNerfConfig":
    """Settings of a new run, or of the one that goes on, with another budget if one is given."""
    from taichi_nerf.training.pixelnerf_config import PRESETS, ObjectSettings, PixelNerfConfig, PixelNerfRun
    from taichi_nerf.training.run_folder import RunError, RunFolder
    from taichi_nerf.training.settings import apply_settings, from_json_dict

    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume goes on with a run and --overwrite replaces it; give one of them")
    steps, seconds = options["steps"], options["time_budget"]
    if options["resume"]:
        folder = RunFolder.open(out)
        config = from_json_dict(PixelNerfConfig, folder.read_config()["settings"], str(folder.config))
        if steps is None and seconds is None:
            return config
        return replace(config, run=replace(config.run, steps=steps, time_budget=seconds))
    if objects is None:
        raise click.UsageError("Missing argument 'OBJECTS'.")
    if RunFolder(out).config.exists() and not options["overwrite"] and not options["dry_run"]:
        raise RunError(out, "holds a run already; --resume goes on with it, --overwrite replaces it")
    if steps is None and seconds is None:
        raise click.UsageError("how long? give --steps or --time-budget")
    place = ObjectSettings(str(objects.resolve()), options["prefix"], options["background"])
    run = PixelNerfRun(options["preset"], options["seed"], steps, seconds)
    config = PRESETS[options["preset"]](place, run)
    config = replace(config, batch=replace(config.batch, views=tuple(options["views"])))
    return apply_settings(config, options["settings"])
