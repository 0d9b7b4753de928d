"""A trained run along a camera path, frame by frame: colors, depths, opacities and normals side by side.

Every frame's depths are colored over one range, which a few small frames spread along the path tell beforehand.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taichi_nerf import trajectories
from taichi_nerf.camera_path import read_camera_path
from taichi_nerf.cameras import Cameras
from taichi_nerf.choices import LEVELS, PATHS, PICTURES
from taichi_nerf.export.colors import side_by_side
from taichi_nerf.scenes import SceneData
from taichi_nerf.scenes.llff import NDC_SLACK
from taichi_nerf.training.content_hash import content_hash
from taichi_nerf.training.pictures import picture_by, shown
from taichi_nerf.training.run import Run

FPS, N_FRAMES = 30.0, 120
N_PROBES, PROBE_HEIGHT = 8, 48  # frames, and their pixels, that tell the range of depths


def cameras_of_path(
    scene: SceneData, path: str | Path, n_frames: int | None = None, width: int | None = None, height: int | None = None
) -> tuple[Cameras, float]:
    """The frames of a path by name, or of a camera path file, and how many a second the file has (30 otherwise)."""
    fps, path = FPS, str(path)
    if n_frames is not None and n_frames < 1:
        raise ValueError(f"a camera path has at least one frame, not {n_frames}")
    views = scene.cameras[scene.splits["train"]]
    if path == "test":
        found = scene.cameras[scene.splits["test"]] if len(scene.splits.get("test", ())) else None
        if found is None:
            raise ValueError(f"{scene.folder}: has no test views to render; choose another --path")
    elif path == "orbit":
        found = trajectories.orbit(views, n_frames or N_FRAMES)
    elif path == "spiral":
        found = trajectories.spiral(views, n_frames or N_FRAMES, near_far=bounds_of_llff(scene))
    elif path == "interpolate":
        found = trajectories.interpolate(views, n_frames or N_FRAMES)
    else:
        if Path(path).suffix.lower() != ".json":
            raise ValueError(f"--path {path}: expected {', '.join(PATHS)} or a camera path file that ends in .json")
        found, fps = read_camera_path(Path(path))
    if path not in PATHS[:3] and n_frames is not None:
        found = trajectories.evenly(found, n_frames)
    if width is not None or height is not None:
        found = trajectories.framed(found, width, height)
    sizes = np.unique(found.sizes, axis=0)
    if len(sizes) > 1:
        named = ", ".join(f"{wide} x {high}" for wide, high in sizes[:8]) + (", …" if len(sizes) > 8 else "")
        raise ValueError(
            f"{scene.folder}: its test views are of {len(sizes)} sizes ({named}), and frames are of one: give --width, --height "
            "or both; `taichi-nerf evaluate --save-images` keeps their sizes"
        )
    return found, fps


def bounds_of_llff(scene: SceneData) -> tuple[float, float] | None:
    """The nearest and farthest depth that LLFF's poses file states, in scene units."""
    return None if scene.ndc is None else (scene.ndc.near / NDC_SLACK, scene.bounds.far)


def depth_range(run: Run, cameras: Cameras) -> tuple[float, float]:
    """Near and far of what the path sees."""
    chosen = np.unique(np.linspace(0, len(cameras) - 1, N_PROBES).round().astype(int))
    ratio = PROBE_HEIGHT / cameras.sizes[chosen].max(-1, keepdims=True)
    small = cameras[chosen].resized(np.maximum(np.rint(cameras.sizes[chosen] * ratio), 1))
    pictures = (picture_by(run.model, small, i) for i in range(len(small)))
    seen = torch.cat([picture.depth[picture.opacity > 0.5].cpu() for picture in pictures])
    if not len(seen):
        return max(run.scene.bounds.near, 1e-3), run.scene.bounds.far
    near, far = np.quantile(seen.numpy(), [0.01, 0.99]).tolist()
    return near, max(far, 1.01 * near)


def frames(
    run: Run,
    cameras: Cameras,
    numbers: Sequence[int],
    what: Sequence[str] = ("color",),
    antialias: int = 1,
    report: Callable[[float], None] = lambda done: None,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(number, [h, w, 3] bytes) of each of these frames, rendered as they are asked for, with all kinds of `what` side by side.
    `report` is told the share of the frame that is being rendered."""
    if not what or set(what) - set(PICTURES):
        raise ValueError(f"what: expected some of {', '.join(PICTURES)}, got {', '.join(map(repr, what)) or 'nothing'}")
    limits = depth_range(run, cameras) if "depth" in what and len(numbers) else (1.0, 2.0)
    look = LEVELS[run.config.run.background], limits, run.scene.bounds.unbounded, True
    for number in numbers:
        picture = picture_by(run.model, cameras, number, with_normals="normals" in what, antialias=antialias, report=report)
        yield number, side_by_side([shown(picture, kind, *look) for kind in what])


def about_frames(run: Run, cameras: Cameras, what: Sequence[str], antialias: int = 1) -> dict[str, str | int]:
    """What tells the frames of one render from those of another."""
    about = {"step": run.n_steps, "antialias": antialias, **about_path(cameras, what)}
    return {**about, "checkpoint": content_hash([run.folder.checkpoint])}


def about_path(cameras: Cameras, what: Sequence[str]) -> dict[str, str | int]:
    """The part of it that is not of the model."""
    return {
        "what": ",".join(what),
        "n_frames": len(cameras),
        "size": " ".join(f"{width}x{height}" for width, height in np.unique(cameras.sizes, axis=0)),
        "cameras": digest_of(astuple(cameras)),
    }


def digest_of(parts: Iterable[Any]) -> str:
    """16 hexadecimal digits that tell arrays, texts or None from others."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(str(part).encode() if part is None or isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
