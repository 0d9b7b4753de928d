"""Where the cameras of each family stand. OpenCV poses [n, 3, 4], seeded, the test views between the training views."""

import numpy as np
from numpy.typing import ArrayLike

from taichi_nerf.scenes.procedural.description import Array, Description
from taichi_nerf.scenes.procedural.surfaces import signed_distance

GOLDEN = np.pi * (3 - np.sqrt(5))
CLEARANCE = 0.3  # of a camera in a room from everything, in metres
WALLS = 0.35  # metres from the walls within which none is tried
FACING_REACH = (0.5, 0.3, 0.15)  # metres right, down and ahead that a hand-held camera moves, to both sides


def look_at(position: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> Array:
    """Camera to world [3, 4]: x right, y down, z towards the target."""
    eye = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, np.float64))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward, eye], -1)


def orbit(
    n: int, generator: np.random.Generator, radius: float, target: ArrayLike = (0, 0, 0),
    lowest: float = 0.05, highest: float = 1.25, wobble: float = 0.0,
) -> Array:  # fmt: skip
    """Evenly spread over the part of a sphere between two elevations (radians), from a random start."""
    k = np.arange(n)
    low, high = np.sin(lowest), np.sin(highest)
    elevation = np.arcsin(low + (high - low) * (k + 0.5) / max(n, 1))
    azimuth = generator.uniform(0, 2 * np.pi) + GOLDEN * k
    away = np.stack([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], -1)
    distance = radius * (1 + wobble * generator.uniform(-1, 1, (n, 1)))
    eyes = np.asarray(target) + distance * away
    return np.array([look_at(eye, target) for eye in eyes]).reshape(-1, 3, 4)


def frontal(n: int, generator: np.random.Generator, radius: float, reach: float = 0.8) -> tuple[Array, Array]:
    """In front of a face (it looks along -y), and the yaw of each, radians; even from -reach to reach."""
    yaw = reach * (2 * (np.arange(n) + 0.5) / max(n, 1) - 1)
    pitch = generator.uniform(-0.15, 0.25, n)
    eyes = np.stack([np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch)], -1)
    return np.array([look_at(radius * eye, (0, 0, 0)) for eye in eyes]).reshape(-1, 3, 4), yaw


def inside(n: int, generator: np.random.Generator, scene: Description, heights: tuple[float, float] = (1.0, 1.8)) -> Array:
    """Within a room, clear of everything, looking across its middle."""
    low, high = scene.box + [[WALLS], [-WALLS]]
    middle = scene.box.mean(0)
    poses: list[Array] = []
    while len(poses) < n:
        eyes = generator.uniform([low[0], low[1], heights[0]], [high[0], high[1], heights[1]], (64, 3))
        for eye in _clear(scene, eyes):
            across = middle[:2] - eye[:2]
            angle = np.arctan2(across[1], across[0]) + generator.normal() * 0.45
            reach = max(1.5, float(np.linalg.norm(across)))
            target = [eye[0] + reach * np.cos(angle), eye[1] + reach * np.sin(angle), generator.uniform(0.5, 1.2)]
            poses.append(look_at(eye, target))
    return np.array(poses[:n]).reshape(-1, 3, 4)


def facing(n: int, generator: np.random.Generator, scene: Description) -> Array:
    """In front of one side of a room, as a hand-held capture is: from a patch of a metre, all towards the room's middle."""
    low, high = scene.box + [[WALLS], [-WALLS]]
    middle = np.array([*scene.box.mean(0)[:2], 0.8])
    spots = np.random.default_rng(0).uniform([*low[:2], 1.2], [*high[:2], 1.6], (256, 3))  # the same for every split
    spot = max(_clear(scene, spots), key=lambda eye: float(np.linalg.norm(eye - middle)))
    axes = look_at(spot, middle)
    poses: list[Array] = []
    while len(poses) < n:
        shifts = generator.uniform(-1, 1, (64, 3)) * FACING_REACH
        eyes = spot + shifts @ axes[:, :3].T
        for eye in _clear(scene, eyes):
            poses.append(look_at(eye, middle + generator.normal(0, 0.1, 3)))
    return np.array(poses[:n]).reshape(-1, 3, 4)


def _clear(scene: Description, eyes: Array) -> Array:
    """Those that stand clear of everything."""
    return eyes[signed_distance(scene, eyes) > CLEARANCE]
