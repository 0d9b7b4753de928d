"""Render a procedural scene into a folder that every reader of transforms files opens.

    transforms_train.json, transforms_val.json, transforms_test.json    poses x right, y up, z backward; `camera_angle_x`; `aabb`
    train/r_0.png                  color and alpha, 8 bits (rooms and landscapes have no alpha: every pixel is covered)
    train/depth/r_0.png            depth along the optical axis, 16 bits, times `integer_depth_scale`; 0 is unmeasured
    train/normals/r_0.png          normals of the world, (n + 1) / 2 in 8 bits; black where nothing is hit
    train/objects/r_0.png          number of the object plus one (modulo 255 beyond), 8 bits; 0 where nothing is hit
    procedural.json                family and seed, from which `ground_truth` has everything to full precision

Frames of `dynamic` have a `time` from 0 to 1, those of `heads` a `yaw` in degrees. Depth, normals and objects are those of the
ray through the pixel's centre.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import Array, Cameras, make_cameras, opengl_to_opencv
from taichi_nerf.procedural.ground_truth import FILE, FORM
from taichi_nerf.procedural.pictures import Picture, take_picture
from taichi_nerf.scenes.procedural import Family, describe, family_of, place_cameras
from taichi_nerf.scenes.unfinished import unfinished_folder
from taichi_nerf.scenes.write_png import write_png

DEEPEST = 65535  # of 16 bits
FRAMES_OF_REACH = 16.0  # aabb_scale of unbounded scenes: tells readers that there is a surrounding
Report = Callable[[int, int], None]


def make_scene(
    family: str,
    out_folder: Path | str,
    *,
    seed: int = 0,
    n_views: int = 100,
    n_val: int = 5,
    n_test: int = 20,
    size: int | tuple[int, int] = 200,
    n_samples: int | None = None,
    report: Report = lambda done, of: None,
) -> Path:
    """Make a scene and return its folder. The same arguments give the same files, up to the last bit on one backend.

    `size` is the pictures' width and height, `n_samples`² the rays of a pixel (None: as the family needs); `report(done, of)`
    hears of every picture. The folder must not exist, or be empty; it appears when it is complete.
    """
    chosen = family_of(family)
    width, height = (size, size) if isinstance(size, int) else size
    n_samples = n_samples or chosen.n_samples
    counts = {"train": n_views, "val": n_val, "test": n_test}
    _require(family, seed, counts, width, height, n_samples)
    out = Path(out_folder)
    with unfinished_folder(out) as unfinished:
        done, total = 0, sum(counts.values())
        for split, n in counts.items():
            for _ in _write_split(unfinished, split, n, chosen, family, seed, (width, height), n_samples):
                done += 1
                report(done, total)
        _write_json(unfinished / FILE, {"form": FORM, "family": family, "seed": seed, "about": chosen.about})
    return out


def cameras_of(family: str, split: str, n: int, seed: int, width: int, height: int) -> tuple[Cameras, Array | None, Array]:
    """Cameras, yaws of heads, and times [n] of a split."""
    chosen = family_of(family)
    number = ("train", "val", "test").index(split)
    poses, yaws = place_cameras(family, describe(family, seed), n, seed * 3 + number)
    focal = width / 2 / math.tan(chosen.field_of_view / 2)
    cameras = make_cameras(poses, [focal, focal, width / 2, height / 2], [width, height])
    order = np.random.default_rng([seed, number, 5]).permutation(n)  # so that a moment is not tied to a place
    times = (order + 0.37 * number) / max(n, 1) if chosen.moves else np.zeros(n)
    return cameras, yaws, times


def _write_split(
    folder: Path, split: str, n: int, chosen: Family, family: str, seed: int, size: tuple[int, int], n_samples: int
) -> Any:
    """Yields after every picture."""
    if not n:
        return
    for name in ("", "depth", "normals", "objects"):
        (folder / split / name).mkdir(parents=True, exist_ok=True)
    cameras, yaws, times = cameras_of(family, split, n, seed, *size)
    unit = chosen.unit or 10.0 ** math.ceil(math.log10(chosen.far / DEEPEST))
    scene = describe(family, seed)
    frames: list[dict[str, Any]] = []
    for i in range(n):
        if chosen.moves:
            scene = describe(family, seed, float(times[i]))
        picture = take_picture(scene, cameras, i, n_samples)
        _write_picture(folder / split, f"r_{i}.png", picture, scene.opaque, unit)
        pose = np.eye(4)
        pose[:3] = opengl_to_opencv(cameras.camera_to_worlds[[i]])[0]  # the same flip both ways
        frame: dict[str, Any] = {
            "file_path": f"./{split}/r_{i}",
            "transform_matrix": pose.tolist(),
            "depth_file_path": f"./{split}/depth/r_{i}.png",
        }
        if chosen.moves:
            frame["time"] = float(times[i])
        if yaws is not None:
            frame["yaw"] = math.degrees(yaws[i])
        frames.append(frame)
        yield i
    data: dict[str, Any] = {
        "camera_angle_x": chosen.field_of_view,
        "integer_depth_scale": unit,
        "aabb": scene.box.tolist(),
    }
    if family == "unbounded":
        data["aabb_scale"] = FRAMES_OF_REACH
    _write_json(folder / f"transforms_{split}.json", {**data, "frames": frames})


def _write_picture(folder: Path, name: str, picture: Picture, opaque: bool, unit: float) -> None:
    color = picture.color if opaque else np.concatenate([picture.color, picture.opacity[..., None]], -1)
    _write_png(folder / name, np.rint(color * 255).astype(np.uint8))
    counts = np.rint(picture.depth.astype(np.float64) / unit)
    _write_png(folder / "depth" / name, np.where(counts <= DEEPEST, counts, 0).astype(np.uint16))
    hit = picture.objects >= 0
    normals = np.where(hit[..., None], np.rint((picture.normals + 1) * 127.5), 0)
    _write_png(folder / "normals" / name, normals.astype(np.uint8))
    _write_png(folder / "objects" / name, np.where(hit, picture.objects % 255 + 1, 0).astype(np.uint8))


def _write_png(file: Path, pixels: Array) -> None:
    write_png(file, pixels, compress_level=3)  # a third of the time of the default, for a tenth more bytes


def _write_json(file: Path, data: dict[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=1), encoding="utf-8")


def _require(family: str, seed: int, counts: dict[str, int], width: int, height: int, n_samples: int) -> None:
    if not 0 <= seed < 2**31:
        raise ValueError(f"{family}: the seed has to be from 0 to 2^31 - 1, got {seed}")
    if counts["train"] < 1 or min(counts.values()) < 0 or max(counts.values()) > 100_000:
        raise ValueError(f"{family}: expected at least one view to train on and at most 100,000 of each sort, got {counts}")
    if not (1 <= width <= 8192 and 1 <= height <= 8192):
        raise ValueError(f"{family}: pictures have to be 1 to 8192 pixels wide and high, got {width} x {height}")
    if not 1 <= n_samples <= 16:
        raise ValueError(f"{family}: n_samples has to be from 1 to 16, got {n_samples}")
