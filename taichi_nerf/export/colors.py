"""Floats to pictures: colors, depths and normals as [h, w, 3] bytes. All of it NumPy; tensors of any device are taken, too.

The color of a depth runs along a helix in OKLab (Ottosson, "A perceptual color space for image processing", 2020): lightness and
hue change evenly at one chroma, so equal steps of depth look like equal steps wherever they are, and in print without color, too.
Near is light yellow, far is dark blue. No color of the helix is grey, and grey is where there is nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.bands import bands
from taichi_nerf.export.scale_bar import depth_place, draw_scale_bar

Array = NDArray[Any]
GREY = 128  # where there is nothing
AT_ONCE = 2**22  # numbers: a picture of 8k has 100 million, each of which takes 40 bytes on its way

CHROMA = 0.15  # the most that all hues and lightnesses of the helix have in sRGB
LIGHTNESS, HUE = (0.92, 0.30), (105.0, -80.0)  # of near and far; degrees, from yellow over red to blue
CONES = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]])
LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def to_bytes(picture: Tensor | Array) -> Array:
    """Values from 0 to 1 as bytes, the nearest; what lies outside goes to the end, NaN to 0. Bytes stay as they are."""
    values = as_array(picture)
    if values.dtype == np.uint8:
        return values
    found = np.empty(values.shape, np.uint8)
    for part in _parts(values):
        found[part] = np.rint(np.clip(np.nan_to_num(values[part], nan=0.0), 0, 1) * 255)
    return found


def color_depth(
    depth: Tensor | Array,  # [h, w] of surfaces: where rays were composited, divided by their opacity
    near: float,
    far: float,
    opacity: Tensor | Array | None = None,  # [h, w] 0 to 1
    scale_bar: bool = False,
    inverse: bool = False,
) -> Array:
    """[h, w, 3] bytes. Depths beyond near and far take the color of that end; none (NaN, infinite, not positive) is grey.

    Less opacity is more grey. `inverse` spreads the colors evenly over 1 / depth, which shows what is near of a scene that goes
    on to the horizon. `scale_bar` draws a legend into the right of the picture.
    """
    if not 0 < near < far < np.inf:
        raise ValueError(f"near, far: expected 0 < near < far, got {near} and {far}")

    def colored(values: Array) -> tuple[Array, Array]:
        there = np.isfinite(values) & (values > 0)
        place = depth_place(np.where(there, values, near), near, far, inverse)
        return HELIX[np.rint(place * (len(HELIX) - 1)).astype(int)], there

    picture = _over_grey(colored, as_array(depth), opacity)
    if scale_bar:
        strip = HELIX[np.linspace(0, len(HELIX) - 1, 1024).astype(int)]
        draw_scale_bar(picture, strip, near, far, inverse)
    return picture


def color_normals(normals: Tensor | Array, opacity: Tensor | Array | None = None) -> Array:  # [h, w, 3], [h, w]
    """[h, w, 3] bytes: x, y, z from −1 to 1 as red, green, blue from 0 to 255. Normals of length 0 and NaN are grey."""

    def colored(values: Array) -> tuple[Array, Array]:
        length = np.linalg.norm(values, axis=-1)
        there = np.isfinite(length) & (length > 0)
        return to_bytes(values / np.where(there, length, 1)[..., None] / 2 + 0.5), there

    return _over_grey(colored, as_array(normals), opacity)


def side_by_side(pictures: Sequence[Tensor | Array]) -> Array:
    """[h, w1 + w2 + …, 3] bytes of pictures of one height."""
    shown = [to_bytes(picture) for picture in pictures]
    if not shown or any(picture.ndim != 3 or picture.shape[::2] != (shown[0].shape[0], 3) for picture in shown):
        raise ValueError(f"pictures: expected [h, w, 3] of one height, got {[picture.shape for picture in shown]}")
    return np.concatenate(shown, 1)


def pad_to_even(picture: Array) -> Array:  # [h, w, 3]
    """With the last row and column repeated where their number is odd: H.264 has even sizes only."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else picture


def as_array(values: Tensor | Array) -> Array:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16


def _over_grey(colored: Callable[[Array], tuple[Array, Array]], values: Array, opacity: Tensor | Array | None) -> Array:
    """[h, w, 3] bytes of what `colored` makes of some rows: their colors, and where there is something."""
    shape = values.shape[:2]
    given = None if opacity is None else as_array(opacity)
    if given is not None and given.shape != shape:
        raise ValueError(f"opacity: expected shape {shape}, got {given.shape}")
    found = np.empty((*shape, 3), np.uint8)
    for part in _parts(found):
        picture, there = colored(values[part].astype(np.float64))
        cover = there.astype(np.float64)
        if given is not None:
            cover = cover * np.clip(np.nan_to_num(given[part].astype(np.float64), nan=0.0), 0, 1)
        found[part] = np.rint(GREY + (picture.astype(np.float64) - GREY) * cover[..., None])
    return found


def _parts(values: Array) -> list[Any]:
    """Rows that are floats at a time; all of what has none."""
    return [...] if values.size <= AT_ONCE else [*bands(len(values), values[0].size, AT_ONCE)]


def _helix(n: int) -> Array:
    """[n, 3] bytes from near to far: OKLab to linear light to sRGB."""
    lightness, hue = np.linspace(*LIGHTNESS, n), np.radians(np.linspace(*HUE, n))
    lab = np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], -1)
    linear = (lab @ CONES.T) ** 3 @ LINEAR.T
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    return to_bytes(encoded)


HELIX = _helix(256)
