"""Family `heads`: busts with a face that looks along -y, each seed another person; cameras choose the yaw.

Symmetric in x up to the parting of the hair. The center of the head is the origin.
"""

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    NOISE,
    STRIPES,
    Builder,
    Color,
    Description,
    Solid,
    capsule,
    cone,
    ellipsoid,
    rotation,
    sphere,
    srgb,
    torus,
)
from taichi_nerf.scenes.procedural.palettes import BLACK, WHITE, shuffled_palette

Generator = np.random.Generator
SKINS = ("#f1c9ac", "#e0ac86", "#c68a5e", "#8d5a3a", "#5e3a26")
HAIRS = ("#1d1714", "#3b2719", "#6b4423", "#a5712f", "#d3b06a", "#8a8a8a", "#7a2e17")
EYES = ("#3a6ea5", "#4f7a4a", "#6b4a2b", "#2f2a26")
BOX = ((-1.15, -0.9, -1.25), (1.15, 1.0, 1.15))


def describe_head(generator: Generator, time: float = 0.0) -> Description:
    builder = Builder()
    skin_color = srgb(SKINS[generator.integers(len(SKINS))])
    skin = builder.material(skin_color, shine=0.12, exponent=18, mirror=0.15)
    lips = builder.material(tuple(c * f for c, f in zip(skin_color, (0.85, 0.45, 0.45), strict=True)), shine=0.25, mirror=0.2)
    hair = srgb(HAIRS[generator.integers(len(HAIRS))])
    palette = shuffled_palette(generator)
    wide, long = float(generator.uniform(0.5, 0.57)), float(generator.uniform(0.92, 1.06))
    _face(builder, generator, skin, lips, wide, long)
    _eyes(builder, generator, hair)
    _hair(builder, generator, hair, wide)
    _shoulders(builder, generator, palette)
    if generator.uniform() < 0.35:
        _glasses(builder, wide)
    builder.sun([-0.6, -1.0, 0.9], (1.0, 0.95, 0.88))
    builder.sun([0.9, -0.5, 0.3], (0.25, 0.3, 0.4))
    builder.sky((0.5, 0.6, 0.8), (0.9, 0.9, 0.9), (0.35, 0.3, 0.28), ambient=0.42, reach=0.2, strength=0.75)
    return builder.build(BOX, opaque=False)


def _face(builder: Builder, generator: Generator, skin: int, lips: int, wide: float, long: float) -> None:
    jaw = float(generator.uniform(0.32, 0.4))
    chin = -0.55 * long
    nose = float(generator.uniform(0.06, 0.085))
    tip = -0.62 - float(generator.uniform(0.03, 0.1))
    solids: list[Solid] = [
        ellipsoid([0, 0.06, 0.16], [wide, 0.6, 0.58], skin),
        ellipsoid([0, -0.12, -0.22], [jaw + 0.1, 0.42, 0.42], skin),
        ellipsoid([0, -0.28, chin + 0.08], [0.17, 0.16, 0.13], skin),
        capsule([0, -0.5, 0.08], [0, tip, -0.12], nose, skin),
        sphere([0, tip - 0.01, -0.13], nose * 1.2, skin),
        capsule([0, 0.12, -0.3], [0, 0.12, -0.95], 0.24, skin),
    ]
    for side in (-1, 1):
        solids += [
            ellipsoid([side * 0.07, tip + 0.07, -0.15], [0.05, 0.06, 0.045], skin),
            ellipsoid([side * 0.27, -0.4, -0.1], [0.13, 0.12, 0.12], skin),
            capsule([side * 0.1, -0.53, 0.17], [side * 0.32, -0.44, 0.18], 0.05, skin),
        ]
    builder.add("face", *solids, blend=0.1)
    smile, thick = float(generator.uniform(0.0, 0.035)), float(generator.uniform(0.018, 0.03))
    mouth = []
    for side in (-1, 1):
        mouth += [
            capsule([0, -0.56, -0.325], [side * 0.1, -0.525, -0.315 + smile], thick, lips),
            capsule([0, -0.555, -0.36], [side * 0.1, -0.52, -0.325 + smile], thick, lips),
        ]
    builder.add("mouth", *mouth, blend=0.012)
    for side in (-1, 1):
        ear = [
            ellipsoid([side * (wide + 0.01), 0.06, 0.02], [0.055, 0.1, 0.16], skin, rotation(side * 0.35)),
            ellipsoid([side * (wide + 0.05), 0.04, 0.03], [0.035, 0.055, 0.09], skin, rotation(side * 0.35)).carved(),
        ]
        builder.add("ear", *ear, blend=0.03)


def _eyes(builder: Builder, generator: Generator, hair: Color) -> None:
    white = builder.material(WHITE, shine=0.7, exponent=110, mirror=0.5)
    iris = builder.material(srgb(EYES[generator.integers(len(EYES))]), shine=0.7, exponent=110, mirror=0.4)
    pupil, brow = builder.material(BLACK, shine=0.8, mirror=0.4), builder.material(hair, shine=0.05)
    raised = float(generator.uniform(-0.015, 0.03))
    for side in (-1, 1):
        at = np.array([side * 0.21, -0.455, 0.065])
        builder.add("eye", sphere(at, 0.1, white))
        builder.add("iris", ellipsoid(at + [0, -0.088, 0], [0.047, 0.022, 0.047], iris))
        builder.add("pupil", ellipsoid(at + [0, -0.104, 0], [0.022, 0.012, 0.022], pupil))
        inner, outer = [side * 0.11, -0.58, 0.2 + raised], [side * 0.33, -0.48, 0.22 + raised]
        builder.add("brow", capsule(inner, outer, 0.022, brow))


def _hair(builder: Builder, generator: Generator, color: Color, wide: float) -> None:
    """A cap with the face carved out: short, long, a bun, or a hat; some have none."""
    dark = tuple(0.55 * c for c in color)
    strands = builder.material(color, dark, NOISE, [26.0, 26.0, 5.0], 0.25, 30, 0.3)
    kind = generator.integers(5)
    if kind == 4:
        return
    cap = [
        ellipsoid([0, 0.1, 0.24], [wide + 0.06, 0.62, 0.6], strands),
        ellipsoid([0, -0.75, -0.2], [0.52, 0.6, 0.62], strands).carved(),
        ellipsoid([0, -0.1, -0.75], [0.8, 0.55, 0.75], strands).carved(),
    ]
    if kind == 1:  # long
        cap = cap[:2]
        for side in (-1, 1):
            cap.insert(1, ellipsoid([side * (wide - 0.04), 0.2, -0.3], [0.17, 0.32, 0.62], strands))
        cap.insert(1, ellipsoid([0, 0.42, -0.3], [0.42, 0.24, 0.65], strands))
    if kind == 2:
        cap.append(sphere([0, 0.5, 0.68], 0.21, strands))
    builder.add("hair", *cap, blend=0.06)
    part = float(generator.choice([-1.0, 1.0]))
    if kind == 0:
        lock = [ellipsoid([part * 0.12, -0.3, 0.6], [0.4, 0.26, 0.2], strands, rotation(part * 0.2, part * 0.2))]
        builder.add("lock", *lock, blend=0.02)


def _shoulders(builder: Builder, generator: Generator, palette: list[Color]) -> None:
    patterned = builder.material(palette[0], palette[1], STRIPES, [0.0, 0.0, 10.0], 0.05, 20, 0.1)
    shirt = [builder.material(palette[0], shine=0.05), patterned][generator.integers(2)]
    wide = float(generator.uniform(0.72, 0.85))
    solids = [
        ellipsoid([0, 0.16, -1.12], [wide, 0.36, 0.3], shirt),
        cone([0, 0.13, -0.84], 0.36, 0.27, 0.09, shirt),
    ]
    builder.add("shirt", *solids, blend=0.1)
    builder.add("collar", torus([0, 0.13, -0.76], 0.26, 0.035, builder.material(palette[2], shine=0.05)))


def _glasses(builder: Builder, wide: float) -> None:
    frame = builder.material(BLACK, shine=0.6, mirror=0.5)
    upright = rotation(0, 0, np.pi / 2)
    for side in (-1, 1):
        builder.add("lens", torus([side * 0.21, -0.66, 0.06], 0.15, 0.015, frame, upright))
        builder.add("temple", capsule([side * 0.36, -0.65, 0.08], [side * (wide + 0.03), 0.02, 0.1], 0.014, frame))
    builder.add("bridge", capsule([-0.06, -0.68, 0.08], [0.06, -0.68, 0.08], 0.013, frame))
