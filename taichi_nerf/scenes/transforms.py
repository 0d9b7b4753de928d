"""transforms.json of instant-ngp and of nerfstudio: captures, with real lenses.

    transforms.json     the file's lens (see transform_lenses), "frames": [{"file_path", "transform_matrix", …}, …], and
      aabb_scale        instant-ngp: how many times its unit cube the scene reaches; above 1 it has a surrounding
      scale, offset     instant-ngp: unit cube = scale · position + offset (0.33 and 0.5 if absent)
      aabb              instant-ngp: [[min x, y, z], [max x, y, z]] of the scene
      integer_depth_scale, enable_depth_loading       instant-ngp: lengths per count of the frames' `depth_path`
      depth_unit_scale_factor                         nerfstudio: the same for `depth_file_path`; millimetres if absent
      mask_path         a frame's mask: what is not black is looked at
      train_filenames, val_filenames, test_filenames  nerfstudio: the scene's own splits
      ply_file_path     nerfstudio: the sparse points, in the coordinates of the poses
      taichi_nerf       where the scene is, as `scene convert` writes it (own_fields)
      applied_transform, applied_scale                nerfstudio: what was done to COLMAP's coordinates; nothing to undo

or transforms_train.json and its siblings with the same fields, or any one such file named by its path. Poses are camera to world,
x right, y up, z backward, in the file's own world: the turn of axes and the scaling that instant-ngp does on reading concern
its own world only. Depths are along the optical axis.
"""

from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.scenes import transform_extras as extras
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import read_json
from taichi_nerf.scenes.images import has_alpha
from taichi_nerf.scenes.own_fields import read_own_fields
from taichi_nerf.scenes.source import Source
from taichi_nerf.scenes.transform_frames import Views, find_image, read_frames, require_views, transforms_files

SPLITS = ("train", "val", "test")


def fits(folder: Path) -> str:
    """transforms.json or its split siblings in a folder; or a JSON file with frames that have poses."""
    if folder.is_dir():
        return " and ".join(file.name for file in _files(folder).values())
    if folder.suffix.lower() != ".json" or not folder.is_file():
        return ""
    try:
        frames = read_json(folder).get("frames")
    except SceneError:
        return f"{folder.name}" if folder.name.startswith("transforms") else ""
    first = frames[0] if isinstance(frames, list) and frames else None
    return folder.name if isinstance(first, dict) and "file_path" in first else ""


def _files(folder: Path) -> dict[str, Path]:
    """Files by split; the one file without splits is under ""."""
    files = transforms_files(folder)
    whole = folder / "transforms.json"
    return files if len(files) > 1 or not whole.is_file() else {"": whole}


def read(folder: Path, allow_outside: bool) -> Source:
    files = _files(folder) if folder.is_dir() else {"": folder}
    folder = folder if folder.is_dir() else folder.parent
    views = Views(folder, allow_outside)
    data: dict[str, Any] = {}
    file = folder
    for split, path in files.items():
        fields = read_frames(views, path, split)
        if not data:
            data, file = fields, path
    require_views(views, file)
    if not views.splits:
        views.sort()
        _own_splits(views, data, file)
    box, unbounded, notes = extras.bounds(data, file, has_alpha=has_alpha([view.image for view in views.found]))
    if "" not in files and (folder / "transforms.json").is_file():
        notes.append("transforms.json lies beside the files of the splits and is not read")
    own = read_own_fields(data, file)
    points, point_notes, point_warnings = extras.points(data, file, views)
    depth, depth_notes = extras.depths(data, file, views)
    return Source(
        kind="transforms",
        folder=folder,
        names=[view.name for view in views.found],
        cameras=views.cameras,
        image_files=[view.image for view in views.found],
        splits={split: np.array(index, np.int64) for split, index in views.splits.items() if index},
        mask_files=views.masks,
        depth=depth,
        points=points,
        times=views.times,
        box=box,
        reach=extras.reach_of(data, file),
        linear=all(view.image.suffix.lower() in (".exr", ".hdr") for view in views.found),
        notes=[*notes, *depth_notes, *point_notes, *extras.lens_notes(views), *views.notes()],
        warnings=[*views.warnings(), *point_warnings, *extras.unused(data, views)],
        **{"unbounded": unbounded, **own},
    )


def _own_splits(views: Views, data: dict[str, Any], file: Path) -> None:
    """nerfstudio's lists of file names. A picture that does not exist was counted among the missing frames."""
    for split in SPLITS:
        names = data.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SceneError(file, "expected a list of file names", f"{split}_filenames")
        for name in dict.fromkeys(names):
            image = find_image(views, name, f"{file}: {split}_filenames")
            number = views.number_of.get(image.resolve()) if image else None
            if number is not None:
                views.put_into(split, number)
            elif image is not None:
                raise SceneError(file, f"names {name!r}, which no frame shows", f"{split}_filenames")
            elif name not in views.missing:
                views.missing.append(name)
