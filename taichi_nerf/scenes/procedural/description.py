"""What a procedural scene consists of, as plain arrays, and the builder that families compose them with.

World: z up, right-handed; lengths are metres in rooms and arbitrary elsewhere. A *solid* (primitive) has a kind, a rigid
placement, sizes and a material; a *shape* is one solid, or several that melt together or are carved, and is what object
numbers count. The layout of the arrays is that of `kernels/procedural.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

ELLIPSOID, BOX, CONE, CAPSULE, TORUS, PLANE = range(6)
PLAIN, CHECKER, STRIPES, NOISE, MARBLE, RINGS, DOTS, TILES = range(8)
UNBOUNDED = -1.0  # radius of the ball around a plane
Color = tuple[float, ...]  # red, green, blue in linear light


@dataclass(frozen=True)
class Description:
    """A scene at one moment."""

    primitives: Array  # [n_primitives, 16] float32
    kinds: Array  # [n_primitives, 3] int32
    shapes: Array  # [n_shapes, 5] float32
    spans: Array  # [n_shapes, 3] int32
    materials: Array  # [n_materials, 16] float32
    lights: Array  # [n_lights, 7] float32
    surrounding: Array  # [4, 4] float32
    names: list[str]  # [n_shapes]
    box: Array  # [2, 3] of what cameras look at
    opaque: bool  # every ray ends in a color: walls all around, or a sky


class Solid(NamedTuple):
    kind: int
    center: Array
    rotation: Array  # [3, 3] columns are the solid's axes in the world
    sizes: tuple[float, float, float, float]
    material: int
    carve: bool = False

    def carved(self) -> "Solid":
        return self._replace(carve=True)


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Turns by radians about x (roll), then y (pitch), then z (yaw)."""
    (cz, cy, cx), (sz, sy, sx) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return about_z @ about_y @ about_x


def axis_to(direction: ArrayLike) -> Array:
    """A rotation that takes z to a direction."""
    z = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    x = np.cross([0.0, 1, 0] if abs(z[1]) < 0.9 else [1.0, 0, 0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], -1)


def srgb(text: str) -> Color:
    """ "#rrggbb" in linear light."""
    r, g, b = (float((int(text[i : i + 2], 16) / 255) ** 2.2) for i in (1, 3, 5))
    return (r, g, b)


@dataclass
class Builder:
    """Collects solids, shapes, materials and lights."""

    solids: list[Solid] = field(default_factory=list)
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    balls: list[list[float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    materials: list[list[float]] = field(default_factory=list)
    lights: list[list[float]] = field(default_factory=list)
    surrounding: Array = field(default_factory=lambda: np.zeros((4, 4)))

    # --- materials and light ---

    def material(
        self,
        first: Color,
        second: Color = (0.0, 0.0, 0.0),
        pattern: int = PLAIN,
        frequency: float | Sequence[float] = 1.0,
        shine: float = 0.15,
        exponent: float = 40.0,
        mirror: float = 0.25,
        bend: float = 0.0,
        phase: float = 0.37,
        glow: float = 0.0,
    ) -> int:
        each = [frequency] * 3 if isinstance(frequency, int | float) else list(frequency)
        row = [*first, *second, pattern, *each, shine, exponent, mirror, bend, phase, glow]
        self.materials.append([float(value) for value in row])
        return len(self.materials) - 1

    def sun(self, direction: ArrayLike, color: Color) -> None:
        towards = np.asarray(direction, np.float64)
        self.lights.append([*(towards / np.linalg.norm(towards)), 0.0, *color])

    def lamp(self, position: Sequence[float], color: Color) -> None:
        self.lights.append([*position, 1.0, *color])

    def sky(
        self, zenith: Color, horizon: Color, ground: Color, clouds: float = 0.0,
        ambient: float = 0.45, reach: float = 0.35, strength: float = 0.8,
    ) -> None:  # fmt: skip
        """Also what shiny things mirror. `reach` and `strength` are those of the darkness in corners."""
        self.surrounding = np.array([[*zenith, clouds], [*horizon, 0], [*ground, 0], [ambient, reach, strength, 0]])

    # --- shapes; each call adds one ---

    def add(self, name: str, *solids: Solid, blend: float = 0.0) -> None:
        """One solid, or several that melt together over the length `blend`."""
        first = len(self.solids)
        self.solids += solids
        closed_form = len(solids) == 1 and solids[0].kind != TORUS and not (solids[0].kind == BOX and solids[0].sizes[3] > 0)
        self.spans.append((first, len(solids), int(closed_form)))
        self.balls.append([*ball_around(solids, blend), blend])
        self.names.append(name)

    def build(self, box: ArrayLike, opaque: bool) -> Description:
        rows = [[*solid.rotation.T.ravel(), *solid.center, *solid.sizes] for solid in self.solids]
        kinds = [[solid.kind, solid.material, int(solid.carve)] for solid in self.solids]
        return Description(
            primitives=np.array(rows, np.float32),
            kinds=np.array(kinds, np.int32),
            shapes=np.array(self.balls, np.float32),
            spans=np.array(self.spans, np.int32),
            materials=np.array(self.materials, np.float32),
            lights=np.array(self.lights, np.float32).reshape(-1, 7),
            surrounding=self.surrounding.astype(np.float32),
            names=list(self.names),
            box=np.asarray(box, np.float64),
            opaque=opaque,
        )


def ball_around(solids: Iterable[Solid], blend: float) -> list[float]:
    """Center and radius of a ball that holds the solids; carved ones take away only."""
    balls = [(solid.center, reach_of(solid)) for solid in solids if not solid.carve]
    if any(radius < 0 for _, radius in balls):
        return [0.0, 0.0, 0.0, UNBOUNDED]
    low = np.min([center - radius for center, radius in balls], 0)
    high = np.max([center + radius for center, radius in balls], 0)
    middle = (low + high) / 2
    radius = max(float(np.linalg.norm(center - middle)) + reach for center, reach in balls)
    bulge = blend / 4 * (len(balls) - 1)  # a smooth minimum lies up to a quarter of `blend` outside of its parts
    return [*map(float, middle), radius * 1.0001 + bulge + 1e-4]


def reach_of(solid: Solid) -> float:
    """How far from its center a solid goes; negative for a plane."""
    a, b, c, _ = solid.sizes
    if solid.kind == ELLIPSOID:
        return max(a, b, c)
    if solid.kind == BOX:
        return float(np.linalg.norm([a, b, c]))
    if solid.kind == CONE:
        return float(np.hypot(max(a, b), c))
    if solid.kind in (CAPSULE, TORUS):
        return a + b
    return UNBOUNDED


# --- solids -------------------------------------------------------------------------------------------------------------


def _solid(kind: int, center: ArrayLike, sizes: Sequence[float], material: int, turned: Array | None) -> Solid:
    a, b, c, d, *_ = (*map(float, sizes), 0.0, 0.0, 0.0)
    return Solid(kind, np.asarray(center, np.float64), np.eye(3) if turned is None else turned, (a, b, c, d), material)


def sphere(center: ArrayLike, radius: float, material: int, turned: Array | None = None) -> Solid:
    return _solid(ELLIPSOID, center, [radius] * 3, material, turned)


def ellipsoid(center: ArrayLike, axes: Sequence[float], material: int, turned: Array | None = None) -> Solid:
    return _solid(ELLIPSOID, center, axes, material, turned)


def box(center: ArrayLike, half: Sequence[float], material: int, turned: Array | None = None, rounding: float = 0.0) -> Solid:
    return _solid(BOX, center, [*half, min(rounding, 0.999 * min(half))], material, turned)


def cone(center: ArrayLike, bottom: float, top: float, half_height: float, material: int, turned: Array | None = None) -> Solid:
    return _solid(CONE, center, [bottom, top, half_height], material, turned)


def cylinder(center: ArrayLike, radius: float, half_height: float, material: int, turned: Array | None = None) -> Solid:
    return _solid(CONE, center, [radius, radius, half_height], material, turned)


def capsule(start: ArrayLike, end: ArrayLike, radius: float, material: int) -> Solid:
    """A rod with round ends between two points."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    return _solid(CAPSULE, (a + b) / 2, [radius, float(np.linalg.norm(b - a)) / 2], material, axis_to(b - a))


def rod(start: ArrayLike, end: ArrayLike, bottom: float, top: float, material: int) -> Solid:
    """A cone between two points."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    return _solid(CONE, (a + b) / 2, [bottom, top, float(np.linalg.norm(b - a)) / 2], material, axis_to(b - a))


def torus(center: ArrayLike, ring: float, tube: float, material: int, turned: Array | None = None) -> Solid:
    return _solid(TORUS, center, [ring, tube], material, turned)


def plane(height: float, material: int) -> Solid:
    """All that is below a height."""
    return _solid(PLANE, [0.0, 0.0, height], [0.0], material, None)
