"""Random pixels of many pictures: their places, their views and their colors, for a step of training.

Pictures of any sizes lie behind each other in one table, in the type they have on disk: 100 of 800 x 800 take 256 MB, and nothing
but the pixels of a batch ever becomes float. Colors take four channels in the table, so that a pixel is one number of a
width that memory is read in; what alpha is added to a picture without one is 1.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FULL = {torch.uint8: 255, torch.uint16: 65535}  # what 1 is stored as; floats store it as it is
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # one number for a pixel of so many bytes
# Pixels at a time on a CPU: they stay in its cache, and torch does so few on one thread, without waiting for others.
CHUNK = 2**13


class PixelTable(NamedTuple):
    """Every pixel of some views of a scene, row by row, view after view."""

    values: Tensor  # [n_pixels, 1 or 4] as on disk
    n_channels: int  # 1, 3 or 4: how many of them mean something
    starts: Tensor  # [n_views + 1] first pixel of each view, in int32 where that holds them all
    widths: Tensor  # [n_views] same type
    views: Tensor  # [n_views] int32 numbers of the views in the scene
    same_size: bool


class Pixels(NamedTuple):
    positions: Tensor  # [n, 2] x, y of the pixels' centres; that of the first is (0.5, 0.5)
    views: Tensor  # [n] int32
    colors: Tensor  # [n, n_channels] float32, 0 to 1; above 1 where pictures are


def pack_pictures(
    pictures: Sequence[NDArray[Any]] | Any,  # pictures[view]: [height, width, 1, 3 or 4]
    sizes: NDArray[Any],  # [n_pictures, 2] width, height
    views: Sequence[int] | NDArray[Any],
    device: torch.device | str = "cpu",
    n_threads: int = 2,
    width: int | None = None,  # 1 or 4 numbers a pixel; None: as the first picture needs, or any of the others
    report: Callable[[int], None] = lambda n_read: None,
) -> PixelTable:
    """Read the pictures of some views into one table, in the type of the first, grey ones in color if any is. Beside it only the
    pictures being read are in memory."""
    chosen = np.asarray(views, np.int64)
    if not len(chosen):
        raise ValueError("no views to draw pixels from")
    first = np.asarray(pictures[int(chosen[0])])
    width = width or n_columns(first)
    counts = np.asarray(sizes)[chosen].astype(np.int64).prod(-1)
    starts = np.concatenate([[0], counts.cumsum()])
    table = np.empty((starts[-1], width), first.dtype)

    def fill(place: int) -> int:
        picture = np.asarray(pictures[int(chosen[place])]) if place else first
        columns, rows = sizes[chosen[place]]
        if picture.shape[:2] != (rows, columns):
            raise ValueError(f"view {chosen[place]} is a picture of shape {picture.shape}; expected {rows} x {columns} pixels")
        n_channels = int(picture.shape[2])
        if n_channels <= width:
            rows_of_table = table[starts[place] : starts[place + 1]].reshape(rows, columns, width)
            rows_of_table[..., : max(n_channels, min(width, 3))] = _in_type(picture, first.dtype)
            if n_channels < 4 == width:
                rows_of_table[..., 3] = _full(first.dtype)
        return n_channels

    with ThreadPoolExecutor(n_threads) as pool:
        n_channels = 0
        try:
            for n_read, found in enumerate(pool.map(fill, range(len(chosen))), 1):
                n_channels = max(n_channels, found)
                report(n_read)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or the pictures that are left would be read first
            raise
    if n_channels > width:
        return pack_pictures(pictures, sizes, views, device, n_threads, 4, report)
    index = torch.int32 if starts[-1] < 2**31 else torch.int64
    widths = np.asarray(sizes)[chosen, 0]
    return PixelTable(
        torch.from_numpy(table).to(device),
        n_channels,
        torch.from_numpy(starts).to(device, index),
        torch.from_numpy(widths.astype(np.int64)).to(device, index),
        torch.from_numpy(chosen).to(device, torch.int32),
        bool((np.asarray(sizes)[chosen] == np.asarray(sizes)[chosen[0]]).all()),
    )


def n_columns(picture: NDArray[Any]) -> int:
    """How many numbers a table has for a pixel of it: a grey one's own, else four."""
    return 1 if picture.shape[2] == 1 else 4


def _full(dtype: Any) -> int:
    """`FULL` of one of NumPy's types."""
    return FULL.get(torch.from_numpy(np.empty(0, dtype)).dtype, 1)


def _in_type(picture: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The same brightness in another type."""
    if picture.dtype == dtype:
        return picture
    values = picture.astype(np.float32) * (_full(dtype) / _full(picture.dtype))
    return (np.rint(values).clip(0, _full(dtype)) if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def draw_pixels(table: PixelTable, n: int, generator: torch.Generator | None = None) -> Pixels:
    """n pixels, all equally likely, with replacement: a pixel of a large picture is as likely as one of a small picture."""
    device, index_type = table.values.device, table.starts.dtype
    return pixels_at(table, torch.randint(len(table.values), (n,), generator=generator, device=device, dtype=index_type))


def draw_rows(
    table: PixelTable, n: int, generator: torch.Generator, one_view: bool = False, share: float = 1.0
) -> Tensor:  # [n] on the generator's device
    """Rows of n pixels, drawn with replacement: all equally likely, or `one_view`: of one picture, all equally likely.

    `share`: only pixels in the middle of pictures, in that share of their width and height.
    """
    device = generator.device
    if not one_view:
        rows = torch.randint(len(table.values), (n,), generator=generator, device=device)
        if share == 1:  # which needs nothing of a table that may be a GPU's
            return rows
    starts = table.starts.to(device, torch.int64)
    if one_view:
        view = torch.randint(len(starts) - 1, (1,), generator=generator, device=device)
        first, count = int(starts[view]), int(starts[view + 1] - starts[view])
        rows = first + torch.randint(count, (n,), generator=generator, device=device)
    if share == 1:
        return rows
    # Pressed towards the middle: a pixel of the whole picture stands for one of its middle.
    view = torch.searchsorted(starts, rows, right=True) - 1
    width = table.widths.to(device, torch.int64)[view]
    height = (starts[view + 1] - starts[view]) // width
    inside = rows - starts[view]
    x, y = inside % width, inside // width
    x, y = (((at + 0.5 - side / 2) * share + side / 2).long() for at, side in ((x, width), (y, height)))
    return starts[view] + y * width + x


def pixels_at(table: PixelTable, index: Tensor) -> Pixels:  # [n]
    """The pixels in these rows of the table."""
    n, device = len(index), index.device
    positions = torch.empty(n, 2, device=device)
    views = torch.empty(n, dtype=torch.int32, device=device)
    colors = torch.empty(n, table.n_channels, device=device)
    step = CHUNK if device.type == "cpu" else max(n, 1)
    for at in range(0, n, step):
        part = slice(at, at + step)
        _places_at(table, index[part], positions[part], views[part])
        _colors_at(table, index[part], colors[part])
    return Pixels(positions, views, colors)


def places_of(table: PixelTable, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [n] in the type of the table's starts
    """Of the pixels in these rows: the place of their view in the table, their column and their row."""
    if table.same_size:  # a search takes torch longer than all else here
        place = torch.div(index, table.starts[1], rounding_mode="floor")
        inside = index - place * table.starts[1]
        width = table.widths[0]
    else:
        place = torch.searchsorted(table.starts, index, right=True, out_int32=True) - 1
        inside = index - table.starts.index_select(0, place)
        width = table.widths.index_select(0, place)
    y = torch.div(inside, width, rounding_mode="floor")
    return place, inside - y * width, y


def _places_at(table: PixelTable, index: Tensor, positions: Tensor, views: Tensor) -> None:
    place, x, y = places_of(table, index)
    views.copy_(table.views.index_select(0, place))
    torch.add(x, 0.5, out=positions[:, 0])
    torch.add(y, 0.5, out=positions[:, 1])


def _colors_at(table: PixelTable, index: Tensor, colors: Tensor) -> None:
    values = table.values
    whole = WHOLE.get(values.element_size() * values.shape[1])
    if whole is None:  # four float32
        found = values.index_select(0, index)
    else:
        found = values.view(whole)[:, 0].index_select(0, index)[:, None].view(values.dtype)
    colors.copy_(found[:, : table.n_channels])
    if values.dtype in FULL:
        colors.mul_(1 / FULL[values.dtype])
