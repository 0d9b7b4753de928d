"""The frames of transforms files, for the readers `blender` and `transforms`: from JSON to views, and from views to a Source.

A file holds an object with a list `frames`; a frame names its picture (`file_path`, from the file's folder on, with or without
extension) and its pose (`transform_matrix`, camera to world, x right, y up, z backward). Everything else is optional:
`time`, `mask_path`, `depth_file_path` (nerfstudio) or `depth_path` (instant-ngp), and the lens (see transform_lenses).
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.cameras import Cameras, opengl_to_opencv
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, number, pose, read_json
from taichi_nerf.scenes.images import EXTENSIONS, image_size, natural_key, stored_size
from taichi_nerf.scenes.lens import Lens, cameras_of
from taichi_nerf.scenes.shown import alike, another_shape, as_its_camera_saw, turned
from taichi_nerf.scenes.source import Array, counted
from taichi_nerf.scenes.transform_lenses import LARGEST_SIDE, Fields, read_lens

DEPTH_FIELDS = ("depth_file_path", "depth_path")
FEW = 3  # messages of one sort that are spelt out


@dataclass(frozen=True)
class View:
    name: str
    image: Path
    pose: Array  # [3, 4] OpenCV
    lens: Lens  # in the picture's pixels
    notes: list[str]  # about the lens, as are
    warnings: list[str]
    time: float | None
    mask: Path | None
    depth: Path | None


@dataclass
class Views:
    """What the files of one scene hold, in the order in which it was found."""

    folder: Path
    allow_outside: bool
    found: list[View] = field(default_factory=list)
    splits: dict[str, list[int]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # pictures that frames name and that are not there
    missing_companions: list[str] = field(default_factory=list)  # masks and depth maps
    repeated: list[str] = field(default_factory=list)
    trained_on: set[int] = field(default_factory=set)
    also_trained_on: list[str] = field(default_factory=list)  # views that a test or validation split names too
    turned: list[str] = field(default_factory=list)  # views whose pictures EXIF turns
    passes: list[str] = field(default_factory=list)  # depth and normal renderings listed as frames
    number_of: dict[Path, int] = field(default_factory=dict)  # view of a picture

    @property
    def cameras(self) -> Cameras:
        return cameras_of([view.pose for view in self.found], [view.lens for view in self.found])

    @property
    def masks(self) -> list[Path | None] | None:
        return [view.mask for view in self.found] if any(view.mask for view in self.found) else None

    @property
    def times(self) -> Array | None:
        given = [view.time for view in self.found if view.time is not None]
        if not given:
            return None
        if len(given) < len(self.found):
            raise SceneError(self.folder, f"{len(given)} of {len(self.found)} frames have a time; expected all or none", "time")
        low, high = min(given), max(given)
        if low >= 0 and high <= 1:
            return np.array(given)
        return (np.array(given) - low) / ((high - low) or 1.0)

    def put_into(self, split: str, view: int) -> None:
        """A view that is trained on is never tested on."""
        if split == "train":
            self.trained_on.add(view)
        elif view in self.trained_on:
            self.also_trained_on.append(self.found[view].name)
            return
        self.splits.setdefault(split, []).append(view)

    def sort(self) -> None:
        """Pictures in natural order, as every eighth of them is held out. Only while there are no splits."""
        self.found.sort(key=lambda view: natural_key(view.name))
        self.number_of = {view.image.resolve(): i for i, view in enumerate(self.found)}

    def notes(self) -> list[str]:
        times = [view.time for view in self.found if view.time is not None]
        outside = bool(times) and not (min(times) >= 0 and max(times) <= 1)
        return [
            *tell([note for view in self.found for note in view.notes]),
            *([f"times {min(times):g} to {max(times):g} are mapped to 0 to 1"] if outside else []),
            *(
                [f"{len(self.turned)} pictures have an EXIF orientation, which others ignore: their cameras are turned with them"]
                if self.turned
                else []
            ),
            *([f"{len(self.passes)} depth and normal renderings listed as frames are left out"] if self.passes else []),
        ]

    def warnings(self) -> list[str]:
        lists = (
            (self.missing, "frames are skipped: their pictures do not exist"),
            (self.repeated, "frames are skipped: they repeat a picture"),
            (self.also_trained_on, "pictures are left out of a test or validation split: they are trained on"),
            (self.missing_companions, "masks or depth maps do not exist"),
        )
        return counted(*lists) + tell([warning for view in self.found for warning in view.warnings])


def read_frames(views: Views, file: Path, split: str = "") -> dict[str, Any]:
    """Add the frames of a file, to a split if it has a name. The file's own fields are returned."""
    data = read_json(file)
    frames = data.get("frames")
    if not isinstance(frames, list):
        raise SceneError(file, "expected a list", "frames")
    entries = [_entry(frame, file, f"frames[{i}]") for i, frame in enumerate(frames)]
    named = {path for _, path in entries}
    here: set[Path] = set()
    for i, (frame, path) in enumerate(entries):
        base = without_pass(path)
        if base and base in named:
            views.passes.append(path)
            continue
        image = find_image(views, path, f"{file}: frames[{i}].file_path")
        if image is None:
            views.missing.append(path)
            continue
        key = image.resolve()
        if key in here:
            views.repeated.append(path)
            continue
        here.add(key)
        if key not in views.number_of:
            views.number_of[key] = len(views.found)
            views.found.append(_view(views, Fields(data, frame, file, f"frames[{i}]"), image))
        if split:
            views.put_into(split, views.number_of[key])
    return data


def find_image(views: Views, path: str, named_in: str) -> Path | None:
    """The picture of that name, or of that name and an extension; None if there is none."""
    for spelling in dict.fromkeys((path, path.replace("\\", "/"))):
        stem = inside(views.folder, spelling, views.allow_outside, named_in)
        if stem.is_file():
            return stem
        for extension in EXTENSIONS if stem.name else ():
            for candidate in (stem.with_name(stem.name + extension), stem.with_name(stem.name + extension.upper())):
                if candidate.is_file():
                    return candidate
    return None


def without_pass(path: str) -> str:
    """The frame that a depth or normal rendering belongs to (`r_0_depth_0001` → `r_0`), or "" for other names."""
    stem, dot, extension = path.rpartition(".") if "." in path.rsplit("/", 1)[-1] else (path, "", "")
    words = stem.rsplit("_", 2)
    if len(words) > 2 and words[-2] in ("depth", "normal") and words[-1].isdigit():
        return words[0] + dot + extension
    base, _, last = stem.rpartition("_")
    return base + dot + extension if base and last in ("depth", "normal") else ""


def transforms_files(folder: Path) -> dict[str, Path]:
    """transforms_train.json, transforms_val.json and transforms_test.json, as far as they exist."""
    files = {split: folder / f"transforms_{split}.json" for split in ("train", "test", "val")}
    return {split: file for split, file in files.items() if file.is_file()}


def require_views(views: Views, file: Path) -> None:
    if views.found:
        return
    if views.missing:
        raise SceneError(file, f"none of its {len(views.missing)} pictures exists, the first is {views.missing[0]!r}", "frames")
    raise SceneError(file, "has no frames", "frames")


def tell(messages: list[str]) -> list[str]:
    """Every message once, with its count; of many different ones the most frequent."""
    counted = Counter(messages).most_common()
    spelt = [message if n == 1 else f"{message} ({n} pictures)" for message, n in counted[:FEW]]
    return spelt if len(counted) <= FEW else [*spelt, f"and {len(counted) - FEW} more notes like this one: {counted[FEW][0]}"]


def _entry(frame: Any, file: Path, where: str) -> tuple[dict[str, Any], str]:
    if not isinstance(frame, dict):
        raise SceneError(file, f"expected an object, got a {type(frame).__name__}", where)
    path = frame.get("file_path")
    if not isinstance(path, str) or not path:
        raise SceneError(file, "expected the name of a picture", f"{where}.file_path")
    return frame, path


def _view(views: Views, fields: Fields, image: Path) -> View:
    matrix = fields.frame.get("transform_matrix", fields.frame.get("transform_matrix_start"))
    time = fields.frame.get("time")
    width, height = (fields.number(side, 0, 1, LARGEST_SIDE) for side in "wh")
    size, turns = as_its_camera_saw(image, width / height if width and height else None)
    lens, notes, warnings = read_lens(fields, size)
    found = opengl_to_opencv(pose(matrix, fields.file, f"{fields.place}.transform_matrix")[None])[0]
    for _ in range(turns):
        found, lens = turned(found, lens, image)
    view = View(
        name=name_of(image, views.folder),
        image=image,
        pose=found,
        lens=lens,
        notes=notes,
        warnings=warnings,
        time=None if time is None else number(time, fields.file, f"{fields.place}.time"),
        mask=_companion(views, fields, ("mask_path",)),
        depth=_companion(views, fields, DEPTH_FIELDS),
    )
    for name, companion in (("mask", view.mask), ("depth map", view.depth)):
        if companion and not alike(size := image_size(companion), lens.size):
            raise another_shape(companion, name, size, lens.size)
    if turns:
        views.turned.append(view.name)
        for companion in (view.mask, view.depth):
            if companion and stored_size(companion)[1] != stored_size(image)[1]:
                raise SceneError(image, f"is turned by its EXIF orientation, and {companion.name} is not; remove the entry")
    return view


def name_of(image: Path, folder: Path) -> str:
    """The picture's path within the scene, or within the system if it lies outside."""
    image, folder = image.resolve(), folder.resolve()
    return image.relative_to(folder if image.is_relative_to(folder) else image.anchor).as_posix()


def _companion(views: Views, fields: Fields, names: tuple[str, ...]) -> Path | None:
    """A mask or depth map that a frame names."""
    for name in names:
        value = fields.frame.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not value:
            raise SceneError(fields.file, "expected the name of a file", f"{fields.place}.{name}")
        found = find_image(views, value, f"{fields.file}: {fields.place}.{name}")
        if found is None:
            views.missing_companions.append(value)
        return found
    return None
