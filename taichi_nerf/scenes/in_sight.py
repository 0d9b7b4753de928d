"""Whether the cameras see what is in the box: with a wrong scale or center a training learns nothing, and would not say so."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from taichi_nerf.cameras import Cameras
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.normalise import Overrides, looked_at, normalise
from taichi_nerf.scenes.scene_data import Bounds, SceneData
from taichi_nerf.scenes.similarity import Array, Similarity
from taichi_nerf.scenes.source import Source

FARTHEST = 1000.0  # the nearest camera from the middle of the box, in half sides of it
LEAST_RAYS = 0.01  # of a bounded scene's pictures, that meet the box
MOST_LOST = 0.95  # of the known points, that may be out of the box, or out of sight
VAGUE = 2.0  # how far off, in half sides, a single place may be: where views are nearly parallel it may be behind the scene
UNBOUNDED = 10.0  # the same of any place, where nothing is cut off and only what is that far away gets coarse
SMALLEST = 0.04  # of the box's width, that everything known takes up
LEAST_POINTS, N_POINTS, N_VIEWS = 16, 500, 16  # points that tell anything; points and views that are looked at
GRID, FINE_GRID = 16, 64  # rays across and down a picture


class Known(NamedTuple):
    """Where something of the scene is, in scene units: many points, or a single place."""

    places: Array  # [m, 3]
    what: str
    is_seen: bool = True

    @property
    def limit(self) -> float:
        return 1.0 if len(self.places) > 1 else VAGUE

    def told(self, lost: float) -> str:
        return f"{lost:.0%} of {self.what}" if len(self.places) > 1 else self.what


def out_of_sight(source: Source, overrides: Overrides, mapping: Similarity, bounds: Bounds, training: Array) -> list[str]:
    """A warning, if the box, or near and far, can hardly be meant: what was found, and which option mends it."""
    if not len(training):
        return []
    cameras = source.cameras.moved(mapping.scale, mapping.rotation, mapping.translation)[training]
    known = _known(source, mapping, bounds)
    if found := _misplaced(cameras, bounds, known):
        return [f"{found}; {_place(source, overrides)}"]
    # Of views that are nearly parallel one place tells little against the file's own near and far.
    if known is None or (len(known.places) == 1 and (overrides.near, overrides.far) == (None, None)):
        return []
    if found := _too_near_or_far(cameras, bounds, known):
        by_depth = (overrides.near, overrides.far) != (None, None) or (overrides.center, overrides.scale) == (None, None)
        return [f"{found}; {'--near and --far say where rays begin and end' if by_depth else _place(source, overrides)}"]
    return []


def expect_something_in_sight(scene: SceneData) -> None:
    """Raise where no ray of the training views can see anything: all that there is to learn is background."""
    cameras, bounds = scene.cameras[scene.splits["train"]], scene.bounds
    if bounds.unbounded or scene.ndc is not None or not len(cameras):
        return
    if not (share_in_box(_some(cameras), bounds, GRID) or share_in_box(cameras, bounds, FINE_GRID)):
        raise SceneError(
            scene.folder,
            f"no ray of the training views meets the box between near {bounds.near:.4g} and far {bounds.far:.4g}: there is "
            "nothing to learn; --center and --scale say where the box is, --near and --far where rays begin and end",
        )


def share_in_box(cameras: Cameras, bounds: Bounds, grid: int) -> float:
    """Of the rays through a grid of places in each picture: those that meet the box between near and far."""
    at = (np.arange(grid) + 0.5) / grid
    pixels = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    n_met = 0
    for view in range(len(cameras)):
        with np.errstate(all="ignore"):  # rays along a side; a lens without a direction for a pixel: NaN, which meets nothing
            origins, directions = cameras.rays(view, pixels * cameras.sizes[view])
            t = (bounds.box[:, None] - origins) / directions  # [2, m, 3]
            enters, leaves = np.maximum(t.min(0).max(-1), bounds.near), np.minimum(t.max(0).min(-1), bounds.far)
            n_met += int((enters < leaves).sum())
    return n_met / (len(cameras) * len(pixels))


def _known(source: Source, mapping: Similarity, bounds: Bounds) -> Known | None:
    focus = looked_at(source.cameras)
    place = None if focus is None else Known(mapping(focus[None]), "what the cameras look at")
    # The points of an object that was cut out may be those of the room around it.
    is_cut_out = place is not None and not bounds.unbounded and np.abs(place.places).max() <= 1
    if not is_cut_out and source.points is not None and len(source.points.positions) >= LEAST_POINTS:
        positions = source.points.positions
        return Known(mapping(positions[:: max(1, len(positions) // N_POINTS)]), "the scene's points")
    if place is not None:
        return place
    return None if source.box is None else Known(mapping(source.box.mean(0)[None]), "the middle of the file's bounds", False)


def _misplaced(cameras: Cameras, bounds: Bounds, known: Known | None) -> str:
    nearest = float(np.linalg.norm(cameras.centers, axis=-1).min())
    if nearest > FARTHEST:
        return f"the box is tiny: the nearest camera is {nearest:,.0f} half sides of it away"
    if known is not None:
        reach = np.abs(known.places).max(-1)  # half a side of the cube through a place
        lost = float((reach > (UNBOUNDED if bounds.unbounded else known.limit)).mean())
        if lost > MOST_LOST:
            return f"the box misses {known.told(lost)}, about {np.median(reach):,.1f} half sides of it away from its middle"
        taken = max(float(np.quantile(reach, MOST_LOST)), float(np.abs(cameras.centers).max()))
        if taken < SMALLEST:
            return f"the box is huge: the cameras and {known.what} take up {_percent(taken)} of its width"
    share = 1.0 if bounds.unbounded else share_in_box(_some(cameras), replace(bounds, near=0.0, far=np.inf), GRID)
    return f"{_percent(share)} of the rays of the pictures meet the box" if share < LEAST_RAYS else ""


def _too_near_or_far(cameras: Cameras, bounds: Bounds, known: Known) -> str:
    if not known.is_seen:
        return ""
    distances = np.linalg.norm(known.places - _some(cameras).centers[:, None], axis=-1)
    lost = float(((distances < bounds.near) | (distances > bounds.far)).mean())
    if lost <= MOST_LOST:
        return ""
    away = f"about {np.median(distances):.3g} from the cameras"
    return f"rays from near {bounds.near:.4g} to far {bounds.far:.4g} miss {known.told(lost)}, {away}"


def _place(source: Source, overrides: Overrides) -> str:
    """What mends a wrong place: where the box is if nobody says."""
    try:
        usual, _, _ = normalise(source, replace(overrides, center=None, scale=None, near=None, far=None))
    except SceneError:  # which the options were to mend
        usual = None
    if usual is None or (overrides.center is None and overrides.scale is None):
        return "--center and --scale say where the box is"
    center = ",".join(f"{x:.4g}" for x in np.round(usual.scale * usual.inverse()(np.zeros(3)), 4) / usual.scale + 0.0)
    options = [f"--center {center}"] if overrides.center is not None else []
    options += [f"--scale {usual.scale:.4g}"] if overrides.scale is not None else []
    return f"without the option it would be {' '.join(options)}"


def _some(cameras: Cameras) -> Cameras:
    return cameras[np.unique(np.linspace(0, len(cameras) - 1, N_VIEWS).astype(int))]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
