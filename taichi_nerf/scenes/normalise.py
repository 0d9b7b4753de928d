"""Where a scene is: its axes, center, scale, near and far, from the cameras and, where there are some, from the points.

Scene units put what matters into the cube [-1, 1]^3: an object on nothing fills it; of a capture with a surrounding, the
cameras stand about at distance one from what they look at, and the rest goes on outside the cube.
"""

from dataclasses import dataclass

import numpy as np

from taichi_nerf.cameras import Cameras, focus_point
from taichi_nerf.scenes.axes import choose_axes, mean_axes
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import Array
from taichi_nerf.scenes.scene_data import Bounds, Frustum, Similarity
from taichi_nerf.scenes.source import Source


@dataclass(frozen=True)
class Overrides:
    """What the user decides instead: center and scale in the file's coordinates, near and far in scene units."""

    center: tuple[float, float, float] | None = None
    scale: float | None = None  # scene units per length of the file
    near: float | None = None
    far: float | None = None
    unbounded: bool | None = None
    axes: str = "auto"  # see axes.py

    @property
    def place(self) -> bool:
        """Whether they move the box."""
        return self.center is not None or self.scale is not None or self.axes != "auto"


CUBE = np.array([[-1.0, -1, -1], [1, 1, 1]])


def normalise(source: Source, overrides: Overrides = Overrides()) -> tuple[Similarity, Bounds, list[str]]:
    """The map from the file's coordinates to scene units, the bounds in scene units, and what was decided."""
    for name in ("scale", "near", "far"):
        value = getattr(overrides, name)
        may_be_zero = name == "near"
        if value is not None and not (0 < value < np.inf or (may_be_zero and value == 0)):
            expected = "zero or a positive number" if may_be_zero else "a positive number"
            raise SceneError(source.folder, f"expected {expected}, got {value}", name)
    unbounded = source.unbounded if overrides.unbounded is None else overrides.unbounded
    if source.placed is not None and not overrides.place:
        mapping, near, far = source.placed
        center, why = mapping.inverse()(np.zeros(3)), "as written by this package"
        why_axes, why_depth = "axes as written by this package", why
    else:
        mapping, center, why, why_axes = _mapping(source, overrides, unbounded)
        near, far, why_depth = _near_far(source, mapping, unbounded)
    near = near if overrides.near is None else overrides.near
    far = far if overrides.far is None else overrides.far
    if not near < far:
        is_scales = overrides.scale is not None and (overrides.near, overrides.far) == (None, None)
        small = f"; --scale {overrides.scale:g} may make the scene too small" if is_scales else ""
        raise SceneError(source.folder, f"near ({near:.5g}) has to be less than far ({far:.5g}){small}", "near")
    bounds = Bounds(CUBE.copy(), near, far, unbounded, source.forward_facing)
    notes = [
        f"center {_spell(center)}, scale {mapping.scale:.5g} ({why})",
        why_axes,
        f"near {near:.4g}, far {far:.4g} ({why_depth})",
        "unbounded: space outside the box is contracted" if unbounded else "bounded: nothing outside the box [-1, 1]^3",
    ]
    return mapping, bounds, notes


def _mapping(source: Source, overrides: Overrides, unbounded: bool) -> tuple[Similarity, Array, str, str]:
    """From the file's coordinates to scene units; the center in the file's coordinates; why it and the axes are so."""
    axes = choose_axes(source, overrides.axes, unbounded)
    center, half, why = _place(source, unbounded, axes.rotation)
    if axes.center is not None and axes.half is not None:
        center, half, why = axes.center, axes.half, "where the viewing directions meet"
    if overrides.center is not None:
        center, why = np.asarray(overrides.center), "center as asked for"
    scale = overrides.scale or 1 / half
    return Similarity(scale, axes.rotation, -scale * axes.rotation @ center), center, why, axes.why


def frustum(source: Source, mapping: Similarity) -> Frustum | None:
    """What lies ahead of views that all face one way, in scene units."""
    if not source.forward_facing or source.ndc_near is None:
        return None
    cameras = source.cameras
    axes = mapping.rotation @ (mean_axes(source) * [[1], [-1], [-1]]).T  # right, down, forward
    slopes = np.median(2 * cameras.intrinsics[:, :2] / cameras.sizes, axis=0)
    position = mapping(cameras.centers.mean(0))
    return Frustum(np.concatenate([axes, position[:, None]], -1), slopes, source.ndc_near * mapping.scale)


def _place(source: Source, unbounded: bool, rotation: Array) -> tuple[Array, float, str]:
    """Center and half size of the cube, in the file's coordinates, and the reason."""
    cameras = source.cameras
    if source.box is not None:
        sides = np.abs(rotation) @ np.diff(source.box, axis=0)[0]  # of the box that holds the turned one
        return source.box.mean(0), float(sides.max()) / 2, "the file's own bounds"
    middle, forward, spread = cameras.centers.mean(0), cameras.forwards.mean(0), _spread(cameras)
    if source.forward_facing and np.linalg.norm(forward) > 0.1:
        near, far = _depths_seen(source) or (max(spread, 1e-3), 10 * max(spread, 1e-3))
        distance = 2 / (1 / near + 1 / far)
        return (
            middle + forward / np.linalg.norm(forward) * distance,
            distance,
            "in front of the cameras, at the mean disparity",
        )
    focus = looked_at(cameras)
    if focus is not None:
        distances = np.linalg.norm(cameras.centers - focus, axis=-1)
        distance = float(np.median(distances))
        if unbounded:
            return focus, distance, "where the viewing directions meet; cameras at distance one"
        slope = (cameras.sizes / 2 / cameras.intrinsics[:, :2]).min(-1)
        return (
            focus,
            1.05 * float(np.median(distances * slope)),
            "where the viewing directions meet; all that the cameras see there",
        )
    depths = _depths_seen(source)
    reach = depths[1] if depths else 3 * spread or 1.0
    if not spread and len(cameras) > 1:
        return middle, float(reach), "all cameras stand in one place, which tells no distances; are their poses world to camera?"
    return middle, float(reach), "the middle of the cameras, which do not look at one place"


def looked_at(cameras: Cameras) -> Array | None:
    """[3] the place that nearly all cameras look at, from different sides; None where there is no such place."""
    focus = focus_point(cameras.centers, cameras.forwards)
    distances = np.linalg.norm(cameras.centers - focus, axis=-1)
    in_front = ((focus - cameras.centers) * cameras.forwards).sum(-1) > 0.5 * distances
    return focus if in_front.mean() >= 0.8 and _spread(cameras) > 0.05 * np.median(distances) else None


def _spread(cameras: Cameras) -> float:
    """How far the cameras stand from their middle, at most."""
    middle = cameras.centers.mean(0)
    spread = float(np.linalg.norm(cameras.centers - middle, axis=-1).max(initial=0))
    return 0.0 if spread < 1e-9 * np.linalg.norm(middle) else spread  # rounding


def _depths_seen(source: Source) -> tuple[float, float] | None:
    """Near and far in the file's lengths, from its own bounds or from the points in front of cameras."""
    if source.near_far is not None:
        return source.near_far
    if source.points is None or len(source.points.positions) < 16:
        return None
    points, cameras = source.points, source.cameras
    if len(points.seen):
        offsets = points.positions[points.seen] - cameras.centers[points.seen_by]
        depths = (offsets * cameras.forwards[points.seen_by]).sum(-1)
    else:
        some = points.positions[:: max(1, len(points.positions) // 5000)]
        depths = ((some[None] - cameras.centers[:, None]) * cameras.forwards[:, None]).sum(-1).ravel()
    depths = depths[depths > 0]
    return (float(np.quantile(depths, 0.005)), float(np.quantile(depths, 0.995))) if len(depths) > 16 else None


def _near_far(source: Source, mapping: Similarity, unbounded: bool) -> tuple[float, float, str]:
    """In scene units, along rays."""
    centers = mapping(source.cameras.centers)
    depths = _depths_seen(source)
    if depths is not None:
        slack = (1.0, 1.0) if source.near_far is not None else (0.5, 2.0 if not unbounded else 10.0)
        why = "the file's own" if source.near_far is not None else "from the depths of the points"
        return max(depths[0] * mapping.scale * slack[0], 1e-3), depths[1] * mapping.scale * slack[1], why
    distances = np.linalg.norm(centers, axis=-1)
    if unbounded:
        return 0.2, 16.0, "usual for a capture with a surrounding"
    corner = np.sqrt(3.0)  # of the cube
    return (
        max(float(distances.min()) - corner, 0.02),
        float(distances.max()) + corner,
        "around the box, from the cameras",
    )


def _spell(vector: Array) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in vector) + ")"
