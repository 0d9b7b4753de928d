"""What stands in the rooms of family `rooms`, in metres."""

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    CHECKER,
    DOTS,
    MARBLE,
    NOISE,
    STRIPES,
    Builder,
    Color,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    rod,
    rotation,
    sphere,
    srgb,
)
from taichi_nerf.scenes.procedural.palettes import WHITE, metal, wood

Generator = np.random.Generator


def sofa(builder: Builder, generator: Generator, palette: list[Color], x: float, y: float) -> None:
    """Against the wall at -x."""
    cloth = builder.material(palette[0], tuple(0.7 * c for c in palette[0]), NOISE, 30.0, 0.03, 20, 0.1)
    half = float(generator.uniform(0.8, 1.0))
    builder.add("sofa", box([x, y, 0.22], [0.42, half, 0.13], cloth, rounding=0.05))
    for side in (-1, 1):
        builder.add("cushion", box([x + 0.05, y + side * half / 2.1, 0.42], [0.36, half / 2.2, 0.08], cloth, rounding=0.07))
        builder.add("arm", box([x, y + side * (half + 0.08), 0.32], [0.42, 0.1, 0.28], cloth, rounding=0.08))
    builder.add("back", box([x - 0.34, y, 0.52], [0.1, half + 0.02, 0.34], cloth, rotation(0, -0.12), rounding=0.08))
    for side, color in ((-1, palette[1]), (1, palette[3])):
        pattern = int(generator.choice([CHECKER, STRIPES, DOTS]))
        pillow = builder.material(color, WHITE, pattern, 9.0, 0.03, 20, 0.1)
        turned = rotation(side * 0.3, -0.35)
        builder.add("pillow", ellipsoid([x - 0.08, y + side * 0.62 * half, 0.66], [0.09, 0.2, 0.19], pillow, turned))


def table(builder: Builder, generator: Generator, palette: list[Color], x: float, y: float) -> None:
    """With things on it and chairs around it."""
    top = wood(builder, generator, 7, 0.2)
    half_x, half_y = float(generator.uniform(0.5, 0.6)), float(generator.uniform(0.35, 0.45))
    if generator.uniform() < 0.5:
        builder.add("table", box([x, y, 0.73], [half_x, half_y, 0.02], top, rounding=0.008))
    else:
        builder.add("table", cylinder([x, y, 0.73], half_x, 0.02, top))
        half_x = half_y = 0.7 * half_x
    for u in (-1, 1):
        for v in (-1, 1):
            foot = [x + u * (half_x - 0.04), y + v * (half_y - 0.04), 0.0]
            builder.add("leg", rod(foot, [*foot[:2], 0.71], 0.02, 0.03, top))
    z = 0.75
    glaze = builder.material(palette[1], palette[3], int(generator.choice([STRIPES, MARBLE, NOISE])), 12.0, 0.5, 70, 0.6, 0.5)
    vase = [
        ellipsoid([x, y, z + 0.1], [0.075, 0.075, 0.1], glaze),
        cone([x, y, z + 0.2], 0.03, 0.045, 0.06, glaze),
    ]
    builder.add("vase", *vase, blend=0.02)
    stem, petal = builder.material(srgb("#4f7a3a")), builder.material(palette[2], shine=0.05)
    for _ in range(5):
        tip = np.array([x, y, z + 0.45]) + generator.uniform(-0.1, 0.1, 3) * [1, 1, 0.6]
        builder.add("stem", capsule([x, y, z + 0.22], tip, 0.006, stem))
        builder.add("flower", ellipsoid(tip, [0.035, 0.035, 0.025], petal))
    fruit = [srgb("#d9482b"), srgb("#e8b430"), srgb("#7fa63a")]
    china = builder.material(WHITE, shine=0.5, exponent=80, mirror=0.6)
    at = np.array([x + 0.25, y + 0.12, z])
    builder.add("bowl", cone(at + [0, 0, 0.03], 0.06, 0.13, 0.03, china))
    for k in range(5):
        offset = [0.065 * np.cos(1.3 * k), 0.065 * np.sin(1.3 * k), 0.08 + 0.012 * k]
        builder.add("fruit", sphere(at + offset, 0.036, builder.material(fruit[k % 3], shine=0.3, mirror=0.4)))
    builder.add("cup", cone([x - 0.25, y - 0.15, z + 0.045], 0.03, 0.042, 0.045, china))
    cover = builder.material(palette[4], shine=0.1)
    builder.add("book", box([x - 0.25, y + 0.12, z + 0.015], [0.11, 0.08, 0.015], cover, rotation(0.4)))
    for k in range(int(generator.integers(2, 4))):
        angle = [np.pi, -np.pi / 2, np.pi / 2][k] + generator.normal() * 0.15
        away = half_x + 0.28 if k == 0 else half_y + 0.25
        _chair(builder, top, palette, x + away * np.cos(angle), y + away * np.sin(angle), angle)


def _chair(builder: Builder, frame: int, palette: list[Color], x: float, y: float, angle: float) -> None:
    """Its back away from the table, which lies at -angle."""
    turned = rotation(angle)
    place = lambda u, v, w: np.array([x, y, 0.0]) + turned @ [u, v, w]  # noqa: E731
    seat = builder.material(palette[3], shine=0.05)
    builder.add("seat", box(place(0, 0, 0.45), [0.2, 0.2, 0.025], seat, turned, rounding=0.02))
    for u in (-1, 1):
        for v in (-1, 1):
            top = place(0.17 * u, 0.17 * v, 0.44 if u < 0 else 0.9)
            builder.add("leg", rod(place(0.19 * u, 0.19 * v, 0), top, 0.014, 0.018, frame))
    for w in (0.62, 0.74, 0.86):
        builder.add("slat", box(place(0.172, 0, w), [0.01, 0.17, 0.035], frame, turned))


def shelf(builder: Builder, generator: Generator, palette: list[Color], x: float, y: float) -> None:
    """Against the wall at +x, with books and things."""
    board = wood(builder, generator, 6)
    half, depth, levels = 0.55, 0.16, 5
    for side in (-1, 1):
        builder.add("shelf", box([x, y + side * half, 0.95], [depth, 0.015, 0.95], board))
    for k in range(levels):
        z = 0.06 + k * 0.44
        builder.add("shelf", box([x, y, z], [depth, half, 0.014], board))
        if k == levels - 1:
            break
        at = y - half + 0.04
        while at < y + half - 0.12:
            thick, tall = float(generator.uniform(0.018, 0.034)), float(generator.uniform(0.11, 0.18))
            if generator.uniform() < 0.12:
                thing = builder.material(palette[generator.integers(5)], shine=0.4, mirror=0.6)
                builder.add("ball", sphere([x, at + 0.08, z + 0.094], 0.08, thing))
                at += 0.19
                continue
            if generator.uniform() < 0.12:
                at += float(generator.uniform(0.08, 0.2))
                continue
            color = palette[generator.integers(5)]
            cover = builder.material(color, WHITE, STRIPES, [0.0, 0.0, 4.0], 0.08, 30, 0.15, phase=float(generator.uniform(0, 2)))
            builder.add("book", box([x - 0.03, at + thick, z + 0.014 + tall], [0.1, thick, tall], cover))
            at += 2 * thick + 0.003


def floor_lamp(builder: Builder, x: float, y: float) -> None:
    steel = metal(builder)
    shade = builder.material(srgb("#f4dfb8"), shine=0.02, mirror=0.05, glow=0.75)
    builder.add("lamp", cylinder([x, y, 0.015], 0.14, 0.015, steel))
    builder.add("lamp", capsule([x, y, 0.02], [x, y, 1.45], 0.012, steel))
    builder.add("shade", cone([x, y, 1.55], 0.2, 0.13, 0.15, shade))
    builder.lamp([x + 0.24, y + 0.24, 1.4], (0.4, 0.31, 0.2))


def plant(builder: Builder, generator: Generator, x: float, y: float) -> None:
    clay = builder.material(srgb("#b5643c"), shine=0.05)
    leaf = builder.material(srgb("#3f7a3a"), srgb("#6fa04e"), NOISE, 14.0, 0.15, 40, 0.3)
    builder.add("pot", cone([x, y, 0.17], 0.13, 0.19, 0.17, clay))
    builder.add("soil", cylinder([x, y, 0.335], 0.17, 0.01, builder.material(srgb("#3a2a20"))))
    for k in range(11):
        angle, lean = 2.4 * k, 0.2 + 0.07 * k
        direction = np.array([np.cos(angle) * np.sin(lean), np.sin(angle) * np.sin(lean), np.cos(lean)])
        root = np.array([x, y, 0.34])
        tip = root + direction * float(generator.uniform(0.35, 0.75))
        builder.add("stem", capsule(root, tip, 0.006, leaf))
        builder.add("leaf", ellipsoid(tip, [0.055, 0.02, 0.15], leaf, rotation(angle, lean)))
