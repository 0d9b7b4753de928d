"""Family `objects`: textured and shiny things on a round plinth. Family `dynamic`: some that move."""

from collections.abc import Callable

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    CHECKER,
    Array,
    Builder,
    Description,
    Solid,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    rotation,
    sphere,
    srgb,
    torus,
)
from taichi_nerf.scenes.procedural.palettes import metal, shuffled_palette, studio_light, textured, wood

Generator = np.random.Generator
BOX = ((-1.2, -1.2, -0.62), (1.2, 1.2, 1.0))
FLOOR = -0.5


def describe_objects(generator: Generator, time: float = 0.0) -> Description:
    """Seven to ten things, no two of them in each other's place."""
    builder = Builder()
    palette = shuffled_palette(generator)
    plinth(builder, generator)
    makers: list[Callable[..., None]] = [ball, block, ring, spire, blob, pawn, stack, vase, knot]
    order = generator.permutation(len(makers))
    places = scattered(generator, [0.3, 0.28, 0.26, 0.24, 0.22, 0.2, 0.18, 0.17, 0.15], 1.0)
    for k, (x, y, size) in enumerate(places):
        makers[order[k % len(makers)]](builder, generator, palette, x, y, size)
    studio_light(builder, generator)
    return builder.build(BOX, opaque=False)


def scattered(generator: Generator, sizes: list[float], reach: float) -> list[tuple[float, float, float]]:
    """x, y, radius of discs within a disc that do not touch; the largest first, those that find no place left out."""
    found: list[tuple[float, float, float]] = []
    for size in sizes:
        for _ in range(60):
            angle, distance = generator.uniform(0, 2 * np.pi), (reach - size) * np.sqrt(generator.uniform())
            x, y = float(distance * np.cos(angle)), float(distance * np.sin(angle))
            if all(np.hypot(x - u, y - v) > size + r + 0.03 for u, v, r in found):
                found.append((x, y, size))
                break
    return found


def plinth(builder: Builder, generator: Generator) -> None:
    kind = generator.integers(3)
    if kind == 0:
        material = wood(builder, generator, 8)
    elif kind == 1:
        pale, dark = srgb("#d9d4c8"), srgb("#5a6670")
        material = builder.material(pale, dark, CHECKER, [4.0, 4.0, 0.0], 0.2, 60, 0.5)
    else:
        material = textured(builder, generator, [srgb("#cfc9bd"), srgb("#a8b0b0"), srgb("#8a7f72")], 0.6)
    builder.add("plinth", cylinder([0, 0, FLOOR - 0.05], 1.12, 0.05, material))


def ball(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    material = textured(builder, generator, palette)
    turned = rotation(*generator.uniform(0, 6, 3))
    builder.add("ball", sphere([x, y, FLOOR + size], size, material, turned))


def block(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    material = textured(builder, generator, palette)
    half = size * generator.uniform([0.45, 0.45, 0.6], [0.65, 0.65, 1.8])
    rounding = float(generator.choice([0.0, 0.2])) * size
    turned = rotation(generator.uniform(0, 6))
    builder.add("block", box([x, y, FLOOR + half[2]], list(half), material, turned, rounding))


def ring(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    """Standing up, or lying with a ball in it."""
    tube = size * float(generator.uniform(0.2, 0.32))
    material = textured(builder, generator, palette)
    if generator.uniform() < 0.5:
        turned = rotation(generator.uniform(0, 6), np.pi / 2)
        builder.add("ring", torus([x, y, FLOOR + size], size - tube, tube, material, turned))
        return
    builder.add("ring", torus([x, y, FLOOR + tube], size - tube, tube, material))
    builder.add("ball", sphere([x, y, FLOOR + 0.55 * size], 0.55 * size, textured(builder, generator, palette)))


def spire(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    height = size * float(generator.uniform(1.0, 1.7))
    material = textured(builder, generator, palette)
    tip = size * float(generator.choice([0.0, 0.35]))
    builder.add("cone", cone([x, y, FLOOR + height], 0.9 * size, tip, height, material))


def blob(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    """Balls that melt together, each of another color."""
    colors = [builder.material(color, shine=0.5, exponent=70, mirror=0.7) for color in palette[:3]]
    solids = [sphere([x, y, FLOOR + 0.5 * size], 0.62 * size, colors[0])]
    for k in range(4):
        at = np.array([x, y, FLOOR + 0.95 * size]) + generator.uniform(-0.5, 0.5, 3) * size * [1, 1, 0.9]
        solids.append(sphere(at, size * float(generator.uniform(0.25, 0.42)), colors[k % 3]))
    solids.append(cylinder([x, y, FLOOR + 0.06 * size], 0.7 * size, 0.06 * size, colors[1]))
    builder.add("blob", *solids, blend=0.28 * size)


def pawn(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    material = textured(builder, generator, palette, 1.3)
    solids = [
        cone([x, y, FLOOR + 0.16 * size], 0.8 * size, 0.7 * size, 0.16 * size, material),
        cone([x, y, FLOOR + 1.0 * size], 0.55 * size, 0.22 * size, 0.8 * size, material),
        torus([x, y, FLOOR + 1.75 * size], 0.25 * size, 0.09 * size, material),
        sphere([x, y, FLOOR + 2.1 * size], 0.38 * size, material),
    ]
    builder.add("pawn", *solids, blend=0.15 * size)


def stack(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    """Bricks on top of each other, each turned a little more."""
    height, turn = FLOOR, generator.uniform(0, 6)
    for k in range(4):
        half = size * (0.62 - 0.1 * k)
        material = textured(builder, generator, palette, 1.2)
        builder.add("brick", box([x, y, height + 0.22 * size], [half, half, 0.22 * size], material, rotation(turn)))
        height += 0.44 * size
        turn += generator.uniform(0.2, 0.6)


def vase(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    """A hollow body: carved from above."""
    outside, inside = textured(builder, generator, palette, 1.2), builder.material(palette[4], shine=0.1)
    neck = size * float(generator.uniform(0.25, 0.4))
    solids = [
        ellipsoid([x, y, FLOOR + 0.75 * size], [0.75 * size, 0.75 * size, 0.75 * size], outside),
        cone([x, y, FLOOR + 1.6 * size], neck, 1.35 * neck, 0.4 * size, outside),
        cone([x, y, FLOOR + 0.05 * size], 0.45 * size, 0.4 * size, 0.05 * size, outside),
        cone([x, y, FLOOR + 1.6 * size], 0.72 * neck, 1.1 * neck, 0.5 * size, inside).carved(),
    ]
    builder.add("vase", *solids, blend=0.12 * size)


def knot(builder: Builder, generator: Generator, palette: list, x: float, y: float, size: float) -> None:
    """Three rings through each other, of metal and of color."""
    turn = generator.uniform(0, 6)
    materials = [metal(builder), metal(builder, srgb("#d4a24a")), textured(builder, generator, palette)]
    for k, (pitch, roll) in enumerate([(np.pi / 2, 0.0), (0.0, np.pi / 2), (0.0, 0.0)]):
        turned = rotation(turn, pitch, roll)
        builder.add("ring", torus([x, y, FLOOR + size], 0.82 * size, 0.13 * size, materials[k], turned))


def describe_dynamic(generator: Generator, time: float = 0.0) -> Description:
    """A bouncing ball, a pendulum, a turning ring, a top, and drops that meet and part. One period lasts from 0 to 1."""
    builder = Builder()
    palette = shuffled_palette(generator)
    plinth(builder, generator)
    turns = 2 * np.pi * time
    start = float(generator.uniform(0, 2 * np.pi))
    _bouncing(builder, palette, place(start, 0.72), time)
    _pendulum(builder, generator, palette, place(start + 1.3, 0.55), turns)
    _drops(builder, palette, place(start + 2.6, 0.6), turns)
    at = place(start + 3.8, 0.7)
    spin = rotation(turns) @ rotation(0.0, 0.25) @ rotation(-3 * turns)
    material = textured(builder, generator, palette, 1.2)
    centre = at + [0, 0, 0.3]
    builder.add("top", _along(cone(centre, 0.02, 0.24, 0.14, material, spin), -0.14), _along(
        cone(centre, 0.24, 0.03, 0.09, material, spin), 0.09), blend=0.03)  # fmt: skip
    at = place(start + 5.0, 0.66) + [0, 0, 0.32]
    builder.add("ring", torus(at, 0.24, 0.07, textured(builder, generator, palette), rotation(turns, np.pi / 2)))
    builder.add("core", sphere(at, 0.1, metal(builder), rotation(turns)))
    studio_light(builder, generator)
    return builder.build(BOX, opaque=False)


def place(angle: float, distance: float) -> Array:
    return np.array([distance * np.cos(angle), distance * np.sin(angle), FLOOR])


def _along(solid: Solid, shift: float) -> Solid:
    return solid._replace(center=solid.center + shift * solid.rotation[:, 2])


def _bouncing(builder: Builder, palette: list, at: Array, time: float) -> None:
    """Two bounces a period, flat where it touches the ground."""
    phase = (2 * time) % 1.0
    height = 4 * phase * (1 - phase)
    squeeze = 1 - 0.25 * np.exp(-30 * height)
    radius = 0.19
    axes = [radius / np.sqrt(squeeze), radius / np.sqrt(squeeze), radius * squeeze]
    material = builder.material(palette[0], palette[1], CHECKER, 7.0, 0.4, 60, 0.5)
    builder.add("ball", ellipsoid(at + [0, 0, axes[2] + 0.85 * height], axes, material))


def _pendulum(builder: Builder, generator: Generator, palette: list, at: Array, turns: float) -> None:
    frame = wood(builder, generator, 12)
    lean = 0.7 * np.cos(turns)
    hook = at + [0, 0, 1.15]
    bob = hook + 0.8 * np.array([np.sin(lean), 0, -np.cos(lean)])
    for x in (-0.42, 0.42):
        builder.add("post", box(at + [x, 0, 0.575], [0.03, 0.03, 0.575], frame))
    builder.add("beam", box(hook + [0, 0, 0.03], [0.5, 0.04, 0.03], frame))
    builder.add("string", capsule(hook, bob, 0.012, metal(builder)))
    builder.add("bob", sphere(bob, 0.12, builder.material(palette[2], shine=0.6, exponent=90, mirror=0.9)))


def _drops(builder: Builder, palette: list, at: Array, turns: float) -> None:
    """Three balls around each other that melt together where they meet."""
    solids = []
    for k in range(3):
        angle = turns + 2 * np.pi * k / 3
        apart = 0.17 + 0.09 * np.sin(2 * turns)
        offset = np.array([apart * np.cos(angle), apart * np.sin(angle), 0.3 + 0.1 * np.sin(turns + 2 * k)])
        solids.append(sphere(at + offset, 0.13, builder.material(palette[k + 1], shine=0.5, exponent=60, mirror=0.6)))
    builder.add("drops", *solids, blend=0.14)
