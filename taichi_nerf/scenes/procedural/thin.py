"""Family `thin`: what aliasing spoils first. A spoked wheel, a cage of wires, a tree of twigs, a net, fine checkerboards."""

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    CHECKER,
    STRIPES,
    Array,
    Builder,
    Description,
    box,
    capsule,
    cylinder,
    rotation,
    sphere,
    srgb,
    torus,
)
from taichi_nerf.scenes.procedural.objects import FLOOR, place
from taichi_nerf.scenes.procedural.palettes import BLACK, WHITE, metal, shuffled_palette, studio_light

Generator = np.random.Generator
BOX = ((-1.2, -1.2, -0.62), (1.2, 1.2, 1.0))


def describe_thin(generator: Generator, time: float = 0.0) -> Description:
    builder = Builder()
    palette = shuffled_palette(generator)
    fine = float(generator.uniform(8, 12))
    board = builder.material(WHITE, BLACK, CHECKER, [fine, fine, 0.0], 0.15, 60, 0.4)
    builder.add("board", cylinder([0, 0, FLOOR - 0.04], 1.12, 0.04, board))
    start = float(generator.uniform(0, 2 * np.pi))
    _wheel(builder, generator, place(start, 0.6), start)
    _cage(builder, palette, place(start + 2.1, 0.62))
    _twigs(builder, generator, place(start + 4.2, 0.6))
    checks = builder.material(palette[0], WHITE, CHECKER, 14.0, 0.3, 60, 0.5)
    builder.add("ball", sphere(place(start + 1.05, 0.62) + [0, 0, 0.2], 0.2, checks, rotation(start)))
    lines = builder.material(palette[1], WHITE, STRIPES, [0.0, 0.0, 40.0], 0.2, 50, 0.4)
    builder.add("block", box(place(start + 3.15, 0.72) + [0, 0, 0.3], [0.14, 0.14, 0.3], lines, rotation(start + 0.4)))
    _net(builder, palette, place(start + 5.25, 0.72), start + 5.25)
    studio_light(builder, generator, 0.8)
    return builder.build(BOX, opaque=False)


def _wheel(builder: Builder, generator: Generator, at: Array, angle: float) -> None:
    """Upright, of a bicycle: crossed spokes between hub and rim."""
    rubber, steel = builder.material(BLACK, shine=0.2), metal(builder)
    radius = 0.5
    hub = at + [0, 0, radius + 0.02]
    turned = rotation(angle, np.pi / 2)
    builder.add("tyre", torus(hub, radius, 0.022, rubber, turned))
    builder.add("rim", torus(hub, radius - 0.03, 0.01, steel, turned))
    builder.add("hub", cylinder(hub, 0.035, 0.07, steel, turned))
    n_spokes = int(generator.choice([20, 24, 28]))
    for k in range(n_spokes):
        side = 1 if k % 2 else -1
        phi = 2 * np.pi * k / n_spokes
        lead = phi + (0.9 if k % 4 < 2 else -0.9)
        inner = turned @ np.array([0.03 * np.cos(lead), 0.03 * np.sin(lead), side * 0.055])
        outer = turned @ np.array([(radius - 0.03) * np.cos(phi), (radius - 0.03) * np.sin(phi), 0])
        builder.add("spoke", capsule(hub + inner, hub + outer, 0.0035, steel))


def _cage(builder: Builder, palette: list, at: Array) -> None:
    """A bird cage with a ball in it."""
    brass = metal(builder, srgb("#c89b3c"))
    n_wires, radius, height = 16, 0.28, 0.5
    for k in range(n_wires):
        phi = 2 * np.pi * k / n_wires
        foot = at + [radius * np.cos(phi), radius * np.sin(phi), 0.02]
        shoulder = foot + [0, 0, height]
        builder.add("wire", capsule(foot, shoulder, 0.006, brass))
        builder.add("wire", capsule(shoulder, at + [0, 0, height + 0.24], 0.006, brass))
    for z in (0.02, height / 2, height + 0.02):
        builder.add("hoop", torus(at + [0, 0, z], radius, 0.009, brass))
    builder.add("ball", sphere(at + [0, 0, 0.3], 0.1, builder.material(palette[2], shine=0.5, mirror=0.6)))
    builder.add("perch", capsule(at + [0, 0, 0.02], at + [0, 0, 0.2], 0.008, brass))


def _twigs(builder: Builder, generator: Generator, at: Array) -> None:
    """A tree of rods, each of which forks twice or thrice, five times over."""
    bark = builder.material(srgb("#6a4a32"), shine=0.05)
    tips: list[tuple[Array, Array, float, int]] = [(at, np.array([0.0, 0, 1]), 0.32, 0)]
    while tips:
        start, direction, length, level = tips.pop()
        end = start + length * direction
        builder.add("twig", capsule(start, end, 0.028 * 0.58**level, bark))
        if level == 4:
            continue
        for _ in range(3 if level < 2 else 2):
            bent = direction + 0.62 * generator.normal(size=3) + [0, 0, 0.15]
            tips.append((end, bent / np.linalg.norm(bent), length * float(generator.uniform(0.6, 0.8)), level + 1))


def _net(builder: Builder, palette: list, at: Array, angle: float) -> None:
    """A frame with threads across."""
    frame, thread = builder.material(palette[3], shine=0.2), builder.material(WHITE, shine=0.05)
    turned = rotation(angle + np.pi / 2)
    corner = lambda u, w: at + turned @ np.array([u, 0, w])  # noqa: E731
    half, height = 0.3, 0.75
    ends = [corner(-half, 0.02), corner(half, 0.02), corner(half, height), corner(-half, height)]
    for k in range(4):
        builder.add("frame", capsule(ends[k], ends[(k + 1) % 4], 0.018, frame))
    for s in np.linspace(0, 1, 14)[1:-1]:
        builder.add("thread", capsule(corner(half * (2 * s - 1), 0.02), corner(half * (2 * s - 1), height), 0.003, thread))
    for s in np.linspace(0, 1, 17)[1:-1]:
        w = 0.02 + s * (height - 0.02)
        builder.add("thread", capsule(corner(-half, w), corner(half, w), 0.003, thread))
