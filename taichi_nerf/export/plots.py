"""Pictures of scenes with matplotlib, which only this and `training_plot` import. No display, no global state, the same bytes
every time.

`save_scene_preview` draws one page: left a contact sheet of views spread over the scene, framed in the color of their split;
right all cameras in space with the box and the sparse points, up being up; below, on a ruler, near and far and what lies between.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

from taichi_nerf.cameras import Array
from taichi_nerf.export.files import write_whole
from taichi_nerf.export.scene_geometry import (
    box_edges,
    frustum,
    frustum_size,
    level,
    lowest_face,
    seen_depths,
    spread_views,
    thumbnail,
)
from taichi_nerf.scenes.scene_data import SceneData

WIDTH, HEIGHT, DOTS = 16.0, 10.0, 100  # inches, dots an inch: 1600 x 1000 pixels
LABEL = 0.03  # of the height, below a picture
MOST_POINTS, MOST_FRUSTA = 20_000, 400
INK, FAINT, PAPER, BOX = "#23262b", "#8b919a", "#ffffff", "#b8860b"
SPLIT_COLORS = {"train": "#2f6db3", "test": "#d9531e", "val": "#3d9b5b"}
OTHER_COLOR, NO_SPLIT = "#8e5bb5", "#a3a8af"


def save_scene_preview(scene: SceneData, file: Path) -> None:
    """Write the page as a PNG of 1600 x 1000 pixels, whole or not at all."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS, facecolor=PAPER)
    colors = view_colors(scene)
    _title(figure, scene)
    _contact_sheet(figure, scene, colors)
    turn = level(scene.cameras)
    _space(figure, scene, colors, turn)
    _ruler(figure, scene)
    save_figure(figure, file)


def save_figure(figure: Figure, file: Path) -> None:
    """A PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(drawn, format="png", metadata={"Software": None})
    write_whole(file, drawn.getbuffer())


def view_colors(scene: SceneData) -> list[str]:
    """A color for each view, by its split."""
    colors = [NO_SPLIT] * len(scene.names)
    for name, index in scene.splits.items():
        for view in index:
            colors[int(view)] = SPLIT_COLORS.get(name, OTHER_COLOR)
    return colors


def _title(figure: Figure, scene: SceneData) -> None:
    name = scene.folder.resolve().name
    sizes = np.unique(scene.cameras.sizes, axis=0)
    size = f"{sizes[0][0]} × {sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    points = "" if scene.points is None else f", {len(scene.points.positions):,} points"
    figure.text(0.02, 0.962, _short(name, 40), fontsize=19, fontweight="bold", color=INK, va="center", parse_math=False)
    text = f"read as {scene.kind}  ·  {len(scene.names)} views of {size}{points}  ·  splits: {scene.split_rule}"
    figure.text(0.02, 0.927, text, fontsize=11, color=FAINT, va="center")
    handles = [
        Line2D([], [], color=SPLIT_COLORS.get(split, OTHER_COLOR), lw=6, label=f"{split} {len(index)}")
        for split, index in scene.splits.items()
        if len(index)
    ]
    if NO_SPLIT in view_colors(scene):
        handles.append(Line2D([], [], color=NO_SPLIT, lw=6, label="in no split"))
    figure.legend(handles=handles, loc="center right", bbox_to_anchor=(0.985, 0.955), ncols=5, frameon=False, fontsize=12)


def _contact_sheet(figure: Figure, scene: SceneData, colors: list[str]) -> None:
    """Pictures in a grid as full as their shapes allow, each in a frame of its split's color, its name below."""
    views = spread_views(scene)
    left, top, width, height = 0.02, 0.895, 0.53, 0.865
    shape = float(np.median(scene.cameras.sizes[views, 0] / scene.cameras.sizes[views, 1]))
    n_columns = _best_columns(len(views), shape, width * WIDTH, height * HEIGHT)
    n_rows = -(-len(views) // n_columns)
    across = min(width / n_columns, (height / n_rows - LABEL) * shape * HEIGHT / WIDTH)
    down = across * WIDTH / HEIGHT / shape + LABEL
    fitting = n_columns * int(height / down + 1e-6)
    if fitting > len(views) < len(scene.names):  # a row more, where there is room for one
        views = spread_views(scene, fitting)
    left += (width - n_columns * across) / 2
    for place, view in enumerate(views):
        row, column = divmod(place, n_columns)
        x, y = left + column * across, top - (row + 1) * down
        axes = figure.add_axes((x + 0.004, y + LABEL, across - 0.008, down - LABEL))
        axes.imshow(thumbnail(scene, view), interpolation="antialiased", aspect="equal")
        axes.set(xticks=[], yticks=[])
        axes.set_anchor("S")
        for side in axes.spines.values():
            side.set(edgecolor=colors[view], linewidth=3)
        text = f"{view}  {_short(scene.names[view], max(8, int(across * WIDTH * 11)))}"
        figure.text(x + across / 2, y + 0.6 * LABEL, text, fontsize=8, color=INK, ha="center", va="center", parse_math=False)


def _best_columns(n: int, shape: float, width: float, height: float) -> int:
    """The number of columns that makes pictures of that shape largest."""
    return max(range(1, n + 1), key=lambda c: min(width / c, (height / -(-n // c) - LABEL * HEIGHT) * shape))


def _space(figure: Figure, scene: SceneData, colors: list[str], turn: Array) -> None:
    axes: Any = figure.add_axes((0.565, 0.195, 0.41, 0.71), projection="3d", computed_zorder=False)
    cameras = scene.cameras
    shown = [cameras.centers @ turn.T, box_edges(scene.bounds.box).reshape(-1, 3) @ turn.T]
    if scene.points is not None and len(scene.points.positions):
        shown.append(_points(axes, scene, turn))
    frusta = np.unique(np.linspace(0, len(cameras) - 1, MOST_FRUSTA).astype(int))
    size = frustum_size(cameras, scene)
    lines = np.stack([frustum(cameras, int(i), size) for i in frusta]) @ turn.T
    of_frusta = [colors[int(i)] for i in frusta]
    axes.add_collection3d(Poly3DCollection(lines[:, 4:, 0], facecolors=of_frusta, alpha=0.2, linewidths=0, zorder=4))
    line_colors = [color for color in of_frusta for _ in range(8)]
    axes.add_collection3d(Line3DCollection(lines.reshape(-1, 2, 3), colors=line_colors, linewidths=0.9, zorder=5))
    style = "--" if scene.bounds.unbounded else "-"
    box = box_edges(scene.bounds.box)
    axes.add_collection3d(Line3DCollection(box @ turn.T, colors=BOX, linewidths=1.2, linestyles=style, zorder=2))
    ground = lowest_face(box, turn[2])
    axes.add_collection3d(Line3DCollection(ground @ turn.T, colors=BOX, linewidths=2.4, zorder=2))
    _limits(axes, np.concatenate(shown))
    _view_from(axes, scene, turn)
    kind = "space outside the box [−1, 1]³ is contracted" if scene.bounds.unbounded else "nothing outside the box [−1, 1]³"
    figure.text(0.775, 0.905, f"scene units, up is up; {kind}", fontsize=10, color=FAINT, ha="center", va="center")


def _points(axes: Any, scene: SceneData, turn: Array) -> Array:
    """Draw the sparse points in their colors; return where most of them are."""
    assert scene.points is not None
    positions, colors = scene.points.positions @ turn.T, scene.points.colors / 255
    step = -(-len(positions) // MOST_POINTS)
    reach = 4 * max(1.0, float(np.quantile(np.linalg.norm(scene.cameras.centers, axis=-1), 0.95)))
    near = np.linalg.norm(positions, axis=-1) < reach
    positions, colors = positions[near][::step], colors[near][::step]
    if not len(positions):
        return np.zeros((0, 3))
    axes.scatter(
        *positions.T,
        c=colors,
        s=2.5 if len(positions) > 3000 else 6,
        alpha=0.7,
        linewidths=0,
        depthshade=False,
        zorder=1,
    )
    return np.quantile(positions, [0.03, 0.97], axis=0)


def _limits(axes: Any, shown: Array) -> None:
    low, high = shown.min(0), shown.max(0)
    middle, half = (low + high) / 2, 0.5 * float((high - low).max()) or 1.0
    extent = np.maximum((high - low) / 2, 0.35 * half)
    for name, center, reach in zip("xyz", middle, extent, strict=True):
        getattr(axes, f"set_{name}lim")(center - 1.04 * reach, center + 1.04 * reach)
    axes.set_box_aspect(extent, zoom=1.14)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set(facecolor="#f6f7f8", edgecolor="#e3e5e8", alpha=1.0)
        axis._axinfo["grid"].update(color="#e3e5e8", linewidth=0.7)
        axis.set_tick_params(labelsize=7, labelcolor=FAINT, color=FAINT)


def _view_from(axes: Any, scene: SceneData, turn: Array) -> None:
    """From behind the cameras where they all face one way, else from a corner."""
    ahead = turn @ scene.cameras.forwards.mean(0)
    if np.linalg.norm(ahead[:2]) > 0.6:
        axes.view_init(elev=24, azim=float(np.degrees(np.arctan2(-ahead[1], -ahead[0]))) + 35)
    else:
        axes.view_init(elev=22, azim=-58)


def _ruler(figure: Figure, scene: SceneData) -> None:
    """Distances along the axes of the cameras: near, far, the box, and where the points or measured depths are."""
    axes: Axes = figure.add_axes((0.585, 0.075, 0.38, 0.085))
    near, far = max(scene.bounds.near, 1e-4), scene.bounds.far
    depths = seen_depths(scene)
    low = min([near, *np.quantile(depths, [0.01])] if len(depths) else [near])
    high = max([far, *np.quantile(depths, [0.99])] if len(depths) else [far])
    low, high = low / 1.15, high * 1.15
    scale = "log" if high / low > 20 else "linear"
    axes.set(xscale=scale, xlim=(low, high), ylim=(0, 1), yticks=[])
    axes.axvspan(near, far, color="#e8eef6", lw=0)
    if len(depths):
        edges = np.geomspace(low, high, 81) if scale == "log" else np.linspace(low, high, 81)
        counts = np.histogram(depths, edges)[0]
        axes.stairs(0.78 * counts / max(counts.max(), 1), edges, fill=True, color="#9fb6d3")
    ends = np.interp(
        np.log([near, far]) if scale == "log" else [near, far],
        np.log([low, high]) if scale == "log" else [low, high],
        [0, 1],
    )
    sides = ("left", "right") if np.diff(ends)[0] > 0.35 else ("right", "left")
    for value, name, side in ((near, "near", sides[0]), (far, "far", sides[1])):
        axes.axvline(value, color=INK, lw=1.6)
        axes.annotate(f" {name} {value:.3g} ", (value, 0.83), fontsize=9, color=INK, ha=side, va="center", annotation_clip=False)
    middle = float(np.median(np.linalg.norm(scene.cameras.centers, axis=-1)))
    if low < middle < high:
        axes.axvline(middle, color=BOX, lw=1.4, ls=":")
        axes.annotate("center", (middle, 1.02), fontsize=8, color=BOX, ha="center", va="bottom", annotation_clip=False)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=FAINT)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    what = "  ·  filled: depths of points" if scene.points is not None else "  ·  filled: measured depths" if len(depths) else ""
    axes.set_xlabel(f"distance from the camera in scene units{what}", fontsize=9, color=FAINT)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else "…" + text[-(longest - 1) :]
