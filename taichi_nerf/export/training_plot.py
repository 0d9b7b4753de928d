"""How a training went, as one picture: loss, PSNR and throughput over the seconds of training. With matplotlib, as `plots`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from taichi_nerf.export.plots import FAINT, INK, PAPER, save_figure

Array = NDArray[Any]
BLUE, RED, GREEN = "#2f6db3", "#d9531e", "#3d9b5b"
SMOOTH = 0.02  # of all rows: the window of the bold line
LARGEST = 1e30
MOST_ROWS = 4000  # drawn; more than there are pixels say nothing


def training_plot(metrics: Sequence[dict[str, Any]], file: Path) -> None:
    """Rows of metrics.jsonl to a PNG of 1500 x 450 pixels, whole or not at all.

    A row has step, seconds, loss, train_psnr, rays_per_second, samples_per_second and n_samples_per_ray. What a row lacks, or
    has as null, NaN or infinity, is left out of its curve; a curve without any value says so.
    """
    rows = metrics[:: -(-len(metrics) // MOST_ROWS) or 1]
    figure = Figure(figsize=(15, 4.5), dpi=100, facecolor=PAPER)
    seconds = column(rows, "seconds")
    panels = [figure.add_axes((0.05 + 0.325 * i, 0.12, 0.265, 0.71)) for i in range(3)]
    for axes, title in zip(panels, ("loss", "PSNR of training batches", "throughput"), strict=True):
        _prepare(axes, title, seconds)
    _loss(panels[0], seconds, column(rows, "loss"))
    _psnr(panels[1], seconds, column(rows, "train_psnr"))
    _throughput(panels[2], seconds, rows)
    figure.text(0.05, 0.94, _summary(metrics), fontsize=11, color=FAINT, va="center")
    save_figure(figure, file)


def column(rows: Sequence[dict[str, Any]], name: str) -> Array:
    """[n] the values of one key; NaN for what is no number, or so large that axes cannot hold it."""

    def value(row: dict[str, Any]) -> float:
        found = row.get(name)
        return float(found) if isinstance(found, int | float) and abs(found) < LARGEST else math.nan

    return np.array([value(row) for row in rows], np.float64)


def smoothed(values: Array, n: int) -> Array:
    """[len] means of n values around each, of fewer at the ends; NaN counts as none."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.where(known, values, 0).cumsum()])
    count = np.concatenate([[0], known.cumsum()])
    at = np.arange(len(values))
    low, high = np.maximum(at - n // 2, 0), np.minimum(at + n // 2 + 1, len(values))
    with np.errstate(invalid="ignore"):
        means = (total[high] - total[low]) / (count[high] - count[low])
    return np.where(known, means, np.nan)


def _prepare(axes: Axes, title: str, seconds: Array) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=INK, fontweight="bold")
    axes.set_xlabel("seconds of training", fontsize=9, color=FAINT)
    axes.tick_params(labelsize=9, colors=FAINT)
    axes.grid(color="#e9ebee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9ccd1")
    known = seconds[np.isfinite(seconds)]
    axes.set_xlim(0, max(float(known.max()), 1e-3) if len(known) else 1.0)


def _curve(axes: Axes, seconds: Array, values: Array, color: str, label: str = "") -> Array:
    """A faint line of all values and a bold one of their means; returns the means, NaN where there are none."""
    mean = smoothed(values, max(1, round(SMOOTH * len(values))))
    drawn = np.isfinite(seconds) & np.isfinite(mean)
    if not drawn.any():
        return mean[:0]
    axes.plot(seconds[drawn], values[drawn], color=color, alpha=0.25, linewidth=1)
    axes.plot(seconds[drawn], mean[drawn], color=color, linewidth=2, label=label, marker="o" if drawn.sum() == 1 else None)
    return mean[drawn]


def _loss(axes: Axes, seconds: Array, loss: Array) -> None:
    loss = np.where(loss > 0, loss, np.nan)  # a logarithm has no place for others
    mean = _curve(axes, seconds, loss, RED)
    if not len(mean):
        _say_nothing(axes)
        return
    axes.set_yscale("log")
    _value_at_end(axes, seconds, mean[-1], f"{mean[-1]:.2g}", RED)


def _psnr(axes: Axes, seconds: Array, psnr: Array) -> None:
    mean = _curve(axes, seconds, psnr, BLUE)
    if not len(mean):
        _say_nothing(axes)
        return
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} dB"))
    low, high = np.quantile(psnr[np.isfinite(psnr)], [0.02, 1.0])  # the first steps would take half of the panel
    margin = 0.08 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)
    _value_at_end(axes, seconds, mean[-1], f"{mean[-1]:.1f} dB", BLUE)


def _throughput(axes: Axes, seconds: Array, rows: Sequence[dict[str, Any]]) -> None:
    """Rays and samples a second on one logarithmic axis: between them lies the number of samples a ray."""
    names = (("samples_per_second", "samples", GREEN), ("rays_per_second", "rays", BLUE))
    found = False
    for name, label, color in names:
        values = column(rows, name)
        mean = _curve(axes, seconds, np.where(values > 0, values, np.nan), color, label)
        if len(mean):
            found = True
            _value_at_end(axes, seconds, mean[-1], f"{_short(mean[-1])} {label}/s", color)
    if not found:
        _say_nothing(axes)
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.5, high * 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    per_ray = column(rows, "n_samples_per_ray")
    if np.isfinite(per_ray).any():
        text = f"{per_ray[np.isfinite(per_ray)][-1]:.3g} samples a ray"
        axes.text(0.02, 0.03, text, transform=axes.transAxes, fontsize=9, color=FAINT)


def _value_at_end(axes: Axes, seconds: Array, value: float, text: str, color: str) -> None:
    at = float(np.nanmax(seconds))
    words = axes.annotate(text, (at, value), (-4, 7), textcoords="offset points", ha="right", va="bottom", color=color)
    words.set(fontsize=11, fontweight="bold", path_effects=[withStroke(linewidth=3, foreground=PAPER)])


def _say_nothing(axes: Axes) -> None:
    axes.set(yticks=[])
    axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, fontsize=11, color=FAINT, ha="center", va="center")


def _summary(metrics: Sequence[dict[str, Any]]) -> str:
    if not metrics:
        return "no rows of metrics"
    steps, seconds = column(metrics, "step"), column(metrics, "seconds")
    parts = []
    if np.isfinite(steps).any():
        parts.append(f"step {int(np.nanmax(steps)):,}")
    if np.isfinite(seconds).any():
        parts.append(f"{np.nanmax(seconds):.4g} seconds of training")
    lost = int((~np.isfinite(column(metrics, "loss"))).sum())
    if lost:
        parts.append(f"{lost:,} of {len(metrics):,} rows without a finite loss")
    return "  ·  ".join(parts) or "rows without steps or seconds"


def _short(value: float) -> str:
    """1234567 as 1.23 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
