"""Colors that go together, and materials drawn from them."""

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    CHECKER,
    DOTS,
    MARBLE,
    NOISE,
    PLAIN,
    RINGS,
    STRIPES,
    TILES,
    Builder,
    Color,
    srgb,
)

PALETTES = (
    ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51"),
    ("#003049", "#d62828", "#f77f00", "#fcbf49", "#eae2b7"),
    ("#606c38", "#283618", "#fefae0", "#dda15e", "#bc6c25"),
    ("#8ecae6", "#219ebc", "#023047", "#ffb703", "#fb8500"),
    ("#5f0f40", "#9a031e", "#fb8b24", "#e36414", "#0f4c5c"),
    ("#386641", "#6a994e", "#a7c957", "#f2e8cf", "#bc4749"),
    ("#355070", "#6d597a", "#b56576", "#e56b6f", "#eaac8b"),
    ("#0b3954", "#087e8b", "#bfd7ea", "#ff5a5f", "#c81d25"),
)
WOODS = (("#b07b46", "#7a4a22"), ("#c89b6a", "#9a6a3a"), ("#8a5a34", "#55331b"), ("#d8b98a", "#b58d58"))
WHITE, BLACK = srgb("#e8e4dc"), srgb("#1a1a1c")
STEEL = srgb("#b8bcc2")


def shuffled_palette(generator: np.random.Generator) -> list[Color]:
    palette = PALETTES[generator.integers(len(PALETTES))]
    return [srgb(palette[i]) for i in generator.permutation(len(palette))]


def wood(builder: Builder, generator: np.random.Generator, frequency: float = 9.0, shine: float = 0.12) -> int:
    """Bent grain along the solid's x axis."""
    light, dark = WOODS[generator.integers(len(WOODS))]
    along = [0.12 * frequency, frequency, frequency]
    bend, phase = float(generator.uniform(0.6, 1.2)), float(generator.uniform(0, 8))
    return builder.material(srgb(light), srgb(dark), MARBLE, along, shine, 30, 0.15, bend, phase)


def metal(builder: Builder, color: Color = STEEL) -> int:
    return builder.material(color, shine=0.6, exponent=90, mirror=1.0)


def textured(builder: Builder, generator: np.random.Generator, palette: list[Color], scale: float = 1.0) -> int:
    """A material with one of all patterns; `scale` in periods per unit length."""
    i, j = generator.permutation(len(palette))[:2]
    first, second = palette[i], palette[j]
    pattern = int(generator.choice([PLAIN, CHECKER, STRIPES, NOISE, MARBLE, RINGS, DOTS, TILES]))
    frequency = scale * float(generator.uniform(4, 8))
    each = [frequency] * 3
    if pattern in (STRIPES, MARBLE):
        weights = np.abs(generator.normal(size=3)) + 0.05
        each = list(1.2 * frequency * weights / np.linalg.norm(weights))
    shine, mirror = float(generator.choice([0.05, 0.2, 0.5])), float(generator.choice([0.1, 0.4, 0.9]))
    bend = float(generator.choice([0.0, 0.6, 1.5])) if pattern != TILES else 0.5
    phase = float(generator.uniform(0, 10))
    return builder.material(first, second, pattern, each, shine, float(generator.uniform(20, 90)), mirror, bend, phase)


def studio_light(builder: Builder, generator: np.random.Generator, fill: float = 0.5) -> None:
    """A sun from above and aside, a softer one from the other side, and a pale sky to mirror."""
    angle = float(generator.uniform(0, 2 * np.pi))
    builder.sun([np.cos(angle), np.sin(angle), 1.5], (1.25, 1.18, 1.05))
    away = angle + float(generator.uniform(2.0, 3.4))
    builder.sun([np.cos(away), np.sin(away), 0.7], (0.32 * fill, 0.38 * fill, 0.5 * fill))
    builder.sky((0.35, 0.5, 0.8), (0.9, 0.92, 0.95), (0.3, 0.27, 0.24), ambient=0.42)
