"""Pictures of a model by any camera, as bytes of any kind, and what the scene's own pictures look like over a background."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.bands import bands
from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.cameras import Cameras
from taichi_nerf.choices import Background
from taichi_nerf.export.colors import color_depth, color_normals, to_bytes
from taichi_nerf.export.scale_bar import LEAST_HEIGHT, LEAST_WIDTH
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Picture
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.model import Model
from taichi_nerf.training.pixel_batches import FULL

PIXELS_AT_ONCE = 2**20  # whose rays are in memory; those of a picture of 8k take more than the picture


def picture_by(
    model: Model,
    cameras: Cameras,
    number: int,
    *,
    with_normals: bool = False,
    antialias: int = 1,
    report: Callable[[float], None] = lambda done: None,
) -> Picture:
    """What one of these cameras, in scene units, sees of the model, over black.

    `antialias`: so many times as many rays along each side of a pixel, which is their mean. `report` is told what share of the
    rows is done: a large picture takes minutes on a processor.
    """
    rig = CameraRig(cameras[[number]]).to(model.box.device)
    return _picture(model, rig, 0, cameras.sizes[number], with_normals, antialias, report)


def picture_of_view(model: Model, view: int, size: Any, report: Callable[[float], None] = lambda done: None) -> Picture:
    """The model as the scene's camera `view` sees it, its pose as training corrected it; over black."""
    return _picture(model, model.rig, view, size, False, 1, report)


def _picture(
    model: Model, rig: CameraRig, view: int, size: Any, with_normals: bool, antialias: int, report: Callable[[float], None]
) -> Picture:
    width, height = (int(side) for side in size)
    places = [(part + 0.5) / antialias - 0.5 for part in range(antialias)]
    whole: list[Tensor] = []  # of each part that pictures have
    for rows in bands(height, width, PIXELS_AT_ONCE):
        n_rows = rows.stop - rows.start

        def through(shift: tuple[float, float], first: int = rows.start, n_rows: int = n_rows) -> Picture:
            with torch.no_grad():
                rays = rays_of_all_pixels(rig, view, width, n_rows, first_row=first, shift=shift)
            rays = rays._replace(radii=rays.radii / antialias)  # cones that share a pixel
            return model.picture(rays, (width, n_rows), with_normals)

        pictures = map(through, itertools.product(places, places))
        band = next(pictures) if antialias == 1 else mean_picture(pictures)
        if n_rows == height:
            return band
        parts = [part for part in band if part is not None]
        whole = whole or [part.new_empty(height, *part.shape[1:]) for part in parts]
        for part, of_band in zip(whole, parts, strict=True):
            part[rows] = of_band
        report(rows.stop / height)
    color, opacity, depth = whole[:3]
    return Picture(color, opacity, depth, whole[3] if len(whole) > 3 else None)


def mean_picture(pictures: Iterator[Picture]) -> Picture:
    """Of one size, one after the other. Depth is that of what all of them see together, as it is along a single ray."""
    first, n = next(pictures), 1
    color, opacity, distance, normals = first.color, first.opacity, first.opacity * first.depth, first.normals
    for picture in pictures:
        n, color, opacity = n + 1, color + picture.color, opacity + picture.opacity
        distance = distance + picture.opacity * picture.depth
        normals = None if normals is None or picture.normals is None else normals + picture.normals
    return Picture(color / n, opacity / n, distance / opacity.clamp_min(1e-6), None if normals is None else normals / n)


def rays_of_all_pixels(
    rig: CameraRig, view: int, width: int, height: int, *, first_row: int = 0, shift: tuple[float, float] = (0.0, 0.0)
) -> Rays:
    """Through the centres of all pixels of these rows, row by row, or so many pixels beside them."""
    device = rig.models.device
    pixels = (pixel_centers(width, height) + torch.tensor([shift[0], first_row + shift[1]])).to(device)
    return rig.rays(pixels, torch.full((len(pixels),), view, dtype=torch.int32, device=device))


def pixel_centers(width: int, height: int) -> Tensor:
    """[width * height, 2] x, y, row by row."""
    return torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1).view(-1, 2) + 0.5


def truth_of_view(scene: SceneData, view: int, masks_are_alpha: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Color [h, w, 3] from 0 to 1, how much of each pixel is filled [h, w], and which pixels the mask shows [h, w], if any."""
    picture = unit_floats(scene.images[view])
    color = colors_of(picture)
    alpha = picture[..., 3] if picture.shape[-1] == 4 else torch.ones(picture.shape[:2])
    if scene.masks is None:
        return color.clamp(0, 1), alpha, None
    mask = unit_floats(scene.masks[view])[..., 0]
    return color.clamp(0, 1), alpha * mask if masks_are_alpha else alpha, mask > 0.5


def unit_floats(pixels: Any) -> Tensor:
    """[h, w, channels] as float32 from 0 to 1."""
    found = torch.from_numpy(np.array(pixels))
    return found.float() / FULL.get(found.dtype, 1)


def colors_of(picture: Tensor) -> Tensor:  # [h, w, n_channels] → [h, w, 3]
    """Without alpha; grey as color."""
    return picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].expand(-1, -1, 3)


def background_of(kind: Background, height: int, width: int, seed: int) -> Tensor:
    """[h, w, 3] what shows where nothing is; random: a color of its own for each pixel."""
    if kind == "random":
        return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))
    return torch.full((height, width, 3), float(kind == "white"))


def over(color: Tensor, opacity: Tensor, background: Tensor | float) -> Tensor:  # [h, w, 3] times opacity, [h, w], [h, w, 3]
    return (color + (1 - opacity[..., None]) * background).clamp_(0, 1)


def shown(
    picture: Picture,
    kind: str,
    background: float = 0.0,  # the level behind colors, as far as they are not over one already
    limits: tuple[float, float] = (1.0, 2.0),  # of depths
    inverse: bool = False,  # colors are spread over 1 / depth
    scale_bar: bool = False,  # beside depths, where there is room
) -> NDArray[Any]:
    """[h, w, 3] bytes of one of `choices.PICTURES`."""
    opacity = picture.opacity.cpu()
    height, width = opacity.shape
    if kind == "color":
        return to_bytes(over(picture.color.cpu(), opacity, background))
    if kind == "depth":
        bar = scale_bar and height >= LEAST_HEIGHT and width >= LEAST_WIDTH
        return color_depth(picture.depth, *limits, opacity, scale_bar=bar, inverse=inverse)
    if kind == "opacity":
        return to_bytes(opacity[..., None].expand(-1, -1, 3))
    assert picture.normals is not None
    return color_normals(picture.normals, opacity)


def file_name(scene: SceneData, view: int) -> str:
    """A name for a picture of a view, which no other view has and every system can hold."""
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in scene.names[view].removesuffix(".png"))
    return f"{view:04d}_{stem[-60:].lstrip('._')}.png"
