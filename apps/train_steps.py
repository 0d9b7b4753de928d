"""What `taichi-nerf train` decides from its options before it trains, and what other trainings share with it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taichi_nerf.apps.resuming import SPENT, place_now, refuse_changes
from taichi_nerf.choices import LEVELS
from taichi_nerf.quoting import quote

if TYPE_CHECKING:
    from taichi_nerf.scenes import SceneData
    from taichi_nerf.training.config import Config
    from taichi_nerf.training.distributed import World
    from taichi_nerf.training.interrupt import StopSignals
    from taichi_nerf.training.onlooker import Onlooker
    from taichi_nerf.training.run import Outcome
    from taichi_nerf.training.run_folder import RunFolder

MAY_CHANGE = {"watches", "host", "port", "token", "resolution", "own_kernels", "watch_kernels"}  # on resuming


def configuration(scene: Path, out: Path, options: dict[str, Any], device: Any) -> "tuple[Config, SceneData, list[str]]":
    """Settings of a new run, its scene, and what was decided."""
    from taichi_nerf.apps.scene_options import overrides_of
    from taichi_nerf.settings import apply_settings
    from taichi_nerf.training import methods
    from taichi_nerf.training.config import Config, RunSettings, SceneSettings
    from taichi_nerf.training.few_views import with_few_views
    from taichi_nerf.training.presets import usual_background
    from taichi_nerf.training.run_folder import expect_place
    from taichi_nerf.training.scene_files import open_scene

    expect_place(out, options["overwrite"])  # before the work, not after
    place = overrides_of(options)
    settings = SceneSettings(
        path=str(scene.resolve()),
        views=None if options["views"] is None else tuple(options["views"]),
        **{name: options[name] for name in ("n_views", "protocol", "downscale", "allow_outside")},
        **{name: getattr(place, name) for name in ("center", "scale", "axes", "near", "far")},
    )
    run = RunSettings(**{name: options[name] for name in ("method", "preset", "seed", "steps", "time_budget")})
    # What --set says about run and scene comes before the preset, which is fitted to both; what it says about the rest, after.
    early = [f"run.background={options['background']}"] if options["background"] else []
    early += [text.strip() for text in options["settings"] if text.strip().startswith(("run.", "scene."))]
    first = apply_settings(Config(settings, run), early)
    methods.checked(first.run)
    found = open_scene(first.scene)
    if not any(text.startswith("run.background") for text in early):
        first = replace(first, run=replace(first.run, background=usual_background(found)))
    config, notes = methods.choose(found, first.scene, first.run, device)
    config, few_view_notes = with_few_views(config, found, options["geometry"], options["prior"])
    notes = [*notes, *few_view_notes]
    return methods.changed(config, options["settings"], found), found, [*found.notes, *notes]


def configuration_to_resume(
    context: click.Context, scene: Path | None, out: Path, options: dict[str, Any]
) -> "tuple[Config, SceneData, list[str]]":
    """Settings of a run that exists, with another budget if one is given."""
    from taichi_nerf.training.own_parts import expect_own_parts
    from taichi_nerf.training.run import read_settings, scene_of_run
    from taichi_nerf.training.run_kinds import SCENE, open_kind

    refuse_changes(context, MAY_CHANGE)
    folder = open_kind(out, SCENE)
    expect_own_parts(folder)
    config = read_settings(folder)
    config = replace(config, scene=replace(config.scene, path=place_now(out, config.scene.path, scene, "SCENE")))
    steps, seconds = options["steps"], options["time_budget"]
    if steps is not None or seconds is not None:
        config = replace(config, run=replace(config.run, steps=steps, time_budget=seconds))
    found, warnings = scene_of_run(folder, config)
    return config, found, [f"warning: {text}" for text in warnings]


def started(arch: str, ranks: "World") -> "tuple[str, Callable[..., None]]":
    """Start the backend of this process, with its share of the threads: on what it trains, and how it says so, which is not at
    all but for the main process."""
    from taichi_nerf import runtime

    threads = max(1, runtime.available_threads() // ranks.size)
    backend = runtime.start(arch, threads if ranks.size > 1 else None)
    told = f"training on {backend.arch} ({backend.device_name})" + (f", {ranks.size} processes" if ranks.size > 1 else "")
    return told, click.echo if ranks.is_main else lambda text, err=False: None


def tell_end(outcome: "Outcome", out: Path, command: str, stop: "StopSignals", say: "Callable[..., None]") -> None:
    """How a training ended; where a signal stopped it, the command ends as the shell expects."""
    say(f"{outcome.n_steps} steps in {outcome.seconds:.1f} s of training: {out}")
    if outcome.n_steps == outcome.n_before:
        say(SPENT)
    if outcome.n_skipped or outcome.n_returns:
        say(f"{outcome.n_skipped} steps were no numbers and skipped; {outcome.n_returns} returns to an earlier state")
    if outcome.stopped:
        say(f"stopped and saved; go on with: taichi-nerf {command} --out {quote(out)} --resume", err=True)
        sys.exit(stop.exit_status)


@contextmanager
def open_folder(out: Path, options: dict[str, Any], ranks: "World") -> "Iterator[RunFolder]":
    """The run's folder, locked by the main process, which makes it."""
    from taichi_nerf.training.run_folder import RunFolder

    if not ranks.is_main:
        yield RunFolder(out)
        return
    opened = RunFolder.open(out).locked() if options["resume"] else RunFolder.create(out, options["overwrite"])
    with opened as folder:
        yield folder


@contextmanager
def onlooker_of(
    config: "Config", out: Path, options: dict[str, Any], ranks: "World", stop: "StopSignals"
) -> "Iterator[Onlooker | None]":
    """Who looks on: a browser, kernel files that are being edited, or nobody."""
    from taichi_nerf.apps.view_options import live_kernels_of, place_of

    if not (options["watches"] or options["own_kernels"] or options["watch_kernels"]):
        yield None
        return
    if ranks.size > 1:
        raise click.UsageError("--view, --kernel and --watch-kernels go with a training in one process")
    kernels = live_kernels_of(options)
    from taichi_nerf.viewer.training_view import TrainingView

    place = place_of(options, out / "viewer") if options["watches"] else None
    with TrainingView(place, LEVELS[config.run.background], lambda: stop.requested, kernels, click.echo) as view:
        yield view
