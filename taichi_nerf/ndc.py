"""Normalised device coordinates: the space ahead of cameras that face one way, to infinity, as the cube [-1, 1]^3.

A point (x, y, z) ahead of the mean camera (right, down, forward), with slopes s = 2f / (width, height) and near plane n, is

    (s_x x / z,  s_y y / z,  1 - 2 n / z)

Lines stay lines. With o a ray's point on the near plane and d its direction, o + t d becomes o' + t' d' with t' in [0, 1):

    o' = (s_x o_x / n, s_y o_y / n, -1)     d' = (s_x (d_x / d_z - o_x / n), s_y (d_y / d_z - o_y / n), 2)     t' = 1 - n / z(t)

as published with NeRF (Mildenhall et al. 2020, appendix C), but for y, which goes down here. The length of d' is part of it: even
steps of t' are even steps of disparity. `SceneData.ndc` holds what is needed; rays are in scene units, of any length.
"""

import torch
from torch import Tensor

from taichi_nerf.scenes.scene_data import Frustum


def points_to_ndc(points: Tensor, frustum: Frustum) -> Tensor:
    """[n, 3] scene units to [n, 3]; points have to be in front of the mean camera."""
    rotation, position, slopes = _of(frustum, points)
    local = (points - position) @ rotation
    depths = local[..., 2:]
    return torch.cat([slopes * local[..., :2] / depths, 1 - 2 * frustum.near / depths], -1)


def rays_to_ndc(origins: Tensor, directions: Tensor, frustum: Frustum) -> tuple[Tensor, Tensor]:
    """[n, 3] each, forward along the mean view, to o' and d' [n, 3]: t' = 0 is on the near plane, t' = 1 at infinity."""
    rotation, position, slopes = _of(frustum, origins)
    local, forward = (origins - position) @ rotation, directions @ rotation
    at_near = local[..., :2] + (frustum.near - local[..., 2:]) / forward[..., 2:] * forward[..., :2]
    start = slopes * at_near / frustum.near
    ones = torch.ones_like(start[..., :1])
    return torch.cat([start, -ones], -1), torch.cat([slopes * forward[..., :2] / forward[..., 2:] - start, 2 * ones], -1)


def distance_to_ndc(t: Tensor, origins: Tensor, directions: Tensor, frustum: Frustum) -> Tensor:
    """t [n] along rays [n, 3] of the scene to t' [n]; negative before the near plane."""
    depths, speeds = _depths(origins, directions, frustum)
    return 1 - frustum.near / (depths + t * speeds)


def distance_from_ndc(t: Tensor, origins: Tensor, directions: Tensor, frustum: Frustum) -> Tensor:
    """t' [n] below 1 to t [n]: the inverse of `distance_to_ndc`."""
    depths, speeds = _depths(origins, directions, frustum)
    return (frustum.near / (1 - t) - depths) / speeds


def _depths(origins: Tensor, directions: Tensor, frustum: Frustum) -> tuple[Tensor, Tensor]:
    """Where a ray begins along the mean view, and how fast it goes that way: [n] each."""
    rotation, position, _ = _of(frustum, origins)
    return (origins - position) @ rotation[:, 2], directions @ rotation[:, 2]


def _of(frustum: Frustum, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation [3, 3], position [3] and slopes [2] of the kind of a tensor."""
    parts = (frustum.camera_to_world, frustum.slopes)
    pose, slopes = (torch.as_tensor(part, dtype=like.dtype, device=like.device) for part in parts)
    return pose[:, :3], pose[:, 3], slopes
