"""Family `rooms`: furnished rooms in metres, floor at z = 0, with walls and ceiling all around."""

import numpy as np

from taichi_nerf.scenes.procedural import furniture
from taichi_nerf.scenes.procedural.description import (
    CHECKER,
    DOTS,
    MARBLE,
    NOISE,
    STRIPES,
    TILES,
    Builder,
    Color,
    Description,
    box,
    capsule,
    cone,
    cylinder,
    rotation,
    sphere,
    srgb,
    torus,
)
from taichi_nerf.scenes.procedural.palettes import BLACK, WHITE, metal, shuffled_palette, wood

Generator = np.random.Generator
WALLS = ("#e6dfd0", "#cfd8d4", "#d8cfc4", "#b9c6cf", "#d9c7a8", "#c9d2b8")
THICK = 0.1  # of a wall


def describe_room(generator: Generator, time: float = 0.0) -> Description:
    builder = Builder()
    palette = shuffled_palette(generator)
    x, y = float(generator.uniform(4.2, 5.4)), float(generator.uniform(3.6, 4.6))
    z = float(generator.uniform(2.5, 2.8))
    _shell(builder, generator, palette, x, y, z)
    _window(builder, generator, y)
    furniture.sofa(builder, generator, palette, -x / 2 + 0.55, float(generator.uniform(-0.3, 0.3)))
    furniture.table(builder, generator, palette, float(generator.uniform(0.9, 1.2)), float(generator.uniform(-0.5, -0.2)))
    furniture.shelf(builder, generator, palette, x / 2 - 0.2, float(generator.uniform(0.6, y / 2 - 0.75)))
    furniture.floor_lamp(builder, -x / 2 + 0.4, -y / 2 + 0.45)
    furniture.plant(builder, generator, x / 2 - 0.45, -y / 2 + 0.45)
    _pictures(builder, generator, palette, x, y)
    _rug_and_clutter(builder, generator, palette)
    _ceiling_light(builder, z)
    builder.sky((0.5, 0.62, 0.85), (0.85, 0.85, 0.82), (0.35, 0.3, 0.26), ambient=0.36, reach=0.5, strength=0.85)
    return builder.build([[-x / 2, -y / 2, 0], [x / 2, y / 2, z]], opaque=True)


def _shell(builder: Builder, generator: Generator, palette: list[Color], x: float, y: float, z: float) -> None:
    paint = srgb(WALLS[generator.integers(len(WALLS))])
    plain = builder.material(paint, shine=0.02, mirror=0.05)
    tint = tuple(0.72 * c + 0.28 * p for c, p in zip(paint, palette[2], strict=True))
    papers = [
        builder.material(paint, tint, STRIPES, [3.0, 3.0, 0.0], 0.02, 20, 0.05),
        builder.material(paint, tint, DOTS, [5.0, 5.0, 5.0], 0.02, 20, 0.05),
        builder.material(tint, shine=0.02, mirror=0.05),
    ]
    paper = papers[generator.integers(len(papers))]
    floors = [
        builder.material(
            srgb("#a9794a"),
            srgb("#4f3520"),
            TILES,
            [1.1, 7.0, 0.0],
            0.12,
            40,
            0.35,
            0.5,
            float(generator.uniform(0, 5)),
        ),
        builder.material(srgb("#ddd8cc"), srgb("#6b7176"), CHECKER, [2.0, 2.0, 0.0], 0.2, 60, 0.5),
        builder.material(srgb("#b8b0a4"), srgb("#77716a"), TILES, [2.5, 2.5, 0.0], 0.15, 50, 0.4, 0.25),
    ]
    t = THICK
    builder.add("floor", box([0, 0, -t], [x / 2 + 2 * t, y / 2 + 2 * t, t], floors[generator.integers(len(floors))]))
    ceiling = builder.material(WHITE, shine=0.02, mirror=0.05)
    builder.add("ceiling", box([0, 0, z + t], [x / 2 + 2 * t, y / 2 + 2 * t, t], ceiling))
    for side, material in ((-1, paper), (1, plain)):
        builder.add("wall", box([side * (x / 2 + t), 0, z / 2], [t, y / 2 + 2 * t, z / 2 + t], material))
    for side in (-1, 1):
        builder.add("wall", box([0, side * (y / 2 + t), z / 2], [x / 2 + 2 * t, t, z / 2 + t], plain))
    board = builder.material(WHITE, shine=0.1)
    for side in (-1, 1):
        builder.add("skirting", box([0, side * (y / 2 - 0.01), 0.05], [x / 2, 0.01, 0.05], board))
        builder.add("skirting", box([side * (x / 2 - 0.01), 0, 0.05], [0.01, y / 2, 0.05], board))


def _window(builder: Builder, generator: Generator, y: float) -> None:
    """A bright pane in the wall at +y, and its light; a door in the wall at -y."""
    at = float(generator.uniform(-0.6, 0.4))
    pane = builder.material(srgb("#dbeaf5"), shine=0.3, mirror=0.4, glow=1.3)
    frame = builder.material(WHITE, shine=0.15)
    builder.add("window", box([at, y / 2 - 0.01, 1.5], [0.7, 0.012, 0.55], pane))
    for dx in (-0.72, 0.0, 0.72):
        builder.add("frame", box([at + dx, y / 2 - 0.02, 1.5], [0.03, 0.035, 0.6], frame))
    for dz in (-0.57, 0.57):
        builder.add("frame", box([at, y / 2 - 0.02, 1.5 + dz], [0.75, 0.04, 0.03], frame))
    curtain = builder.material(srgb("#b86f52"), srgb("#9a5a42"), MARBLE, [14.0, 0.0, 0.0], 0.03, 20, 0.05)
    for side in (-1, 1):
        folds = [cylinder([at + side * (0.82 + 0.07 * k), y / 2 - 0.09, 1.25], 0.05, 1.05, curtain) for k in range(4)]
        builder.add("curtain", *folds, blend=0.05)
    rail = metal(builder)
    builder.add("rail", capsule([at - 1.2, y / 2 - 0.09, 2.32], [at + 1.2, y / 2 - 0.09, 2.32], 0.015, rail))
    door = wood(builder, generator, 16)
    where = float(generator.uniform(-0.8, 0.2))
    builder.add("door", box([where, -y / 2 + 0.02, 1.02], [0.43, 0.02, 1.02], door))
    builder.add("handle", capsule([where + 0.34, -y / 2 + 0.08, 1.05], [where + 0.24, -y / 2 + 0.08, 1.05], 0.012, rail))
    builder.lamp([at, y / 2 - 0.35, 1.6], (1.5, 1.65, 1.9))


def _ceiling_light(builder: Builder, z: float) -> None:
    shade = builder.material(srgb("#fff3d6"), shine=0.05, glow=1.4)
    builder.add("light", cone([0, 0, z - 0.06], 0.2, 0.24, 0.06, shade))
    builder.lamp([0.0, 0.0, z - 0.3], (3.1, 2.75, 2.25))


def _pictures(builder: Builder, generator: Generator, palette: list[Color], x: float, y: float) -> None:
    frame = builder.material(BLACK, shine=0.3)
    for k in range(3):
        pattern = int(generator.choice([NOISE, MARBLE, CHECKER, DOTS, STRIPES]))
        i, j = generator.permutation(5)[:2]
        art = builder.material(palette[i], palette[j], pattern, 8.0, 0.2, 60, 0.3, 0.8, float(generator.uniform(0, 9)))
        half_y, half_z = generator.uniform(0.16, 0.28, 2)
        at = [-x / 2 + 0.02, -0.8 + 0.8 * k, 1.6 + 0.05 * generator.normal()]
        builder.add("frame", box(at, [0.015, half_y, half_z], frame))
        builder.add("picture", box([at[0] + 0.012, at[1], at[2]], [0.006, half_y - 0.025, half_z - 0.025], art))
    face = builder.material(WHITE, shine=0.2)
    clock = [0.9, -y / 2 + 0.02, 1.9]
    upright = rotation(0, 0, np.pi / 2)
    builder.add("clock", cylinder(clock, 0.17, 0.015, face, upright))
    builder.add("rim", torus(clock, 0.17, 0.014, frame, upright))
    for angle, length in ((0.6, 0.09), (2.5, 0.13)):
        end = [clock[0] + length * np.sin(angle), clock[1] + 0.022, clock[2] + length * np.cos(angle)]
        builder.add("hand", capsule([clock[0], clock[1] + 0.022, clock[2]], end, 0.006, frame))


def _rug_and_clutter(builder: Builder, generator: Generator, palette: list[Color]) -> None:
    pattern = int(generator.choice([STRIPES, DOTS, CHECKER]))
    frequency = [3.0, 0.0, 0.0] if pattern == STRIPES else [4.0, 4.0, 0.0]
    weave = builder.material(palette[1], palette[2], pattern, frequency, 0.02, 20, 0.05, 0.15)
    at = [-0.75, float(generator.uniform(-0.2, 0.2))]
    if generator.uniform() < 0.5:
        builder.add("rug", cylinder([*at, 0.008], 0.85, 0.008, weave))
    else:
        builder.add("rug", box([*at, 0.008], [0.7, 1.0, 0.008], weave))
    for k in range(5):
        angle = 1.26 * k + float(generator.uniform(0, 0.6))
        x, y = at[0] + 0.55 * np.cos(angle), at[1] + 0.6 * np.sin(angle)
        size = float(generator.uniform(0.05, 0.1))
        toy = builder.material(palette[k], WHITE, int(generator.choice([0, STRIPES, CHECKER])), 12.0, 0.3, 50, 0.4)
        if k % 2:
            builder.add("toy", sphere([x, y, 0.016 + size], size, toy, rotation(angle)))
        else:
            builder.add("toy", box([x, y, 0.016 + size], [size] * 3, toy, rotation(angle), rounding=0.15 * size))
