"""The families of procedural scenes, by name: what they are made of, and how they are looked at.

scene = describe("objects", seed=3)                        # → Description, the same arrays for the same seed
views = place_cameras("objects", scene, 100, seed=3)       # → poses [100, 3, 4]
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from taichi_nerf.scenes.procedural import cameras, category, heads, landscapes, objects, rooms, thin
from taichi_nerf.scenes.procedural.description import Array, Description

View = Literal["orbit", "inside", "facing", "frontal"]


@dataclass(frozen=True)
class Family:
    """How a family is made and looked at."""

    about: str
    describe: Callable[[np.random.Generator, float], Description]
    view: View = "orbit"
    radius: float = 4.0  # of the orbit
    field_of_view: float = 0.6911112  # radians across, as in NeRF's synthetic scenes
    elevations: tuple[float, float] = (0.05, 1.25)
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    far: float = 8.0  # beyond which nothing is measured
    unit: float = 0.0  # of depth images; 0 fits 16 bits to `far`
    moves: bool = False
    n_samples: int = 3  # a pixel has its square of rays


FAMILIES = {
    "objects": Family("textured, shiny things on a plinth", objects.describe_objects, radius=3.5, target=(0.0, 0.0, -0.2)),
    "rooms": Family(
        "furnished rooms in metres, cameras inside", rooms.describe_room, "inside", 0.0, 1.3, far=20.0, unit=1e-3, n_samples=2
    ),
    "category": Family(
        "a chair or a car, as the seed falls",
        category.describe_either,
        radius=3.4,
        target=(0.0, 0.0, -0.1),
        elevations=(0.0, 1.1),
    ),
    "chairs": Family("chairs: shared structure, varied parts", category.describe_chair, radius=3.4, elevations=(0.0, 1.1)),
    "cars": Family(
        "cars: shared structure, varied parts", category.describe_car, radius=3.3, target=(0.0, 0.0, -0.35), elevations=(0.0, 1.1)
    ),
    "heads": Family("heads, seen at every yaw from the front", heads.describe_head, "frontal"),
    "dynamic": Family("things that move; the time is from 0 to 1", objects.describe_dynamic, radius=3.7, moves=True),
    "unbounded": Family(
        "a place outdoors: ground to the horizon, trees, houses, sky",
        landscapes.describe_landscape,
        "orbit",
        3.2,
        0.95,
        (0.1, 0.7),
        (0.0, 0.0, 0.45),
        far=200.0,
        unit=0.004,
        n_samples=2,
    ),
    "thin": Family(
        "spokes, wires, branches and checkerboards", thin.describe_thin, radius=3.5, n_samples=4, target=(0.0, 0.0, -0.1)
    ),
    "facing": Family(
        "furnished rooms in metres, seen from one side as hand-held captures are",
        rooms.describe_room,
        "facing",
        0.0,
        1.0,
        far=20.0,
        unit=1e-3,
        n_samples=2,
    ),
}


def describe(family: str, seed: int = 0, time: float = 0.0) -> Description:
    """The scene of a seed. Families that do not move are the same at all times."""
    chosen = family_of(family)
    number = list(FAMILIES).index(family)
    return chosen.describe(np.random.default_rng([seed, number]), time)


def family_of(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}: choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def place_cameras(family: str, scene: Description, n: int, seed: int = 0) -> tuple[Array, Array | None]:
    """Poses [n, 3, 4], and for heads the yaw of each in radians."""
    chosen = family_of(family)
    generator = np.random.default_rng([seed, 77])
    if chosen.view == "inside":
        return cameras.inside(n, generator, scene), None
    if chosen.view == "facing":
        return cameras.facing(n, generator, scene), None
    if chosen.view == "frontal":
        return cameras.frontal(n, generator, chosen.radius)
    low, high = chosen.elevations
    wobble = 0.15 if family == "unbounded" else 0.0
    return cameras.orbit(n, generator, chosen.radius, chosen.target, low, high, wobble), None


def family_and_number(source: str, names: Collection[str], usual: int) -> tuple[str, int] | None:
    """FAMILY[:N], one of these names and `usual` if no number; None: a path, which whatever is there of that name is, too."""
    family, colon, number = source.partition(":")
    if family not in names or Path(source).exists():
        return None
    if colon and not (number.isdecimal() and int(number) > 0):
        raise ValueError(f"{source}: expected {family}:N with a number N of at least 1, as in {family}:{usual}")
    return family, int(number or usual)
