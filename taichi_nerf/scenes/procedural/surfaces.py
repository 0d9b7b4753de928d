"""The same solids in numpy, 64 bits: signed distances, and points spread evenly over the surface of their union.

Independent of the kernels, so tests hold one against the other; and the ground truth for Chamfer distances.
"""

from collections.abc import Callable

import numpy as np

from taichi_nerf.scenes.procedural.description import (
    BOX,
    CAPSULE,
    CONE,
    ELLIPSOID,
    TORUS,
    Array,
    Description,
)

BURIED = 1e-5  # a point this deep in another shape is no part of the surface


def solid_distance(kind: int, p: Array, s: Array) -> Array:
    """[n] of points [n, 3] in the solid's own frame. Ellipsoids to first order."""
    if kind == ELLIPSOID:
        length = np.linalg.norm(p / s[:3], axis=-1)
        slope = np.linalg.norm(p / s[:3] ** 2, axis=-1)
        return np.where(slope > 1e-9, length * (length - 1) / np.maximum(slope, 1e-9), -s[:3].min())
    if kind == BOX:
        q = np.abs(p) - (s[:3] - s[3])
        return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - s[3]
    if kind == CONE:
        return _cone_distance(np.hypot(p[:, 0], p[:, 1]), p[:, 2], *s[:3])
    if kind == CAPSULE:
        return np.linalg.norm(p - np.stack([0 * p[:, 2], 0 * p[:, 2], np.clip(p[:, 2], -s[1], s[1])], -1), axis=-1) - s[0]
    if kind == TORUS:
        return np.hypot(np.hypot(p[:, 0], p[:, 1]) - s[0], p[:, 2]) - s[1]
    return p[:, 2]


def _cone_distance(r: Array, z: Array, bottom: float, top: float, half: float) -> Array:
    cap = np.stack([r - np.minimum(r, np.where(z < 0, bottom, top)), np.abs(z) - half], -1)
    along = np.array([top - bottom, 2 * half])
    back = np.stack([top - r, half - z], -1)
    side = along * np.clip(back @ along / (along @ along), 0, 1)[:, None] - back
    inside = (side[:, 0] < 0) & (cap[:, 1] < 0)
    return np.where(inside, -1, 1) * np.sqrt(np.minimum((cap**2).sum(-1), (side**2).sum(-1)))


def shape_distance(scene: Description, shape: int, points: Array) -> Array:
    """[n] signed distance to one shape."""
    first, count, _ = scene.spans[shape]
    blend = max(float(scene.shapes[shape, 4]), 1e-7)
    found = np.zeros(len(points))
    for i in range(first, first + count):
        row = scene.primitives[i].astype(np.float64)
        other = solid_distance(int(scene.kinds[i, 0]), (points - row[9:12]) @ row[:9].reshape(3, 3).T, row[12:])
        if i == first:
            found = other
            continue
        sign = -1 if scene.kinds[i, 2] else 1
        kept = sign * found
        h = np.clip(0.5 + 0.5 * (other - kept) / blend, 0, 1)
        found = sign * (other + (kept - other) * h - blend * h * (1 - h))
    return found


def signed_distance(scene: Description, points: Array, skip: int = -1) -> Array:
    """[n] distance to the nearest shape, negative inside of one; without shape number `skip`."""
    found = np.full(len(points), np.inf)
    for shape in range(len(scene.shapes)):
        if shape != skip:
            found = np.minimum(found, shape_distance(scene, shape, points))
    return found


def sample_surface(scene: Description, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Points [n, 3] spread evenly by area over the surface of the union, within the scene's box; and their shapes [n].

    What lies inside another shape is no surface. Planes count as far as the box goes.
    """
    generator = np.random.default_rng(seed)
    areas = np.array([_measure(scene, shape, generator) for shape in range(len(scene.shapes))])
    kept: list[Array] = []
    shapes: list[Array] = []
    n_kept, n_drawn = 0, 0
    while n_kept < n and n_drawn < 50 * n + 10**6:
        wanted = generator.multinomial(2 * n, areas / areas.sum())
        n_drawn += 2 * n
        for shape, count in enumerate(wanted):
            points = _sample_shape(scene, shape, int(count), generator)
            there = signed_distance(scene, points, skip=shape) > BURIED
            there &= ((points >= scene.box[0]) & (points <= scene.box[1])).all(-1)
            kept.append(points[there])
            shapes.append(np.full(there.sum(), shape))
            n_kept += int(there.sum())
    order = generator.permutation(n_kept)[:n]
    return np.concatenate(kept)[order], np.concatenate(shapes)[order]


def _measure(scene: Description, shape: int, generator: np.random.Generator) -> float:
    """Area of a shape's surface; for melted ones by how much of a box of points lies near it."""
    first, count, _ = scene.spans[shape]
    if count == 1:
        return _area(int(scene.kinds[first, 0]), scene.primitives[first, 12:].astype(np.float64), scene.box)
    points, thickness = _near_surface(scene, shape, 60_000, generator)
    return len(points) / 60_000 * float(np.prod(2 * _half_sides(scene, shape))) / (2 * thickness)


def _sample_shape(scene: Description, shape: int, n: int, generator: np.random.Generator) -> Array:
    first, count, _ = scene.spans[shape]
    if count > 1:
        return _sample_melted(scene, shape, n, generator)
    row = scene.primitives[first].astype(np.float64)
    kind = int(scene.kinds[first, 0])
    local = _sample_solid(kind, row[12:], n, generator, scene.box)
    placed: Array = local @ row[:9].reshape(3, 3) + (row[9:12] if row[12:].any() else [0, 0, row[11]])
    return placed


# --- melted shapes: points near the surface, carried onto it -----------------------------------------------------------


def _half_sides(scene: Description, shape: int) -> Array:
    """Of an upright box around a shape, inside the ball around it."""
    first, count, _ = scene.spans[shape]
    center, radius = scene.shapes[shape, :3], float(scene.shapes[shape, 3])
    reach = np.zeros(3)
    for i in range(first, first + count):
        if not scene.kinds[i, 2]:
            row = scene.primitives[i].astype(np.float64)
            extent = _half_extents(int(scene.kinds[i, 0]), row[12:])
            reach = np.maximum(reach, np.abs(row[9:12] - center) + np.abs(row[:9].reshape(3, 3).T) @ extent)
    return np.minimum(reach + float(scene.shapes[shape, 4]) / 4 * count + 0.01 * radius, radius)


def _half_extents(kind: int, s: Array) -> Array:
    if kind in (ELLIPSOID, BOX):
        return s[:3]
    if kind == CONE:
        return np.array([max(s[0], s[1])] * 2 + [s[2]])
    if kind == CAPSULE:
        return np.array([s[0], s[0], s[0] + s[1]])
    return np.array([s[0] + s[1], s[0] + s[1], s[1]])


def _near_surface(scene: Description, shape: int, n: int, generator: np.random.Generator) -> tuple[Array, float]:
    half = _half_sides(scene, shape)
    thickness = 0.02 * float(scene.shapes[shape, 3])
    points = scene.shapes[shape, :3] + generator.uniform(-1, 1, (n, 3)) * half
    near = np.abs(shape_distance(scene, shape, points)) < thickness
    return points[near], thickness


def _sample_melted(scene: Description, shape: int, n: int, generator: np.random.Generator) -> Array:
    found = [np.zeros((0, 3))]
    while sum(map(len, found)) < n:
        points, _ = _near_surface(scene, shape, max(20 * n, 4000), generator)
        for _ in range(8):
            value = shape_distance(scene, shape, points)
            step = 1e-5
            slope = np.stack([(shape_distance(scene, shape, points + step * axis) - value) / step for axis in np.eye(3)], -1)
            points = points - (value / np.maximum((slope**2).sum(-1), 0.05))[:, None] * slope
        found.append(points[np.abs(shape_distance(scene, shape, points)) < 1e-7])
    return np.concatenate(found)[:n]


# --- single solids ------------------------------------------------------------------------------------------------------


def _area(kind: int, s: Array, room: Array) -> float:
    a, b, c, r = s
    if kind == ELLIPSOID:
        p = 1.6075  # Thomsen's approximation, within 1.1 %
        return float(4 * np.pi * ((a**p * b**p + a**p * c**p + b**p * c**p) / 3) ** (1 / p))
    if kind == BOX:
        x, y, z = a - r, b - r, c - r
        return float(8 * (x * y + y * z + z * x) + 4 * np.pi * r * (x + y + z) + 4 * np.pi * r * r)
    if kind == CONE:
        return float(np.pi * (a + b) * np.hypot(a - b, 2 * c) + np.pi * (a * a + b * b))
    if kind == CAPSULE:
        return float(4 * np.pi * a * (a + b))
    if kind == TORUS:
        return float(4 * np.pi**2 * a * b)
    return float(np.prod((room[1] - room[0])[:2]))


def _directions(n: int, generator: np.random.Generator) -> Array:
    found = generator.normal(size=(n, 3))
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def _sample_solid(kind: int, s: Array, n: int, generator: np.random.Generator, room: Array) -> Array:
    """Points [n, 3] in the solid's frame, evenly by area. A plane's are in the world's axes."""
    if kind == ELLIPSOID:
        return (
            _sample_thinned(
                n,
                generator,
                lambda m: _directions(m, generator),
                lambda u: np.linalg.norm(u / s[:3], axis=-1) * s[:3].min(),
            )
            * s[:3]
        )
    if kind == BOX:
        return _sample_box(s, n, generator)
    angle = generator.uniform(0, 2 * np.pi, n)
    around = np.stack([np.cos(angle), np.sin(angle)], -1)
    if kind == CONE:
        return _sample_cone(s, around, generator)
    if kind == CAPSULE:
        radius, half = s[:2]
        points = _directions(n, generator) * radius
        points[:, 2] += np.where(points[:, 2] > 0, half, -half)
        side = generator.uniform(size=n) < half / (half + radius)
        points[side] = np.column_stack([around * radius, generator.uniform(-half, half, n)])[side]
        return points
    if kind == TORUS:
        ring, tube = s[:2]
        phi = _sample_thinned(
            n, generator, lambda m: generator.uniform(0, 2 * np.pi, (m, 1)),
            lambda x: (ring + tube * np.cos(x[:, 0])) / (ring + tube),
        )[:, 0]  # fmt: skip
        return np.column_stack([around * (ring + tube * np.cos(phi))[:, None], tube * np.sin(phi)])
    return np.column_stack([generator.uniform(room[0, :2], room[1, :2], (n, 2)), np.zeros(n)])


def _sample_thinned(
    n: int, generator: np.random.Generator, draw: Callable[[int], Array], density: Callable[[Array], Array]
) -> Array:
    """n of what `draw` makes, kept with a probability of `density` (at most 1)."""
    kept = [draw(0)]
    while sum(map(len, kept)) < n:
        drawn = draw(2 * n + 16)
        kept.append(drawn[generator.uniform(size=len(drawn)) < density(drawn)])
    return np.concatenate(kept)[:n]


def _sample_box(s: Array, n: int, generator: np.random.Generator) -> Array:
    """Flat faces, quarter cylinders along the edges, and the corners' ball, each by its area."""
    core, r = s[:3] - s[3], s[3]
    areas = [8 * core[(k + 1) % 3] * core[(k + 2) % 3] for k in range(3)] + [4 * np.pi * r * core[k] for k in range(3)]
    part = generator.choice(7, n, p=np.array([*areas, 4 * np.pi * r * r]) / sum([*areas, 4 * np.pi * r * r]))
    points = generator.uniform(-1, 1, (n, 3)) * core
    ball = _directions(n, generator)
    angle = generator.uniform(0, 2 * np.pi, n)
    for k in range(3):
        face, edge = part == k, part == 3 + k
        points[face, k] = np.where(points[face, k] < 0, -s[k], s[k])
        for other, turn in (((k + 1) % 3, np.cos(angle)), ((k + 2) % 3, np.sin(angle))):
            points[edge, other] = (np.where(turn < 0, -core[other], core[other]) + r * turn)[edge]
    corner = part == 6
    points[corner] = (np.where(ball < 0, -core, core) + r * ball)[corner]
    return points


def _sample_cone(s: Array, around: Array, generator: np.random.Generator) -> Array:
    bottom, top, half, _ = s
    n = len(around)
    side, low, high = np.pi * (bottom + top) * np.hypot(bottom - top, 2 * half), np.pi * bottom**2, np.pi * top**2
    part = generator.choice(3, n, p=np.array([side, low, high]) / (side + low + high))
    u = generator.uniform(size=n)
    wall = np.sqrt(bottom**2 + u * (top**2 - bottom**2))  # even in area: the radius squared is even
    share = u if abs(top - bottom) < 1e-9 else (wall - bottom) / (top - bottom)
    radius = np.select([part == 0, part == 1], [wall, bottom * np.sqrt(u)], top * np.sqrt(u))
    z = np.select([part == 0, part == 1], [half * (2 * share - 1), np.full(n, -half)], half)
    return np.column_stack([around * radius[:, None], z])
