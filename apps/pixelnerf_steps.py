"""What the commands of `taichi-nerf pixelnerf` decide from their options."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taichi_nerf.apps.resuming import place_now, refuse_both, refuse_changes
from taichi_nerf.report import silent

if TYPE_CHECKING:
    from taichi_nerf.training.pixelnerf_config import PixelNerfConfig

N_FRAMES, FPS = 60, 20.0  # of an orbit


def configuration(
    context: click.Context, objects: Path | None, out: Path, arch: str, options: dict[str, Any]
) -> "tuple[PixelNerfConfig, list[str]]":
    """Settings of a new run, or of the one that goes on, and what was decided."""
    from taichi_nerf.training.pixelnerf_config import PRESETS, ObjectSettings, PixelNerfRun, changed
    from taichi_nerf.training.run_folder import expect_place

    refuse_both(options["resume"], options["overwrite"])
    if options["resume"]:
        return configuration_to_resume(context, objects, out, options), []
    steps, seconds = options["steps"], options["time_budget"]
    if objects is None:
        raise click.UsageError("Missing argument 'OBJECTS'.")
    expect_place(out, options["overwrite"])  # before the work, not after
    if steps is None and seconds is None:
        raise click.UsageError("how long? give --steps or --time-budget")
    place = ObjectSettings(str(objects.resolve()), options["prefix"], options["background"])
    preset, notes = (options["preset"], []) if options["preset"] else usual_preset(arch)
    config = PRESETS[preset](place, PixelNerfRun(preset, options["seed"], steps, seconds))
    if options["views"] is not None:
        config = replace(config, batch=replace(config.batch, views=tuple(options["views"])))
    return changed(config, options["settings"]), notes


def usual_preset(arch: str) -> tuple[str, list[str]]:
    """The one that this machine trains in reasonable time, and why."""
    if arch == "cuda":
        return "published", ["preset published: the paper's network"]
    return "small", ["preset small, as networks are not trained on CUDA; --preset published is the paper's network"]


def configuration_to_resume(
    context: click.Context, objects: Path | None, out: Path, options: dict[str, Any]
) -> "PixelNerfConfig":
    """Settings of a run that exists, with another budget if one is given, and another place of its set if that was moved."""
    from taichi_nerf.settings import from_json_dict
    from taichi_nerf.training.pixelnerf_config import PixelNerfConfig
    from taichi_nerf.training.run_kinds import OBJECTS, open_kind

    refuse_changes(context)
    folder = open_kind(out, OBJECTS)
    config = from_json_dict(PixelNerfConfig, folder.read_config()["settings"], str(folder.config))
    config = replace(config, objects=replace(config.objects, path=place_now(out, config.objects.path, objects, "OBJECTS")))
    steps, seconds = options["steps"], options["time_budget"]
    if steps is None and seconds is None:
        return config
    return replace(config, run=replace(config.run, steps=steps, time_budget=seconds))


def objects_of(prior: Any, settings: tuple[str, ...], **place: Any) -> Any:
    """The prior's settings of objects for others than it was trained on, whose near and far are their own unless --set says."""
    from taichi_nerf.settings import apply_settings

    config = replace(prior.config, objects=replace(prior.config.objects, near=None, far=None, **place))
    return apply_settings(config, settings).objects


def evaluation(model: str, objects: Path | None, out: Path | None, options: dict[str, Any], device: Any) -> Any:
    """The prior, the objects, the arguments of `evaluate`, and the folder that the figures go to."""
    from taichi_nerf.training.pixelnerf_evaluate import read_view_list
    from taichi_nerf.training.pixelnerf_model import load_prior
    from taichi_nerf.training.pixelnerf_objects import ObjectSet

    prior = load_prior(model, device, options["settings"], {"sampling.depth_gradient": "where nothing is trained"})
    place = prior.config.objects
    if objects is None and options["prefix"]:
        place = replace(place, prefix=options["prefix"])
    elif objects is not None:
        place = objects_of(prior, options["settings"], path=str(objects), prefix=options["prefix"] or place.prefix)
    if not place.path:
        raise click.UsageError(f"{model} has no set of its own: name one, as in `evaluate {model} OBJECTS`")
    folder = out or (Path(model) / "eval" / options["split"] if Path(model).is_dir() else Path("pixelnerf_eval"))
    arguments = {
        "sources": read_view_list(options["view_list"]) if options["view_list"] else options["views"],
        "targets": options["targets"],
        "without": options["without"] or (),
        "lpips": lpips_of(options["lpips"], device) if options["lpips"] else None,
        "seed": options["sampling_seed"],
        "save_to": folder if options["save_images"] else None,
    }
    return prior, ObjectSet(place, options["split"]), arguments, folder


def lpips_of(place: Path, device: Any) -> Any:
    """By VGG, as published, where a folder has weights of both networks."""
    from taichi_nerf.metrics import Lpips
    from taichi_nerf.weight_files import WeightsError

    try:
        return Lpips(place, "vgg", device)
    except WeightsError:
        return Lpips(place, device=device)  # AlexNet's alone, or a complaint of what is missing


def viewed(pictures: tuple[Path, ...], prior: Any, options: dict[str, Any], device: Any, report: Any = silent) -> Any:
    """The object that the pictures show, and which of its views are sources."""
    from taichi_nerf.apps.pixelnerf_options import PLACE
    from taichi_nerf.scenes.object_lists import ObjectEntry
    from taichi_nerf.training.pixelnerf_evaluate import sources_of
    from taichi_nerf.training.pixelnerf_objects import read_object
    from taichi_nerf.training.pixelnerf_pictures import Turntable, on_turntable, with_best_azimuth

    for picture in pictures:
        if not Path(picture).exists():
            raise ValueError(f"{picture}: no such file or folder")
    if options["turntable"]:
        place = Turntable(**{name: options[name] for name in PLACE})
        item = on_turntable(list(pictures), place, list(options["masks"]), prior.background, options["azimuth"] or 0.0)
        if options["azimuth"] is None:
            item, azimuth = with_best_azimuth(prior, item, device, report)
            click.echo(f"seen from {azimuth:.0f} degrees, says the model; --azimuth says otherwise")
        return item, list(range(item.n_views))
    if len(pictures) > 1 or not pictures[0].is_dir():
        raise click.UsageError("PICTURES without poses need --turntable; with poses, name one folder of an object")
    folder = pictures[0]
    entry = ObjectEntry(folder.resolve().parent.name, folder.resolve().name, folder, "")
    item = read_object(entry, objects_of(prior, options["settings"]))
    return item, sources_of(item, options["views"])


def idle_in_render(options: dict[str, Any]) -> dict[str, str]:
    """Settings of a model that a render has no use for."""
    idle = dict.fromkeys(("objects.path", "objects.prefix"), "where PICTURES are named")
    if options["turntable"]:
        idle |= dict.fromkeys(("objects.near", "objects.far", "objects.most_views"), "with --turntable")
    return idle if options["refine"] else {**idle, "sampling.depth_gradient": "without --refine"}


def refined(prior: Any, item: Any, sources: list[int], options: dict[str, Any], device: Any, report: Any) -> Any:
    from taichi_nerf.training.pixelnerf_render import refine

    steps = options["refine"]
    return prior if steps is None else refine(prior, item, sources, steps, device, seed=options["seed"], report=report)


def about(prior: Any, item: Any, sources: list[int], cameras: Any, what: list[str], options: dict[str, Any]) -> Any:
    """What the frames are of."""
    from taichi_nerf.training.pixelnerf_render import about_frames

    steps = options["refine"]
    how = "no" if steps is None else f"{steps} steps from seed {options['seed']}"
    return about_frames(prior, item, sources, cameras, what, how)


def cameras_for(item: Any, sources: list[int], n_frames: int | None, width: int | None, path: Path | None) -> Any:
    """The cameras of the frames, a file's or an orbit at the height of the first source view, and how many a second are usual."""
    from taichi_nerf.camera_path import read_camera_path
    from taichi_nerf.training.pixelnerf_pictures import orbit_of
    from taichi_nerf.training.pixelnerf_render import cameras_like
    from taichi_nerf.trajectories import evenly, framed

    if path is None:
        return cameras_like(item, orbit_of(item, n_frames or N_FRAMES, sources[0]), width), FPS
    found, fps = read_camera_path(path)
    if n_frames is not None:
        found = evenly(found, n_frames)
    return found if width is None else framed(found, width), fps
