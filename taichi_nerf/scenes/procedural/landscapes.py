"""Family `unbounded`: a thing in the middle, ground to the horizon, trees, houses and hills around it, and a sky."""

import numpy as np

from taichi_nerf.scenes.procedural import objects
from taichi_nerf.scenes.procedural.description import (
    NOISE,
    TILES,
    Array,
    Builder,
    Color,
    Description,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    plane,
    rod,
    rotation,
    sphere,
    srgb,
)
from taichi_nerf.scenes.procedural.palettes import WHITE, metal, shuffled_palette, textured

Generator = np.random.Generator
BOX = ((-1.5, -1.5, -0.02), (1.5, 1.5, 1.6))
SKIES = (
    ((0.14, 0.3, 0.68), (0.62, 0.74, 0.86), (1.35, 1.25, 1.05)),
    ((0.2, 0.28, 0.5), (0.95, 0.66, 0.42), (1.45, 1.05, 0.7)),
    ((0.3, 0.38, 0.48), (0.68, 0.72, 0.75), (1.1, 1.08, 1.05)),
)


def describe_landscape(generator: Generator, time: float = 0.0) -> Description:
    builder = Builder()
    palette = shuffled_palette(generator)
    grass = builder.material(srgb("#6b8a3a"), srgb("#8f9a4c"), NOISE, [1.3, 1.3, 0.0], 0.02, 20, 0.03)
    builder.add("ground", plane(0.0, grass))
    stone = builder.material(srgb("#b9b2a4"), srgb("#6f695f"), TILES, [1.7, 1.7, 0.0], 0.08, 30, 0.15, 0.35)
    builder.add("square", cylinder([0, 0, 0.0], 2.2, 0.012, stone))
    _monument(builder, generator, palette)
    _benches(builder, generator)
    for k in range(int(generator.integers(9, 13))):
        away, angle = float(generator.uniform(5, 16)), 2.4 * k + float(generator.uniform(-0.5, 0.5))
        _tree(builder, generator, np.array([away * np.cos(angle), away * np.sin(angle), 0]))
    for k in range(int(generator.integers(4, 7))):
        away, angle = float(generator.uniform(13, 30)), 1.2 * k + float(generator.uniform(-0.3, 0.3))
        _house(builder, generator, np.array([away * np.cos(angle), away * np.sin(angle), 0]))
    hill = builder.material(srgb("#56753a"), srgb("#7d8f55"), NOISE, 0.12, 0.0, 20, 0.02)
    for k in range(9):
        away, angle = float(generator.uniform(70, 130)), 0.7 * k + float(generator.uniform(0, 0.4))
        axes = [float(value) for value in generator.uniform([25, 25, 7], [55, 55, 20])]
        builder.add("hill", ellipsoid([away * np.cos(angle), away * np.sin(angle), -2], axes, hill, rotation(angle)))
    zenith, horizon, light = SKIES[generator.integers(len(SKIES))]
    turn = float(generator.uniform(0, 2 * np.pi))
    builder.sun([np.cos(turn), np.sin(turn), float(generator.uniform(0.7, 1.3))], light)
    builder.sky(zenith, horizon, (0.2, 0.22, 0.12), float(generator.uniform(0.2, 0.55)), 0.45, 0.4, 0.8)
    return builder.build(BOX, opaque=True)


def _monument(builder: Builder, generator: Generator, palette: list[Color]) -> None:
    """A stepped base with something on it."""
    stone = builder.material(srgb("#cfc8ba"), srgb("#a39a8a"), NOISE, 9.0, 0.05, 20, 0.1)
    for k in range(3):
        builder.add("step", box([0, 0, 0.05 + 0.1 * k], [0.75 - 0.15 * k] * 2 + [0.05], stone, rotation(0.1)))
    top = Builder(builder.solids, builder.spans, builder.balls, builder.names, builder.materials)
    maker = [objects.pawn, objects.vase, objects.blob, objects.knot, objects.stack][generator.integers(5)]
    first = len(builder.solids), len(builder.balls)
    maker(top, generator, palette, 0.0, 0.0, 0.4)
    lift = 0.3 - objects.FLOOR
    builder.solids[first[0] :] = [s._replace(center=s.center + [0, 0, lift]) for s in builder.solids[first[0] :]]
    for ball in builder.balls[first[1] :]:
        ball[2] += lift
    for k in range(4):
        angle = np.pi / 4 + k * np.pi / 2
        at = np.array([1.25 * np.cos(angle), 1.25 * np.sin(angle), 0])
        builder.add("post", cone(at + [0, 0, 0.25], 0.05, 0.035, 0.25, metal(builder, srgb("#3c4046"))))
        builder.add("globe", sphere(at + [0, 0, 0.58], 0.09, textured(builder, generator, [*palette, WHITE], 1.5)))


def _benches(builder: Builder, generator: Generator) -> None:
    wooden = builder.material(srgb("#8a5a34"), shine=0.1)
    iron = builder.material(srgb("#2d3033"), shine=0.3)
    for k in range(3):
        angle = 2.1 * k + float(generator.uniform(0, 0.5))
        turned = rotation(angle)
        place = lambda u, v, w, a=turned: a @ np.array([u, v, w])  # noqa: E731
        for slat in range(3):
            builder.add("bench", box(place(2.6 + 0.1 * slat, 0, 0.3), [0.04, 0.55, 0.015], wooden, turned))
            builder.add("bench", box(place(2.88, 0, 0.4 + 0.1 * slat), [0.012, 0.55, 0.035], wooden, turned))
        for side in (-0.45, 0.45):
            builder.add("bench", box(place(2.72, side, 0.14), [0.14, 0.025, 0.14], iron, turned))


def _tree(builder: Builder, generator: Generator, at: Array) -> None:
    bark = builder.material(srgb("#6a4a32"), shine=0.0)
    greens = ("#4c7a34", "#6b8f3c", "#3f6b3a", "#8a9a3f", "#b07a34")
    green = srgb(greens[generator.integers(len(greens))])
    leaves = builder.material(green, tuple(0.45 * c for c in green), NOISE, 4.5, 0.03, 15, 0.05)
    tall = float(generator.uniform(1.4, 2.8))
    if generator.uniform() < 0.35:  # a fir
        builder.add("trunk", cylinder(at + [0, 0, 0.3], 0.12, 0.3, bark))
        for k in range(4):
            builder.add("fir", cone(at + [0, 0, 0.9 + 0.32 * tall * k], 0.95 - 0.2 * k, 0.0, 0.32 * tall, leaves))
        return
    builder.add("trunk", rod(at, at + [0, 0, tall], 0.16, 0.09, bark))
    crown = []
    for _ in range(5):
        offset = generator.normal(size=3) * [0.5, 0.5, 0.35] + [0, 0, tall + 0.4]
        crown.append(sphere(at + offset, float(generator.uniform(0.5, 0.8)), leaves))
    builder.add("crown", *crown, blend=0.3)


def _house(builder: Builder, generator: Generator, at: Array) -> None:
    walls = builder.material(srgb(str(generator.choice(["#e6d8c0", "#d8c2a8", "#cdd3d6", "#d9a98a"]))), shine=0.02)
    tiles = builder.material(srgb("#a5492f"), srgb("#6d2e20"), TILES, [2.0, 2.0, 2.0], 0.03, 20, 0.05, 0.4)
    glass, dark = builder.material(srgb("#2a3a4a"), shine=0.6, mirror=1.2), builder.material(srgb("#4a3226"))
    half = generator.uniform([1.6, 1.3, 1.1], [2.6, 1.8, 1.9])
    turned = rotation(float(np.arctan2(at[1], at[0])) + float(generator.normal()) * 0.3)
    place = lambda u, v, w: at + turned @ np.array([u, v, w])  # noqa: E731
    builder.add("house", box(place(0, 0, half[2]), list(half), walls, turned))
    slope, side = 0.75, float(half[1]) * 0.82
    for sign in (-1, 1):
        leaf = turned @ rotation(0, 0, -sign * slope)
        middle = place(0, sign * half[1] * 0.52, 2 * half[2] + half[1] * 0.5)
        builder.add("roof", box(middle, [float(half[0]) + 0.2, side, 0.06], tiles, leaf))
    for u in (-0.6, 0.0, 0.6):
        for v in (-1, 1):
            builder.add("window", box(place(u * half[0], v * half[1], 1.25 * half[2]), [0.25, 0.02, 0.32], glass, turned))
    for u in (-1, 1):
        builder.add("door", box(place(u * half[0], 0, 0.5), [0.02, 0.28, 0.5], dark, turned))
    chimney = place(0.4 * half[0], 0.3 * half[1], 2 * half[2] + half[1] * 0.9)
    builder.add("chimney", box(chimney, [0.15, 0.15, 0.5], tiles, turned))
    builder.add("wire", capsule(chimney, chimney + [0, 0, 1.0], 0.02, dark))
