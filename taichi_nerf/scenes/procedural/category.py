"""Families `chairs` and `cars`: one plan each, varied parts, for priors that learn what a category has in common.

Chairs face -y, cars drive towards +x; both stand on z = -0.6 and fit into a cube of half side 1.
"""

from collections.abc import Callable

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    NOISE,
    STRIPES,
    Array,
    Builder,
    Color,
    Description,
    Solid,
    box,
    capsule,
    cylinder,
    ellipsoid,
    rod,
    rotation,
    srgb,
    torus,
)
from taichi_nerf.scenes.procedural.palettes import BLACK, WHITE, metal, shuffled_palette, studio_light, wood

Generator = np.random.Generator
GROUND = -0.75
BOX = ((-1.15, -1.15, -0.8), (1.15, 1.15, 1.1))


def describe_either(generator: Generator, time: float = 0.0) -> Description:
    """A chair or a car, by chance."""
    return describe_chair(generator) if generator.uniform() < 0.5 else describe_car(generator)


# --- chairs ---------------------------------------------------------------------------------------------------------------


def describe_chair(generator: Generator, time: float = 0.0) -> Description:
    builder = Builder()
    palette = shuffled_palette(generator)
    frame = [wood(builder, generator, 8), metal(builder), builder.material(palette[1], shine=0.3)][generator.integers(3)]
    cloth = [
        builder.material(palette[0], shine=0.08),
        builder.material(palette[0], palette[2], STRIPES, [9.0, 0.0, 0.0], 0.05, 20, 0.1),
        builder.material(palette[0], palette[3], NOISE, 10.0, 0.05, 20, 0.1),
    ][generator.integers(3)]
    half_x, half_y = (float(value) for value in generator.uniform([0.42, 0.4], [0.56, 0.52]))
    seat = GROUND + float(generator.uniform(0.62, 0.78))
    top = seat + float(generator.uniform(0.7, 1.0))
    thick = float(generator.uniform(0.035, 0.08))
    rounding = float(generator.uniform(0.2, 0.9)) * thick
    builder.add("seat", box([0, 0, seat], [half_x, half_y, thick], cloth, rounding=rounding))
    _legs(builder, generator, frame, half_x, half_y, seat - thick)
    _back(builder, generator, frame, cloth, half_x, half_y, seat, top)
    if generator.uniform() < 0.5:
        _arms(builder, generator, frame, half_x, half_y, seat)
    studio_light(builder, generator, 0.8)
    return builder.build(BOX, opaque=False)


def _legs(builder: Builder, generator: Generator, frame: int, half_x: float, half_y: float, top: float) -> None:
    kind, thick = generator.integers(4), float(generator.uniform(0.025, 0.045))
    corners = [np.array([u * (half_x - 0.06), v * (half_y - 0.06), top]) for u in (-1, 1) for v in (-1, 1)]
    if kind == 0:  # a column on a star of feet
        builder.add("column", cylinder([0, 0, (top + GROUND) / 2 + 0.04], thick, (top - GROUND) / 2 - 0.04, frame))
        for k in range(5):
            angle = 2 * np.pi * k / 5 + 0.3
            end = [0.42 * np.cos(angle), 0.42 * np.sin(angle), GROUND + 0.05]
            builder.add("foot", capsule([0, 0, GROUND + 0.12], end, thick, frame))
            builder.add("castor", ellipsoid([*end[:2], GROUND + 0.04], [0.04] * 3, builder.material(BLACK, shine=0.3)))
        return
    splay = float(generator.uniform(0.0, 0.25)) if kind == 1 else 0.04
    feet = [corner * [1 + splay, 1 + splay, 0] + [0, 0, GROUND] for corner in corners]
    for corner, foot in zip(corners, feet, strict=True):
        builder.add("leg", rod(foot, corner, 0.7 * thick, thick, frame))
    if kind == 2:  # runners
        for a, b in ((0, 1), (2, 3)):
            builder.add("runner", capsule(feet[a] + [0, 0, thick], feet[b] + [0, 0, thick], thick, frame))
    if kind == 3:  # stretchers
        for a, b in ((0, 1), (2, 3), (0, 2), (1, 3)):
            near, far = (0.6 * feet[i] + 0.4 * corners[i] for i in (a, b))
            builder.add("stretcher", capsule(near, far, 0.5 * thick, frame))


def _back(
    builder: Builder,
    generator: Generator,
    frame: int,
    cloth: int,
    half_x: float,
    half_y: float,
    seat: float,
    top: float,
) -> None:
    """Leaning, at +y: upholstered, a ladder, bars, or round."""
    kind, lean = generator.integers(4), float(generator.uniform(0.0, 0.25))
    at = lambda u, w: np.array([u, half_y - 0.04 + lean * w, seat + w])  # noqa: E731
    height = top - seat
    turned = rotation(0, 0, -np.arctan(lean))
    if kind == 0:
        middle = at(0, 0.55 * height)
        builder.add("back", box(middle, [half_x, 0.05, 0.42 * height], cloth, turned, 0.045))
        for side in (-0.7, 0.7):
            builder.add("post", rod(at(side * half_x, 0), at(side * half_x, 0.5 * height), 0.03, 0.03, frame))
        return
    if kind == 3:
        middle, radius = at(0, 0.58 * height), min(0.4 * height, half_x)
        builder.add("back", cylinder(middle, radius - 0.02, 0.04, cloth, rotation(0, 0, np.pi / 2 - np.arctan(lean))))
        builder.add("rim", torus(middle, radius, 0.045, frame, rotation(0, 0, np.pi / 2 - np.arctan(lean))))
        for side in (-0.4, 0.4):
            builder.add("post", rod(at(side * half_x, 0), at(side * half_x, 0.58 * height - 0.8 * radius), 0.03, 0.03, frame))
        return
    for side in (-1, 1):
        builder.add("post", capsule(at(side * (half_x - 0.04), 0), at(side * (half_x - 0.04), height), 0.035, frame))
    if kind == 1:
        for k in range(int(generator.integers(2, 5))):
            rung = at(0, height * (0.95 - 0.24 * k))
            builder.add("rung", box(rung, [half_x - 0.05, 0.018, 0.06], frame, turned, 0.015))
        return
    builder.add("rail", capsule(at(-half_x + 0.04, height), at(half_x - 0.04, height), 0.04, frame))
    n_bars = int(generator.integers(3, 7))
    for u in np.linspace(-1, 1, n_bars + 2)[1:-1]:
        builder.add("bar", capsule(at(u * (half_x - 0.04), 0), at(u * (half_x - 0.04), height), 0.018, frame))


def _arms(builder: Builder, generator: Generator, frame: int, half_x: float, half_y: float, seat: float) -> None:
    height, thick = float(generator.uniform(0.25, 0.36)), float(generator.uniform(0.025, 0.045))
    for side in (-1, 1):
        x = side * (half_x + 0.02)
        front = np.array([x, -0.7 * half_y, seat])
        builder.add("post", capsule(front, front + [0, 0, height], 0.7 * thick, frame))
        middle = [x, 0.1 * half_y, seat + height]
        builder.add("arm", box(middle, [1.6 * thick, 0.95 * half_y, thick], frame, rounding=0.6 * thick))


# --- cars -----------------------------------------------------------------------------------------------------------------


def describe_car(generator: Generator, time: float = 0.0) -> Description:
    builder = Builder()
    palette = shuffled_palette(generator)
    paint = builder.material(palette[0], shine=0.7, exponent=90, mirror=0.9)
    length, width = float(generator.uniform(0.92, 1.05)), float(generator.uniform(0.38, 0.44))
    wheel = float(generator.uniform(0.17, 0.21))
    sill = GROUND + 0.75 * wheel + 0.05
    deck = sill + float(generator.uniform(0.26, 0.34))
    kind = int(generator.integers(4))  # saloon, estate, van, pickup
    roof = deck + float(generator.uniform(0.24, 0.3)) + (0.1 if kind == 2 else 0.0)
    span = {0: (-0.55, 0.3), 1: (-0.93, 0.3), 2: (-0.95, 0.62), 3: (-0.12, 0.4)}[kind]
    back, front = span[0] * length, span[1] * length
    axles = (-0.62 * length, 0.62 * length)
    _body(builder, generator, paint, palette[2], length, width, sill, deck, roof, back, front, axles, wheel)
    _wheels(builder, generator, axles, width, wheel)
    _lights(builder, length, width, sill, deck)
    if kind in (1, 2) and generator.uniform() < 0.6:
        steel = metal(builder)
        for side in (-1, 1):
            y = side * 0.7 * width
            builder.add("rack", capsule([back + 0.15, y, roof + 0.03], [front - 0.2, y, roof + 0.03], 0.014, steel))
    if kind == 0 and generator.uniform() < 0.5:
        builder.add("spoiler", box([-0.93 * length, 0, deck + 0.12], [0.07, 0.85 * width, 0.012], paint, rotation(0, -0.15)))
        for side in (-1, 1):
            builder.add("strut", box([-0.92 * length, side * 0.5 * width, deck + 0.05], [0.03, 0.012, 0.07], paint))
    studio_light(builder, generator, 0.8)
    return builder.build(BOX, opaque=False)


def _body(
    builder: Builder, generator: Generator, paint: int, second: Color, length: float, width: float, sill: float,
    deck: float, roof: float, back: float, front: float, axles: tuple[float, float], wheel: float,
) -> None:  # fmt: skip
    """Hull and cabin melted together, wheel arches carved, then glass set into the cabin a little."""
    hull = box([0, 0, (sill + deck) / 2], [length, width, (deck - sill) / 2], paint, rounding=0.1)
    middle, half, tall = (back + front) / 2, (front - back) / 2, (roof - deck) / 2
    cabin = box([middle, 0, deck + tall - 0.03], [half, 0.86 * width, tall + 0.03], paint, rounding=0.09)
    arches = [wheel_at(x, y, 1.18 * wheel, 0.16, paint, wheel) for x in axles for y in (-width, width)]
    builder.add("body", hull, cabin, *[arch.carved() for arch in arches], blend=0.06)
    glass = builder.material(srgb("#22303c"), shine=0.9, exponent=120, mirror=1.6)
    z, high = deck + tall + 0.02, 0.62 * tall
    panes: list[Callable[[], Solid]] = [
        lambda: box([middle, 0, z], [half + 0.006, 0.7 * width, high], glass, rounding=0.03),
        lambda: box([middle - 0.5 * half, 0, z], [0.42 * half, 0.86 * width + 0.006, high], glass, rounding=0.03),
        lambda: box([middle + 0.47 * half, 0, z], [0.4 * half, 0.86 * width + 0.006, high], glass, rounding=0.03),
    ]
    for pane in panes:
        builder.add("glass", pane())
    if generator.uniform() < 0.35:
        stripe = builder.material(second, shine=0.7, exponent=90, mirror=0.7)
        builder.add("stripe", box([middle, 0, roof - 0.02], [0.8 * half, 0.18 * width, 0.026], stripe, rounding=0.02))
        ahead = (front + length) / 2
        builder.add("stripe", box([ahead, 0, deck - 0.02], [0.4 * (length - front), 0.18 * width, 0.026], stripe, rounding=0.02))
    trim = builder.material(srgb("#2c2d30"), shine=0.3)
    for side in (-1, 1):
        builder.add("sill", box([0, side * (width - 0.02), sill + 0.02], [0.4 * length, 0.03, 0.03], trim, rounding=0.02))
        builder.add("bumper", box([side * (length - 0.02), 0, sill + 0.06], [0.045, 0.9 * width, 0.045], trim, rounding=0.04))
        mirror = [front - 0.22 * half, side * (width + 0.05), deck + 0.05]
        builder.add("mirror", ellipsoid(mirror, [0.03, 0.055, 0.04], paint))


def wheel_at(x: float, y: float, radius: float, half_width: float, material: int, height: float) -> Solid:
    return cylinder([x, y, GROUND + height], radius, half_width, material, rotation(0, 0, np.pi / 2))


def _wheels(builder: Builder, generator: Generator, axles: tuple[float, float], width: float, wheel: float) -> None:
    rubber = builder.material(srgb("#1c1c1e"), shine=0.1, mirror=0.1)
    rim = metal(builder)
    n_spokes = int(generator.integers(5, 9))
    for x in axles:
        for side in (-1, 1):
            y = side * (width - 0.07)
            hub: Array = np.array([x, y, GROUND + wheel])
            upright = rotation(0, 0, np.pi / 2)
            builder.add("tyre", torus(hub, wheel - 0.06, 0.06, rubber, upright))
            builder.add("disc", cylinder(hub, wheel - 0.07, 0.03, builder.material(srgb("#55585c"), shine=0.3), upright))
            for k in range(n_spokes):
                angle = 2 * np.pi * k / n_spokes
                end = hub + [(wheel - 0.07) * np.cos(angle), side * 0.035, (wheel - 0.07) * np.sin(angle)]
                builder.add("spoke", capsule(hub + [0, side * 0.035, 0], end, 0.012, rim))


def _lights(builder: Builder, length: float, width: float, sill: float, deck: float) -> None:
    z = (sill + deck) / 2 + 0.03
    white = builder.material(WHITE, shine=0.8, exponent=90, mirror=1.0, glow=0.5)
    red = builder.material(srgb("#b01018"), shine=0.6, mirror=0.6, glow=0.3)
    for side in (-1, 1):
        builder.add("headlight", ellipsoid([length - 0.03, side * 0.66 * width, z], [0.04, 0.08, 0.045], white))
        builder.add("taillight", box([-length + 0.01, side * 0.7 * width, z], [0.02, 0.07, 0.05], red, rounding=0.015))
