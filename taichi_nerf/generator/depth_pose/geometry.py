"""Disparity to depth, six numbers to a rigid motion, a field of view to intrinsics.

A pose is [n, 3, 4], from one camera's coordinates to another's (OpenCV: x right, y down, z forward). Lengths are in units of the
camera's distance from the object, so its middle lies at (0, 0, 1).
"""

import math

import torch
from torch import Tensor


def depth_of(disparity: Tensor, nearest: float, farthest: float) -> Tensor:
    """Disparity from 0 to 1 to depth from `farthest` to `nearest`: evenly in 1 / depth."""
    return 1 / (1 / farthest + (1 / nearest - 1 / farthest) * disparity)


def rotation_of(axis_angle: Tensor) -> Tensor:
    """[n, 3, 3] turning about the vectors [n, 3] by their lengths (Rodrigues); differentiable at zero, too."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    squared = axis_angle.square().sum(-1)[:, None, None]
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle.square())
    return torch.eye(3, device=x.device, dtype=x.dtype) + first * cross + second * (cross @ cross)


def motion_of(six: Tensor, pivot: float = 1.0) -> Tensor:
    """[n, 3, 4] of axis-angle and translation [n, 6]: p ↦ R (p − c) + c + t, turning about c = (0, 0, pivot).

    With a pivot of 0 it is Monodepth2's [R | t]. About the middle of the object, turning and shifting are independent of each
    other, which a small network learns much faster.
    """
    rotation = rotation_of(six[:, :3])
    center = six.new_tensor([0.0, 0.0, pivot])
    shift = six[:, 3:] + center - rotation @ center
    return torch.cat([rotation, shift[:, :, None]], -1)


def inverted(motion: Tensor) -> Tensor:
    back = motion[:, :, :3].mT
    return torch.cat([back, -back @ motion[:, :, 3:]], -1)


def chained(first: Tensor, then: Tensor) -> Tensor:
    """p ↦ then(first(p))."""
    rotation = then[:, :, :3] @ first[:, :, :3]
    return torch.cat([rotation, then[:, :, :3] @ first[:, :, 3:] + then[:, :, 3:]], -1)


def axis_angle_of(rotation: Tensor) -> Tensor:
    """[n, 3] of rotations [n, 3, 3] of less than half a turn."""
    skew = torch.stack(
        [rotation[:, 2, 1] - rotation[:, 1, 2], rotation[:, 0, 2] - rotation[:, 2, 0], rotation[:, 1, 0] - rotation[:, 0, 1]], -1
    )
    sine = skew.norm(dim=-1, keepdim=True) / 2
    cosine = (rotation.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True) - 1) / 2
    angle = torch.atan2(sine, cosine)
    return torch.where(sine > 1e-7, skew / (2 * sine.clamp_min(1e-12)) * angle, skew / 2)


def six_of(motion: Tensor, pivot: float = 1.0) -> Tensor:
    """[n, 6] such that motion_of gives the motion."""
    center = motion.new_tensor([0.0, 0.0, pivot])
    shift = motion[:, :, 3] - center + motion[:, :, :3] @ center
    return torch.cat([axis_angle_of(motion[:, :, :3]), shift], -1)


def intrinsics_of(focal: Tensor, size: int, n: int) -> Tensor:
    """[n, 4] fx, fy, cx, cy in pixels; `focal` is in units of the image's width."""
    middle = focal.new_tensor([size / 2, size / 2])
    return torch.cat([(focal * size).expand(2), middle])[None].expand(n, 4)


def focal_of(field_of_view: float) -> float:
    """In units of the image's width; the field of view in degrees."""
    return 0.5 / math.tan(math.radians(field_of_view) / 2)
