"""Any scene of pinhole pictures to mip-NeRF's multiscale form (Barron et al. 2021): each picture at full, half, quarter, … size.

OUT/metadata.json, OUT/images_<split>/000_d0.png …, as `multiscale` reads them; a pixel of level j weighs 4^j. The published code
needs near and far of every picture: of a scene that states none they are those that this package trains between.
Pictures are averaged over areas, by alpha where there is alpha; 8 bits are kept. All are RGBA: the published code takes the last
channel for alpha, whatever it is.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import PINHOLE, Array, opengl_to_opencv
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import Images
from taichi_nerf.scenes.multiscale import SPLITS
from taichi_nerf.scenes.normalise import normalise
from taichi_nerf.scenes.shrink import shrink
from taichi_nerf.scenes.source import Source
from taichi_nerf.scenes.splits import choose_splits
from taichi_nerf.scenes.unfinished import unfinished_folder
from taichi_nerf.scenes.write_png import eight_bits, write_png


def write_multiscale(source: Source, out: Path, n_scales: int = 4, report: Report = silent) -> list[str]:
    """Write a scene into a folder that does not exist or is empty, all of it or nothing. What was not kept comes back."""
    sizes, ratio = source.cameras.sizes, 2 ** (n_scales - 1)
    if n_scales < 1 or (sizes % ratio).any():
        w, h = sizes[(sizes % ratio).any(-1)][0] if (sizes % ratio).any() else sizes[0]
        raise SceneError(source.folder, f"pictures of {w} x {h} cannot be halved {n_scales - 1} times")
    if (source.cameras.models != PINHOLE).any():
        raise SceneError(source.folder, "the multiscale form has pinhole cameras only; this scene's lenses distort")
    images = Images(source.image_files, sizes, 0, source.arrays)
    poses = opengl_to_opencv(source.cameras.camera_to_worlds)  # its own inverse
    near_far = _near_far(source)
    tables: dict[str, dict[str, list[Any]]] = {}
    splits = {name: index for name, index in choose_splits(source)[0].items() if name in SPLITS and len(index)}
    n_done, n_views = 0, sum(map(len, splits.values()))
    with unfinished_folder(out) as unfinished:
        for split in sorted(splits, key=SPLITS.index):
            folder = unfinished / f"images_{split}"
            folder.mkdir()
            rows: list[dict[str, Any]] = []
            for i, view in enumerate(splits[split]):
                rows += _rows(source, int(view), _rgba(images[int(view)]), poses[view], near_far, folder, i, n_scales)
                n_done += 1
                report(n_done / n_views, f"picture {n_done} of {n_views}")
            tables[split] = {name: [row[name] for row in rows] for name in rows[0]}
        (unfinished / "metadata.json").write_text(json.dumps(tables), encoding="utf-8")
    said = (
        (source.mask_files is not None, "its masks"),
        (source.depth is not None, "its depth maps"),
        (source.points is not None, "its points"),
        (source.box is not None, "the box that bounds it"),
        (source.times is not None, "the times of its views"),
        (source.unbounded, "that it goes on behind its box"),
    )
    return [what for there, what in said if there]


def _near_far(source: Source) -> tuple[float, float]:
    """In the file's lengths."""
    if source.near_far is not None:
        return source.near_far
    mapping, bounds, _ = normalise(source)
    return bounds.near / mapping.scale, bounds.far / mapping.scale


def _rows(
    source: Source,
    view: int,
    picture: Array,
    pose: Array,
    near_far: tuple[float, float],
    folder: Path,
    number: int,
    n_scales: int,
) -> list[dict[str, Any]]:
    """Writes a view at all scales; what the tables say of each."""
    rows = []
    for level in range(n_scales):
        width, height = (int(side) >> level for side in source.cameras.sizes[view])
        fx, fy, cx, cy = (float(x) / 2**level for x in source.cameras.intrinsics[view])
        name = f"{number:03d}_d{level}.png"
        small = shrink(picture, width, height)
        write_png(folder / name, small)
        matrix = np.concatenate([pose, [[0, 0, 0, 1]]])
        row: dict[str, Any] = {
            "file_path": f"{folder.name}/{name}", "cam2world": matrix.tolist(), "width": width, "height": height,
            "focal": fx, "pix2cam": [[1 / fx, 0, -cx / fx], [0, -1 / fy, cy / fy], [0, 0, -1]],
            "label": level, "lossmult": float(4**level), "near": near_far[0], "far": near_far[1],
        }  # fmt: skip
        rows.append(row)
    return rows


def _rgba(pixels: Array) -> Array:
    """[h, w, 4] bytes."""
    pixels = eight_bits(pixels)
    if pixels.shape[2] == 4:
        return pixels
    color = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.concatenate([color, np.full_like(color[..., :1], 255)], -1)
