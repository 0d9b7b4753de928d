"""From a folder to a scene: which reader fits, which views, which sizes, which bounds."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

from taichi_nerf.choices import Protocol
from taichi_nerf.scenes.colmap_find import USUAL_NAMES, folders_in
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import array_names
from taichi_nerf.scenes.images import CACHE_BYTES, Array, Images, list_images
from taichi_nerf.scenes.in_sight import out_of_sight
from taichi_nerf.scenes.lens_reach import out_of_reach
from taichi_nerf.scenes.normalise import Overrides, frustum, normalise
from taichi_nerf.scenes.scene_data import Depths, SceneData, Similarity
from taichi_nerf.scenes.source import Points, Source
from taichi_nerf.scenes.splits import choose_splits

# Readers in the order in which they are asked. Each module has `fits(folder) -> str`, the reason why the folder is of its kind
# or "", and `read(folder, allow_outside) -> Source`.
READERS = (
    *("object_sets", "blender", "multiscale", "transforms", "llff", "colmap", "dtu"),
    *("nsvf", "rgbd", "mvsnet", "hypersim", "arrays", "turntable"),
)
NO_POSES = "nothing that tells where they were taken: `taichi-nerf photos` finds that out"
DEEPEST, MOST_FOLDERS = 2, 100  # levels below a folder that is no scene, and folders in all, in which scenes are looked for


def find_reader(path: Path) -> tuple[str, str]:
    """The name of the reader that fits, and why."""
    return find_scene(path)[1:]


def find_scene(path: Path) -> tuple[Path, str, str]:
    """Where the scene is, its reader and why: the path itself, else the only scene in its folders; of several none is chosen."""
    if not path.exists():
        raise SceneError(path, "no such file or folder")
    level = [path]
    for depth in range(DEEPEST + 1):
        found = [(place, *fitting) for place in level if (fitting := _fitting(place))[0]]
        if len(found) > 1:
            named = ", ".join(str(place.relative_to(path)) for place, _, _ in found[:8]) + (", …" if len(found) > 8 else "")
            raise SceneError(path, f"is no scene, but {len(found)} are in its folders; name one of them: {named}")
        if found:
            return found[0]
        if depth == 0 and path.is_dir() and len(list_images(path)) > 1:
            raise SceneError(path, f"holds pictures, but {NO_POSES}")
        level = [inner for place in level for inner in folders_in(place) if not inner.is_symlink()]
        if len(level) > MOST_FOLDERS:
            break
    raise SceneError(path, _why_no_scene(path))


def _why_no_scene(path: Path) -> str:
    if path.suffix.lower() == ".npz" and path.is_file():
        there = ", ".join(sorted(array_names(path))[:8])
        return (
            f"holds {there}; a scene has images, poses and focal" if there else "is no readable .npz: a copy that was broken off?"
        )
    if not path.is_dir():
        return "is no file of a known form: name a transforms.json, an .npz or a folder (photos or a video: `taichi-nerf photos`)"
    for inner in sorted(folders_in(path), key=lambda inner: inner.name not in USUAL_NAMES):
        with suppress(OSError):
            if len(list_images(inner)) > 1:
                return f"holds pictures in {inner.name}, but {NO_POSES}"
    there = ", ".join(sorted(child.name for child in path.iterdir())[:8])
    return f"holds no scene of a known form (found: {there or 'nothing'}); docs/scenes.md lists the forms"


def _fitting(path: Path) -> tuple[str, str]:
    with suppress(PermissionError):
        for name in READERS:
            reason = import_module(f"taichi_nerf.scenes.{name}").fits(path)
            if reason:
                return name, reason
    return "", ""


def read_source(path: Path, allow_outside: bool = False) -> Source:
    """The scene as its files describe it."""
    place, name, reason = find_scene(path)
    read: Callable[[Path, bool], Source] = import_module(f"taichi_nerf.scenes.{name}").read
    source = read(place, allow_outside)
    if not source.names:
        raise SceneError(place, "has no views")
    inner = [] if place == path else [f"{path} is no scene itself: {place.relative_to(path)} is, the only one in its folders"]
    return replace(source, notes=[f"read as {name}: {reason}", *inner, *source.notes])


def load_scene(
    path: Path | str,
    *,
    views: list[int] | None = None,
    n_views: int | None = None,
    protocol: Protocol = "spread",
    downscale: float = 1.0,
    overrides: Overrides = Overrides(),  # noqa: B008
    allow_outside: bool = False,
    cache_bytes: int = CACHE_BYTES,
) -> SceneData:
    """Open a scene of any known form. What was decided stands in `notes`."""
    source = read_source(Path(path), allow_outside)
    splits, rule, split_notes = choose_splits(source, views, n_views, protocol)
    mapping, bounds, place_notes = normalise(source, overrides)
    cameras = source.cameras.moved(mapping.scale, mapping.rotation, mapping.translation)
    if not 1 <= downscale <= 64:
        raise SceneError(path, f"expected a factor from 1 to 64, got {downscale:g}", "downscale")
    if downscale != 1:
        sizes = np.maximum(np.rint(cameras.sizes / downscale), 1).astype(np.int64)
        cameras = cameras.resized(sizes)
    return SceneData(
        kind=source.kind,
        folder=Path(path),
        names=source.names,
        cameras=cameras,
        images=Images(source.image_files, cameras.sizes, cache_bytes, source.arrays),
        splits=splits,
        split_rule=rule,
        bounds=bounds,
        scene_from_source=mapping,
        masks=_masks(source, cameras.sizes, cache_bytes),
        depths=_depths(source, mapping.scale, cache_bytes),
        points=None if source.points is None else _moved(source.points, mapping, cameras.sizes / source.cameras.sizes),
        times=source.times,
        weights=source.weights,
        linear=source.linear,
        notes=[*source.notes, *_mask_notes(source), *split_notes, *place_notes],
        warnings=[
            *source.warnings,
            *out_of_reach(source.names, source.cameras),
            *out_of_sight(source, overrides, mapping, bounds, splits["train"]),
        ],
        ndc=frustum(source, mapping),
    )


def _moved(points: Points, mapping: Similarity, ratio: Array) -> Points:
    """In scene units, and what was seen in the pixels of pictures that are `ratio` [n_views, 2] times as large."""
    moved = points._replace(positions=mapping(points.positions), seen_at=points.seen_at * ratio[points.seen_by])
    if points.errors is None:
        return moved
    return moved._replace(errors=points.errors * float(np.sqrt(ratio.prod(-1)).mean()))


def _masks(source: Source, sizes: Array, cache_bytes: int) -> Images | None:
    if source.mask_files is None:
        return None
    return Images(source.mask_files, sizes, cache_bytes, turns=source.mask_turns)


def _mask_notes(source: Source) -> list[str]:
    missing = [name for name, file in zip(source.names, source.mask_files or [], strict=False) if file is None]
    if not missing:
        return []
    return [f"{len(missing)} of {len(source.names)} views have no mask and count as a whole (the first is {missing[0]})"]


def _depths(source: Source, scale: float, cache_bytes: int) -> Depths | None:
    """Depth maps keep their own size: averaging depths across an edge would invent points in the air."""
    if source.depth is None:
        return None
    missing = np.array([file is None for file in source.depth.files])
    stand_in = next(file for file in source.depth.files if file is not None)
    files = [file or stand_in for file in source.depth.files]
    unit = source.depth.unit * (scale if source.depth.kind != "inverse" else 1 / scale)
    return Depths(Images(files, None, cache_bytes), unit, source.depth.kind, source.depth.invalid, missing)
