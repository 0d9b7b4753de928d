"""Any scene of pinhole pictures to mip-NeRF's multiscale form (Barron et al. 2021): each picture at full, half, quarter, … size.

OUT/metadata.json, OUT/images_<split>/000_d0.png …, as `multiscale` reads them; a pixel of level j weighs 4^j.
Pictures are averaged over areas, by alpha where there is alpha; 8 bits are kept.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from taichi_nerf.cameras import PINHOLE, Array, opengl_to_opencv
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import Images
from taichi_nerf.scenes.shrink import shrink
from taichi_nerf.scenes.source import Source
from taichi_nerf.scenes.splits import choose_splits
from taichi_nerf.scenes.unfinished import unfinished_folder


def write_multiscale(
    source: Source, out: Path, n_scales: int = 4, report: Callable[[float, str], None] = lambda done, text: None
) -> list[str]:
    """Write a scene into a folder that does not exist or is empty, all of it or nothing. What was not kept comes back."""
    sizes, ratio = source.cameras.sizes, 2 ** (n_scales - 1)
    if n_scales < 1 or (sizes % ratio).any():
        w, h = sizes[(sizes % ratio).any(-1)][0] if (sizes % ratio).any() else sizes[0]
        raise SceneError(source.folder, f"pictures of {w} x {h} cannot be halved {n_scales - 1} times")
    if (source.cameras.models != PINHOLE).any():
        raise SceneError(source.folder, "the multiscale form has pinhole cameras only; this scene's lenses distort")
    images = Images(source.image_files, sizes, 0, source.arrays)
    poses = opengl_to_opencv(source.cameras.camera_to_worlds)  # its own inverse
    tables: dict[str, dict[str, list[Any]]] = {}
    splits = choose_splits(source)[0]
    with unfinished_folder(out) as unfinished:
        written = [name for name in ("train", "val", "test") if len(splits.get(name, ()))]
        n, done = sum(len(splits[name]) for name in written), 0
        for split in written:
            folder = unfinished / f"images_{split}"
            folder.mkdir()
            rows = []
            for i, view in enumerate(splits[split]):
                rows += _rows(source, int(view), _bytes(images[int(view)]), poses[view], folder, i, n_scales)
                done += 1
                report(done / n, f"picture {done} of {n}")
            tables[split] = {name: [row[name] for row in rows] for name in rows[0]}
        (unfinished / "metadata.json").write_text(json.dumps(tables), encoding="utf-8")
    said = (
        (source.mask_files is not None, "its masks"),
        (source.depth is not None, "its depth maps"),
        (source.points is not None, "its points"),
        (source.box is not None, "the box that bounds it"),
        (source.times is not None, "the times of its views"),
    )
    return [what for there, what in said if there]


def _rows(
    source: Source, view: int, picture: Array, pose: Array, folder: Path, number: int, n_scales: int
) -> list[dict[str, Any]]:
    """Writes a view at all scales; what the tables say of each."""
    rows = []
    for level in range(n_scales):
        width, height = (int(side) >> level for side in source.cameras.sizes[view])
        fx, fy, cx, cy = (float(x) / 2**level for x in source.cameras.intrinsics[view])
        name = f"{number:03d}_d{level}.png"
        small = shrink(picture, width, height)
        imageio.imwrite(folder / name, small if small.shape[2] > 1 else small[..., 0])
        matrix = np.concatenate([pose, [[0, 0, 0, 1]]])
        row: dict[str, Any] = {
            "file_path": f"{folder.name}/{name}", "cam2world": matrix.tolist(), "width": width, "height": height,
            "focal": fx, "pix2cam": [[1 / fx, 0, -cx / fx], [0, -1 / fy, cy / fy], [0, 0, -1]],
            "label": level, "lossmult": float(4**level),
        }  # fmt: skip
        if source.near_far is not None:
            row.update(near=source.near_far[0], far=source.near_far[1])
        rows.append(row)
    return rows


def _bytes(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return pixels
    values = pixels / 257 if pixels.dtype == np.uint16 else np.clip(pixels, 0, 1) * 255.0
    return np.rint(values).astype(np.uint8)
