"""Objects with their views in memory, from a set on disk: what a prior over objects is trained on and asked about.

Object sets keep their own coordinates, whose origin lies in the object; other scenes come in scene units (`scenes.normalise`).
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from taichi_nerf.cameras import PINHOLE, Cameras
from taichi_nerf.fields.pixel_aligned_field import Sources
from taichi_nerf.ops import ray_generation
from taichi_nerf.rays import Rays
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import Images
from taichi_nerf.scenes.load import find_reader, read_source
from taichi_nerf.scenes.normalise import normalise
from taichi_nerf.scenes.object_lists import SPLITS, ObjectEntry, list_objects
from taichi_nerf.scenes.source import Source
from taichi_nerf.training.pictures import colors_of, unit_floats
from taichi_nerf.training.pixelnerf_config import ObjectSettings

CACHE_BYTES = 2 * 2**30
HELD_OUT = 8  # of a set without splits, every eighth object is the test
SLACK = 1.05


class ViewedObject(NamedTuple):
    """n views of one object, of one size."""

    name: str
    category: str
    pictures: Tensor  # [n, h, w, 3] bytes, over the background
    filled: Tensor | None  # [n, h, w] bool: where the object is; None: pictures show more than an object
    camera_to_worlds: Tensor  # [n, 3, 4]
    intrinsics: Tensor  # [n, 4]
    near: float
    far: float

    @property
    def n_views(self) -> int:
        return len(self.pictures)

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.pictures.shape[2], self.pictures.shape[1]

    def only(self, views: list[int]) -> "ViewedObject":
        """The same object with fewer views of it."""
        return self._replace(
            pictures=self.pictures[views],
            filled=None if self.filled is None else self.filled[views],
            camera_to_worlds=self.camera_to_worlds[views],
            intrinsics=self.intrinsics[views],
        )

    def sources(self, views: Tensor | list[int], device: torch.device) -> Sources:
        """Some views, to tell of the object by."""
        pictures = self.pictures[views].permute(0, 3, 1, 2).float() / 255
        filled = None if self.filled is None else widened(self.filled[views])
        poses = inverted(self.camera_to_worlds[views])
        intrinsics = self.intrinsics[views].contiguous().to(device)
        seen = None if filled is None else filled.to(device)
        return Sources(pictures.contiguous().to(device), poses.to(device), intrinsics, seen)

    def rays(self, pixels: Tensor, views: Tensor, device: torch.device) -> Rays:  # [n_rays, 2], [n_rays]
        arrays = (pixels, views.int(), self.camera_to_worlds, self.intrinsics)
        return ray_generation.generate_rays(*(array.to(device) for array in arrays))

    def boxes(self) -> Tensor:
        """[n, 4] first and last column and row that the object fills; the whole picture where that is not known."""
        n, (width, height) = self.n_views, self.size
        if self.filled is None or not bool(self.filled.any()):
            return torch.tensor([[0, width - 1, 0, height - 1]]).expand(n, 4)
        return torch.cat([_extent(self.filled.any(1)), _extent(self.filled.any(2))], -1)


def object_of(
    name: str, category: str, pictures: Tensor, filled: Tensor | None, cameras: Cameras, near: float, far: float
) -> ViewedObject:
    poses, intrinsics = (torch.tensor(np.asarray(a), dtype=torch.float32) for a in (cameras.camera_to_worlds, cameras.intrinsics))
    return ViewedObject(name, category, pictures, filled, poses, intrinsics, near, far)


class ObjectSet:
    """The objects of one split, read when asked for and then kept as long as memory lasts."""

    def __init__(self, settings: ObjectSettings, split: str):
        self.settings, self.split = settings, split
        self.entries = entries_of(settings, split)
        self._kept: OrderedDict[int, ViewedObject] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, i: int) -> ViewedObject:
        if i not in self._kept:
            self._kept[i] = read_object(self.entries[i], self.settings)
            self._bytes += self._kept[i].pictures.numel()
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].pictures.numel()
        return self._kept[i]


def entries_of(settings: ObjectSettings, split: str) -> list[ObjectEntry]:
    """The objects of a split. A scene of its own counts as a set of one object, which is in every split."""
    folder = Path(settings.path)
    if split not in SPLITS:  # which a set without splits, or of one object, would take for any of them
        raise SceneError(folder, f"expected one of {', '.join(SPLITS)}, got {split!r}", "split")
    try:
        entries = list_objects(folder, settings.prefix)
    except SceneError:
        if settings.prefix or not folder.is_dir() or not find_reader(folder)[0]:
            raise
        return [ObjectEntry(folder.name, folder.name, folder, split)]
    splits = {entry.split for entry in entries}
    if splits == {""}:
        if len(entries) < HELD_OUT:
            return entries
        return [entry for i, entry in enumerate(entries) if (i % HELD_OUT == 0) == (split != "train")]
    found = [entry for entry in entries if entry.split == split]
    if not found:
        raise SceneError(folder, f"has no objects of split {split!r}; it has {', '.join(sorted(splits))}")
    return found


def read_object(entry: ObjectEntry, settings: ObjectSettings) -> ViewedObject:
    source = read_source(entry.folder)
    n = min(len(source.names), settings.most_views or len(source.names))
    cameras, near, far = _placed(source)
    if (cameras.models != PINHOLE).any() or np.abs(cameras.distortion).max(initial=0) > 1e-6:
        raise SceneError(entry.folder, "pixelNeRF projects into pinhole cameras; undistort the pictures first")
    if (cameras.sizes != cameras.sizes[0]).any():
        raise SceneError(entry.folder, "has pictures of different sizes; pixelNeRF takes views of one size")
    pictures, filled = _pictures(source, cameras, n, settings.background)
    near, far = settings.near or near, settings.far or far
    if not 0 < near < far:
        raise SceneError(entry.folder, f"near ({near:g}) has to be more than 0 and less than far ({far:g})")
    return object_of(entry.name, entry.category, pictures, filled, cameras[np.arange(n)], near, far)


def _placed(source: Source) -> tuple[Cameras, float, float]:
    """Cameras, near and far."""
    if source.kind != "object_sets":
        mapping, bounds, _ = normalise(source)
        return source.cameras.moved(mapping.scale, mapping.rotation, mapping.translation), bounds.near, bounds.far
    if source.near_far is not None:
        return source.cameras, *source.near_far
    cameras = source.cameras  # what they see of the place that they look at: the origin
    distance = float(np.median(np.linalg.norm(cameras.centers, axis=-1)))
    reach = SLACK * distance * float((cameras.sizes / 2 / cameras.intrinsics[:, :2]).max())
    return cameras, max(distance - reach, 0.05 * distance), distance + reach


def _pictures(source: Source, cameras: Cameras, n: int, background: str) -> tuple[Tensor, Tensor | None]:
    """Bytes over the background, and where the object is: by mask, by alpha, or, of object sets, by what differs from it."""
    level, shown, masks = float(background == "white"), [], []
    images = Images(source.image_files, cameras.sizes, 0, source.arrays)
    mask_images = None if source.mask_files is None else Images(source.mask_files, cameras.sizes, 0)
    for i in range(n):
        picture = unit_floats(images[i])
        color = colors_of(picture)
        mask = None if mask_images is None else unit_floats(mask_images[i])[..., 0]
        if picture.shape[-1] == 4:
            alpha = picture[..., 3]
            color, mask = color * alpha[..., None] + level * (1 - alpha[..., None]), alpha
        shown.append((color.clamp(0, 1) * 255).round().to(torch.uint8))
        if mask is None and source.kind == "object_sets":
            mask = ((color - level).abs().amax(-1) > 1.5 / 255).float()
        masks.append(None if mask is None else mask > 0)
    known: list[Any] = [mask for mask in masks if mask is not None]
    return torch.stack(shown), torch.stack(known) if len(known) == n else None


def widened(filled: Tensor) -> Tensor:  # [n, h, w] bool, by a pixel: a pixel's edge may show what its neighbour is of
    return nn.functional.max_pool2d(filled.float(), 3, 1, 1) > 0


def inverted(poses: Tensor) -> Tensor:  # [n, 3, 4] rigid
    rotation = poses[:, :, :3].mT
    return torch.cat([rotation, -rotation @ poses[:, :, 3:]], -1)


def _extent(any_of: Tensor) -> Tensor:
    """[n, 2] first and last that is true of [n, m]; all of it where none is."""
    m = any_of.shape[1]
    empty = ~any_of.any(1, keepdim=True)
    index = torch.arange(m)
    first = torch.where(any_of | empty, index, m).amin(1)
    last = torch.where(any_of | empty, index, -1).amax(1)
    return torch.stack([first, last], -1)
