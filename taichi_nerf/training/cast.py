"""Rays in the space where a field is asked: in scene units, or in normalised device coordinates.

Of all rays only those are cast that can see anything: that meet the box, or that go forward. What others show is the background.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from taichi_nerf import ndc
from taichi_nerf.ops import ray_box
from taichi_nerf.rays import Rays
from taichi_nerf.scenes.scene_data import Bounds, Frustum, SceneData

LEAST_FORWARD = 1e-3  # of a ray's length, along the mean view: what normalised device coordinates need


class Cast(NamedTuple):
    """The rays that can see anything."""

    which: Tensor  # [n] int64 among all rays
    rays: Rays  # [n] as they were
    origins: Tensor  # [n, 3] in the field's space
    directions: Tensor  # [n, 3] there, of any length
    t_near: Tensor  # [n] along these
    t_far: Tensor  # [n]


def cast(rays: Rays, bounds: Bounds, box: Tensor | None, frustum: Frustum | None) -> Cast:
    """From near to far; with `box` [2, 3], within it; with `frustum`, in its normalised device coordinates."""
    near, far = bounds.near, bounds.far
    origins, directions = rays.origins, rays.directions
    if frustum is not None:
        view = torch.as_tensor(frustum.camera_to_world[:, 2], dtype=origins.dtype, device=origins.device)
        which = (directions.detach() @ view > LEAST_FORWARD).nonzero()[:, 0]
        some = Rays(*(part[which] for part in rays))
        start = torch.zeros(len(which), device=origins.device)
        return Cast(which, some, *ndc.rays_to_ndc(some.origins, some.directions, frustum), start, start + 1)
    if box is not None:
        t_near, t_far = ray_box.intersect_boxes(origins.detach(), directions.detach(), box, near=near, far=far)
        which = (t_far > t_near).nonzero()[:, 0]
        some = Rays(*(part[which] for part in rays))
        return Cast(which, some, some.origins, some.directions, t_near[which], t_far[which])
    t_near = torch.full_like(rays.radii.detach(), near)
    which = torch.arange(len(origins), device=origins.device)
    return Cast(which, rays, origins, directions, t_near, torch.full_like(t_near, far))


def even_until(chosen: float | None, scene: SceneData) -> float:
    """The distance from which intervals on rays are even in 1 / t: beyond the scene's middle, if nothing else was chosen."""
    if not scene.bounds.unbounded:
        return math.inf
    return to_the_middle(scene) if chosen is None else chosen


def to_the_middle(scene: SceneData) -> float:
    """How far the cameras are from the scene's middle."""
    return float(np.median(np.linalg.norm(scene.cameras.centers, axis=-1)))


def distances(t: Tensor, found: Cast, frustum: Frustum | None, farthest: float) -> Tensor:  # [n, n_samples] → the same
    """Along the rays as they were, in scene units; at most `farthest`, which what is at infinity has."""
    if frustum is None:
        return t
    n = t.shape[1]
    origins, directions = found.rays.origins.repeat_interleave(n, 0), found.rays.directions.repeat_interleave(n, 0)
    flat = ndc.distance_from_ndc(t.reshape(-1).clamp(max=1 - 1e-6), origins, directions, frustum)
    return flat.view_as(t).clamp(max=farthest)


def to_field(positions: Tensor, frustum: Frustum | None) -> tuple[Tensor, Tensor]:  # [n, 3] in scene units
    """Positions in the field's space [n, 3], and which of them are in it [n] bool; the others are somewhere in it, too."""
    if frustum is None:
        return positions, torch.ones_like(positions[:, 0], dtype=torch.bool)
    pose = torch.as_tensor(frustum.camera_to_world, dtype=positions.dtype, device=positions.device)
    depth = (positions - pose[:, 3]) @ pose[:, 2]
    inside = depth >= frustum.near
    forward = (frustum.near - depth).clamp_min(0)[:, None] * pose[:, 2]
    return ndc.points_to_ndc(positions + forward, frustum), inside
