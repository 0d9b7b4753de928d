"""A legend drawn into a picture of depths: a strip of its colors with ticks and numbers, in a font of 3 x 5 pixels."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LEAST_HEIGHT, LEAST_WIDTH = 40, 40  # pixels: with less, no two numbers fit
GLYPHS = {
    "0": ("###", "#.#", "#.#", "#.#", "###"),
    "1": (".#.", "##.", ".#.", ".#.", "###"),
    "2": ("###", "..#", "###", "#..", "###"),
    "3": ("###", "..#", ".##", "..#", "###"),
    "4": ("#.#", "#.#", "###", "..#", "..#"),
    "5": ("###", "#..", "###", "..#", "###"),
    "6": ("###", "#..", "###", "#.#", "###"),
    "7": ("###", "..#", ".#.", ".#.", ".#."),
    "8": ("###", "#.#", "###", "#.#", "###"),
    "9": ("###", "#.#", "###", "..#", "###"),
    ".": (".", ".", ".", ".", "#"),
    "-": ("...", "...", "###", "...", "..."),
    "+": ("...", ".#.", "###", ".#.", "..."),
    "e": ("...", "###", "##.", "#..", "###"),
}


def depth_place(depth: Array | np.float64, near: float, far: float, inverse: bool) -> Array:
    """Where depths stand on the scale: 0 at near, 1 at far, clamped; evenly over depth, or over its inverse."""
    along = (1 / near - 1 / depth) / (1 / near - 1 / far) if inverse else (depth - near) / (far - near)
    return np.clip(along, 0, 1)


def draw_scale_bar(picture: Array, colors: Array, near: float, far: float, inverse: bool) -> None:
    """Into the right of `picture` [h, w, 3]: `colors` [n, 3] from near (below) to far (above), ticks at round numbers."""
    height, width = picture.shape[:2]
    if height < LEAST_HEIGHT or width < LEAST_WIDTH:
        raise ValueError(
            f"scale_bar: needs a picture of {LEAST_WIDTH} x {LEAST_HEIGHT} pixels, got {width} x {height}; draw it larger"
        )
    dot = max(1, round(min(height, width) / 180))  # a pixel of the font
    top, length = 6 * dot, height - 12 * dot  # of the strip
    labels = []
    last = math.inf
    for value in round_numbers(near, far, inverse):
        row = top + round(float(1 - depth_place(np.float64(value), near, far, inverse)) * (length - 1))
        if last - row >= 10 * dot:  # else it would touch the one below
            labels.append((row, write_number(value, dot)))
            last = row
    widest = max((text.shape[1] for _, text in labels), default=0)
    strip = width - 8 * dot  # its left edge
    panel = picture[:, max(0, strip - widest - 7 * dot) :]
    panel[:] = panel // 4  # so that light numbers stand on dark, and what is behind still shows
    rows = np.linspace(len(colors) - 1, 0, length).round().astype(int)
    picture[top : top + length, strip : strip + 5 * dot] = colors[rows][:, None]
    for row, text in labels:
        picture[row - dot // 2 : row - dot // 2 + dot, strip - 2 * dot : strip] = 255
        start = row - 5 * dot // 2
        right = strip - 4 * dot
        area = picture[start : start + 5 * dot, max(0, right - text.shape[1]) : right]
        area[text[:, -area.shape[1] :]] = 255


def round_numbers(near: float, far: float, inverse: bool) -> list[float]:
    """About five multiples of 1, 2 or 5 · 10ⁿ from near to far, ascending; over 1 / depth, all numbers 1, 2 and 5 · 10ⁿ."""
    low, high = math.floor(math.log10(near)), math.ceil(math.log10(far))
    if inverse:
        steps = [m * 10.0**e for e in range(low, high + 1) for m in (1, 2, 5)]
        return [step for step in steps if near <= step <= far]
    rough = (far - near) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(near / step - 1e-9), math.floor(far / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def write_number(value: float, dot: int) -> Array:
    """[5 · dot, n] bool: the number in at most four digits."""
    gap = np.zeros((5, 1), bool)
    parts = [gap]
    for letter in f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-"):
        parts += [np.array([[c == "#" for c in row] for row in GLYPHS[letter]]), gap]
    return np.concatenate(parts[1:-1], 1).repeat(dot, 0).repeat(dot, 1)
