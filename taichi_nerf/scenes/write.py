"""Any scene to a folder with a transforms.json, as instant-ngp and nerfstudio read it, and this package too.

    OUT/transforms.json     lenses, poses (x right, y up, z backward), splits, place; written last
    OUT/images/…            the pictures: copied, or hard links to them; decoded only where a form has no files for them, or EXIF
                            turns them
    OUT/masks/… depths/…    the same, where there are some
    OUT/points.ply          sparse points, in the coordinates of the poses

Poses and lenses are the scene's own, digit for digit. What the form cannot say comes back as a list of sentences.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, MODELS, OPENCV, ORTHOGRAPHIC, Array, Cameras, opengl_to_opencv
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import EXTENSIONS, natural_key, read_image, stored_size
from taichi_nerf.scenes.normalise import CUBE, Overrides, normalise
from taichi_nerf.scenes.own_fields import own_fields
from taichi_nerf.scenes.ply import ply_bytes
from taichi_nerf.scenes.source import Source
from taichi_nerf.scenes.splits import choose_splits
from taichi_nerf.scenes.unfinished import NO_ROOM, unfinished_folder
from taichi_nerf.scenes.write_png import eight_bits, sixteen_bits, write_png

COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
SURROUNDING = 16  # aabb_scale of a capture with a surrounding
KEPT_SPLITS = ("train", "val", "test")


def write_transforms(
    source: Source,
    out: Path,
    *,
    link: bool = False,
    views: list[int] | None = None,
    n_views: int | None = None,
    overrides: Overrides = Overrides(),  # noqa: B008
    report: Report = silent,
) -> list[str]:
    """Write a scene into a folder that does not exist or is empty, all of it or nothing. What was not kept comes back."""
    with unfinished_folder(out) as unfinished:
        return _write(source, unfinished, link, views, n_views, overrides, report)


def _write(
    source: Source,
    out: Path,
    link: bool,
    views: list[int] | None,
    n_views: int | None,
    overrides: Overrides,
    report: Report,
) -> list[str]:
    names = picture_names(source)
    shared, lenses = lens_fields(source)
    poses = opengl_to_opencv(source.cameras.camera_to_worlds)  # its own inverse
    frames: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        frame = {"file_path": f"images/{_picture(source, i, out / 'images', name, link)}"}
        matrix = [*poses[i].tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append({**frame, "transform_matrix": matrix, **lenses[i]})
        if source.times is not None:
            frames[i]["time"] = float(source.times[i])
        report((i + 1) / len(names), f"picture {i + 1} of {len(names)}")
    fields = {**shared, **_bounds(source, overrides), **own_fields(source, overrides)}
    chosen = views is not None or n_views is not None
    splits = choose_splits(source, views, n_views)[0] if chosen else source.splits
    for split in KEPT_SPLITS:
        if split in splits and len(splits[split]):
            fields[f"{split}_filenames"] = [frames[i]["file_path"] for i in splits[split]]
    _masks(source, out, names, frames, link)
    fields.update(_depths(source, out, names, frames, link))
    if source.points is not None and len(source.points.positions):
        (out / "points.ply").write_bytes(ply_bytes(source.points.positions, source.points.colors))
        fields["ply_file_path"] = "points.ply"
    (out / "transforms.json").write_text(_spell(fields, frames), encoding="utf-8")
    return _not_kept(source, splits)


def _spell(fields: dict[str, Any], frames: list[dict[str, Any]]) -> str:
    """JSON with a line a frame. Numbers are written so that they are read back to the last bit."""
    head = json.dumps(fields, indent=1)[:-2] + ("," if fields else "")
    return head + '\n "frames": [\n  ' + ",\n  ".join(json.dumps(frame) for frame in frames) + "\n ]\n}\n"


def picture_names(source: Source) -> list[str]:
    """File names for the views, whose natural order is the scene's order: it decides which views are held out. Masks and depth
    maps have the same names with other endings."""
    names = [Path(name).name for name in source.names]
    if len({Path(name).stem.lower() for name in names}) == len(names) and names == sorted(names, key=natural_key):
        return names
    return [f"{i:05d}_{name}" for i, name in enumerate(names)]


def lens_fields(source: Source) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fields all views share, and those of each view."""
    cameras = source.cameras
    if (cameras.models == ORTHOGRAPHIC).any():
        raise SceneError(source.folder, "transforms.json has no parallel projections")
    each = [_lens(cameras, i) for i in range(len(cameras))]
    sphere = np.stack([cameras.sizes[:, 0] / (2 * np.pi), cameras.sizes[:, 1] / np.pi, *(cameras.sizes.T / 2)], -1)
    cut = (cameras.models == EQUIRECTANGULAR) & (np.abs(cameras.intrinsics - sphere).max(-1) > 1e-6)
    if cut.any():
        raise SceneError(source.folder, f"{cut.sum()} panoramas are no whole spheres, which transforms.json cannot say")
    if all(lens == each[0] for lens in each):
        return each[0], [{} for _ in each]
    return {}, each


def _lens(cameras: Cameras, i: int) -> dict[str, Any]:
    (width, height), model, k = cameras.sizes[i].tolist(), int(cameras.models[i]), cameras.distortion[i]
    found: dict[str, Any] = {"w": width, "h": height}
    found.update(zip(("fl_x", "fl_y", "cx", "cy"), cameras.intrinsics[i].tolist(), strict=True))
    coefficients = dict(zip(COEFFICIENTS, k.tolist(), strict=True))
    if model == OPENCV and k[3:6].any():
        return {"camera_model": "FULL_OPENCV", **found, **coefficients}
    if model == OPENCV:
        return {
            "camera_model": "OPENCV",
            **found,
            **{name: coefficients[name] for name in ("k1", "k2", "k3", "p1", "p2")},
        }
    if model == FISHEYE:
        return {"camera_model": "OPENCV_FISHEYE", **found, **{name: coefficients[name] for name in COEFFICIENTS[:4]}}
    return {"camera_model": "EQUIRECTANGULAR" if MODELS[model] == "equirectangular" else "PINHOLE", **found}


def _bounds(source: Source, overrides: Overrides) -> dict[str, Any]:
    """For other programs: the box, where the file has one, the user decides it, or without it the scene would seem unbounded."""
    unbounded = source.unbounded if overrides.unbounded is None else overrides.unbounded
    stated = source.reach is not None and (source.reach > 1) == unbounded
    fields: dict[str, Any] = {"aabb_scale": source.reach if stated else SURROUNDING if unbounded else 1}
    if source.box is not None and not overrides.place:
        fields["aabb"] = source.box.tolist()
    elif overrides.place or not unbounded:
        to_file = normalise(source, overrides)[0].inverse()
        fields["aabb"] = (to_file(np.zeros(3)) + to_file.scale * CUBE).tolist()
    return fields


def _picture(source: Source, i: int, folder: Path, name: str, link: bool) -> str:
    """The name under which a view's picture was written."""
    folder.mkdir(exist_ok=True)
    file = source.image_files[i]
    if source.arrays is not None:
        pixels = np.asarray(source.arrays[i])
        target = folder / f"{Path(name).stem if Path(name).suffix.lower() in EXTENSIONS else name}.png"
    elif stored_size(file)[1] != 1:  # other programs ignore how EXIF has it shown
        pixels, target = read_image(file), folder / f"{name}.png"
        pixels = pixels if pixels.dtype == np.uint8 else sixteen_bits(pixels)
    else:
        if file.suffix.lower() not in EXTENSIONS:
            raise SceneError(file, f"{file.suffix or 'such'} pictures are not what other programs read beside a transforms.json")
        target = folder / (name if Path(name).suffix.lower() == file.suffix.lower() else name + file.suffix)
        _copy(file, target, link)
        return target.name
    pixels = pixels if pixels.dtype == np.uint16 else eight_bits(pixels)
    write_png(target, pixels if pixels.ndim == 2 or pixels.shape[2] > 1 else pixels[..., 0])
    return target.name


def _copy(file: Path, target: Path, link: bool) -> None:
    try:
        if link:
            os.link(file.resolve(), target)
        else:
            shutil.copyfile(file, target)
    except FileNotFoundError:
        raise SceneError(file, "no such file") from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        hint = "; leave out --link where the two are on different file systems" if link else ""
        raise SceneError(file, f"cannot be {'linked' if link else 'copied'}: {error.strerror}{hint}") from None


def _masks(source: Source, out: Path, names: list[str], frames: list[dict[str, Any]], link: bool) -> None:
    turns = source.mask_turns or [0] * len(names)
    for name, frame, file, turned in zip(names, frames, source.mask_files or [], turns, strict=False):
        if file is None:
            continue
        (out / "masks").mkdir(exist_ok=True)
        target = out / "masks" / f"{Path(name).stem}{'.png' if turned else file.suffix}"
        if turned:
            write_png(target, np.rot90(read_image(file), -turned).squeeze())
        else:
            _copy(file, target, link)
        frame["mask_path"] = f"masks/{target.name}"


def _depths(source: Source, out: Path, names: list[str], frames: list[dict[str, Any]], link: bool) -> dict[str, Any]:
    """Depth maps as they are if they are along the axis with 0 for unknown, else as .npy in the scene's lengths."""
    depth = source.depth
    if depth is None:
        return {}
    (out / "depths").mkdir()
    as_they_are = depth.kind == "z" and depth.invalid == 0 and all(f is None or f.suffix.lower() == ".png" for f in depth.files)
    for i, (name, file) in enumerate(zip(names, depth.files, strict=True)):
        if file is None:
            continue
        target = out / "depths" / (Path(name).stem + (file.suffix if as_they_are else ".npy"))
        if as_they_are:
            _copy(file, target, link)
        else:
            np.save(target, _along_axis(source, i, read_image(file)[..., 0]))
        frames[i]["depth_file_path"] = f"depths/{target.name}"
    return {"depth_unit_scale_factor": depth.unit if as_they_are else 1.0}


def _along_axis(source: Source, i: int, raw: Array) -> Array:
    """[h, w] float32 depths along the optical axis in the scene's lengths, 0 where unknown."""
    assert source.depth is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        values = raw.astype(np.float64) * source.depth.unit
        values = 1 / values if source.depth.kind == "inverse" else values
    if source.depth.kind == "ray":
        camera = source.cameras[[i]].resized(np.array([raw.shape[::-1]]))
        x, y = np.meshgrid(np.arange(raw.shape[1]) + 0.5, np.arange(raw.shape[0]) + 0.5)
        directions = camera.rays(0, np.stack([x.ravel(), y.ravel()], -1))[1]
        values = values * (directions @ camera.forwards[0]).reshape(raw.shape)
    known = (raw != source.depth.invalid) & np.isfinite(values) & (values > 0)
    return np.where(known, values, 0).astype(np.float32)


def _not_kept(source: Source, splits: dict[str, Array]) -> list[str]:
    others = [split for split in splits if split not in KEPT_SPLITS and len(splits[split])]
    said = (
        (source.weights is not None, "the weights of its views"),
        (bool(others), f"its splits {', '.join(others)}"),
        (source.points is not None and len(source.points.seen) > 0, "which view saw which point where"),
        (source.linear and not _all_linear(source), "that its colors are linear"),
        (source.arrays is not None and source.arrays[0].dtype not in (np.uint8, np.uint16), "more than 8 bits of its colors"),
    )
    return [what for there, what in said if there]


def _all_linear(source: Source) -> bool:
    return all(file.suffix.lower() in (".exr", ".hdr") for file in source.image_files)
