"""The pictures that a generator learns from: square, of one size, with what is known of each.

    open_image_set("photos/", size=64)           a folder of pictures, turned upright, cut square and scaled by areas
    open_image_set("coil20/", size=32)           a turntable folder (<object>__<view>.png): objects and yaws are known
    open_image_set("set.npz")                    what `save_image_set` wrote

`heads` makes a procedural one. Objects (`groups`) and yaws serve evaluation alone; training a generator takes the pictures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taichi_nerf.export.files import whole_stream
from taichi_nerf.file_error import FileError, one_line
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.images import image_size, list_images, read_image
from taichi_nerf.scenes.turntable import find_objects

TURN = 72  # views of a full turn, as COIL-20 numbers them


class ImageSetError(FileError):
    """Pictures that cannot be used. The message is one line and names the file or folder."""


@dataclass(frozen=True)
class ImageSet:
    """Pictures and what is known of them."""

    images: NDArray[np.uint8]  # [n, size, size, 3]
    groups: NDArray[np.int64] | None = None  # [n] which object a picture shows
    yaws: NDArray[np.float32] | None = None  # [n] radians: how far the camera stands around the object

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        return int(self.images.shape[1])


def open_image_set(place: Path | str, size: int | None = None, report: Report = silent) -> ImageSet:
    """A folder of pictures (`size` None: the side of the smallest, down to a power of two) or an .npz file."""
    place = Path(place)
    if place.is_file() and place.suffix == ".npz":
        return _read(place, size)
    if not place.is_dir():
        raise ImageSetError(place, "no such folder of pictures or .npz file")
    files = list_images(place)
    if len(files) < 2:
        raise ImageSetError(place, f"holds {len(files)} pictures; a generator needs many")
    size = size or 1 << (min(min(image_size(file)) for file in files).bit_length() - 1)
    images = np.empty((len(files), size, size, 3), np.uint8)
    for i, file in enumerate(files):  # one at a time: thousands of photos are larger than memory
        images[i] = _resized(_square(_read_picture(file)), size)
        report((i + 1) / len(files), f"picture {i + 1} of {len(files)}")
    objects = find_objects(place)
    if not objects:
        return ImageSet(images)
    known = {file: (group, view) for group, views in enumerate(objects.values()) for view, file in views.items()}
    groups = np.array([known[file][0] for file in files])
    views = np.array([known[file][1] for file in files])
    step = 2 * np.pi / (TURN if views.max() < TURN else 360)
    return ImageSet(images, groups, (views * step).astype(np.float32))


def save_image_set(file: Path, images: ImageSet) -> None:
    known: dict[str, Any] = {"groups": images.groups, "yaws": images.yaws}
    with whole_stream(file) as stream:
        np.savez_compressed(stream, images=images.images, **{k: v for k, v in known.items() if v is not None})


def _read(file: Path, size: int | None) -> ImageSet:
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("images", "groups", "yaws") if name in data.files}
    except Exception as error:  # zipfile, zlib and numpy all have errors of their own for broken files
        raise ImageSetError(file, f"is no set of images ({one_line(error, 100)})") from None
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (images.shape[1],) * 2 + (3,):
        raise ImageSetError(file, "images: expected bytes [n, size, size, 3]")
    if not images.size:
        raise ImageSetError(file, "images: holds none")
    for name in ("groups", "yaws"):
        if name in arrays and (arrays[name].shape != (len(images),) or arrays[name].dtype.kind not in "iuf"):
            told = f"{arrays[name].dtype} of shape {arrays[name].shape}"
            raise ImageSetError(file, f"{name}: expected {len(images)} numbers, got {told}")
    if size is not None and size != images.shape[1]:
        images = resized(images, size)
    return ImageSet(images, arrays.get("groups"), arrays.get("yaws"))


def _read_picture(file: Path) -> NDArray[np.uint8]:
    """[h, w, 3], upright; what has alpha lies over white."""
    pixels = read_image(file)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageSetError(file, f"expected 8 or 16 bits a channel, got {pixels.dtype}")
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[size, size, 3]: each new pixel is the mean over its area."""
    weights = area_weights(len(pixels), size)
    return np.rint(np.einsum("ij,jkc,lk->ilc", weights, pixels.astype(np.float64), weights, optimize=True)).astype(np.uint8)


def resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[n, size, size, 3]; as they are if they have that size."""
    return images if images.shape[1] == size else np.stack([_resized(image, size) for image in images])


def area_weights(before: int, after: int) -> NDArray[np.float64]:
    """[after, before] which share of each old pixel lies in each new one; every row adds up to 1."""
    edges = np.arange(after + 1) * (before / after)
    left, right = edges[:-1, None], edges[1:, None]
    at = np.arange(before)
    overlap = np.clip(np.minimum(right, at + 1) - np.maximum(left, at), 0, None)
    return overlap / overlap.sum(1, keepdims=True)
