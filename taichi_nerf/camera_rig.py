"""The cameras of a scene as a torch module: pixels to rays, with poses and lenses that training may correct.

A correction moves a camera's centre by τ while it keeps looking at the same point, d in front of it, and turns it about its own
centre by ω, in scene axes:

    c ← c + τ      R ← exp(ω) exp(-forward × τ / d) R

Turning and moving a camera by itself shift its picture alike, and only parallax tells them apart: with these coordinates ω is
what shifts the picture and τ what parallax shows, and an optimiser that scales each by its own gradients sees both. d is the
median distance of the cameras from the middle of the scene.

What moves the scene and all cameras as one body shows in no picture, so training lets it happen: were it taken out of the
cameras, the field would stay where it is, and they would turn away from their true poses to see it there. `carry_along` lets the
cameras that training does not see follow instead.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from taichi_nerf.cameras import Cameras
from taichi_nerf.ops import ray_generation
from taichi_nerf.rays import Rays


class CameraRig(nn.Module):
    """n cameras. `rig.rays(pixels, views)`."""

    camera_to_worlds: Tensor  # [n, 3, 4] as given
    intrinsics: Tensor  # [n, 4]
    distortion: Tensor  # [n, 8]
    models: Tensor  # [n] int32

    def __init__(self, cameras: Cameras, refine_poses: bool = False, refine_intrinsics: bool = False):
        super().__init__()
        self.refine_poses, self.refine_intrinsics = refine_poses, refine_intrinsics
        given: dict[str, Any] = {
            "camera_to_worlds": cameras.camera_to_worlds,
            "intrinsics": cameras.intrinsics,
            "distortion": cameras.distortion,
        }
        for name, values in given.items():
            self.register_buffer(name, torch.tensor(np.asarray(values), dtype=torch.float32), persistent=False)
        self.register_buffer("models", torch.tensor(np.asarray(cameras.models), dtype=torch.int32), persistent=False)
        centers = torch.tensor(np.asarray(cameras.camera_to_worlds)[:, :, 3], dtype=torch.float32)
        self.distance = max(float(centers.norm(dim=-1).median()), 0.1)
        n_poses, n_lenses = len(cameras) * refine_poses, len(cameras) * refine_intrinsics
        self.turns = nn.Parameter(torch.zeros(n_poses, 3))  # ω
        self.shifts = nn.Parameter(torch.zeros(n_poses, 3))  # τ
        self.log_focal = nn.Parameter(torch.zeros(min(n_lenses, 1)))  # of all together: single views hardly tell theirs

    @property
    def is_refined(self) -> bool:
        return self.refine_poses or self.refine_intrinsics

    def poses(self) -> Tensor:
        """[n, 3, 4] camera to world, corrected."""
        if not self.refine_poses:
            return self.camera_to_worlds
        rotations = _rotations(self.turns) @ self._facing(self.shifts) @ self.camera_to_worlds[:, :, :3]
        return torch.cat([rotations, (self.camera_to_worlds[:, :, 3] + self.shifts)[:, :, None]], -1)

    def _facing(self, shifts: Tensor) -> Tensor:
        """Rotations [n, 3, 3] that keep cameras which move by `shifts` looking at what is `distance` in front of them."""
        forward = self.camera_to_worlds[:, :, 2]
        return _rotations(torch.linalg.cross(shifts, forward) / self.distance)

    def lenses(self) -> Tensor:
        """Intrinsics [n, 4], corrected."""
        if not self.refine_intrinsics:
            return self.intrinsics
        return torch.cat([self.intrinsics[:, :2] * self.log_focal.exp(), self.intrinsics[:, 2:]], -1)

    @torch.no_grad()
    def corrected(self, cameras: Cameras) -> Cameras:
        """These cameras, which the rig was made of, as training has corrected them."""
        found: dict[str, Any] = {}
        if self.refine_poses:
            found["camera_to_worlds"] = self.poses().double().cpu().numpy()
        if self.refine_intrinsics:
            found["intrinsics"] = self.lenses().double().cpu().numpy()
        return replace(cameras, **found)

    def rays(self, pixels: Tensor, views: Tensor) -> Rays:  # [n_rays, 2], [n_rays] int32
        return ray_generation.generate_rays(pixels, views, self.poses(), self.lenses(), self.distortion, self.models)

    @torch.no_grad()
    def carry_along(self, views: Tensor) -> None:  # [n_chosen] int64, the views that training sees
        """Move all other cameras as the chosen ones have moved as one body: by the similarity x → s Q x + b with

        Q nearest to Σ R' Rᵀ,  s the least squares' for the centres about their mean,  and b that lays the points that cameras
        look at, d in front of them, over what they have become, as seen from there: Σ P (s Q p + b - p') = 0 with P what is
        left of a vector across the view, and a hundredth of it along.

        Not b that lays their centres: small turns of all cameras stand for a shift of the scene, and it is the scene that the
        others are to see in its place.
        """
        others = torch.ones(len(self.models), dtype=torch.bool, device=views.device)
        others[views] = False
        if not self.refine_poses or len(views) < 3 or not bool(others.any()):
            return
        given, now = self.camera_to_worlds[views], self.poses()[views]
        turn = _nearest_rotation((now[:, :, :3] @ given[:, :, :3].mT).sum(0))
        arms, arms_now = ((x[:, :, 3] - x[:, :, 3].mean(0)) for x in (given, now))
        arms = arms @ turn.T
        extent = (arms * arms).sum()
        scale = (arms * arms_now).sum() / extent if extent > 1e-8 * self.distance**2 else torch.ones_like(extent)
        ahead = now[:, :, 2]
        across = torch.eye(3).to(now) - 0.99 * ahead[:, :, None] * ahead[:, None, :]
        looked_at = given[:, :, 3] + self.distance * given[:, :, 2]
        looked_at_now = now[:, :, 3] + scale * self.distance * ahead
        misses = torch.einsum("nij,nj->i", across, looked_at_now - scale * looked_at @ turn.T)
        shift = torch.linalg.solve(across.sum(0), misses)
        rest = self.camera_to_worlds[others]
        centers = scale * rest[:, :, 3] @ turn.T + shift
        self.take(torch.cat([turn @ rest[:, :, :3], centers[:, :, None]], -1), others.nonzero()[:, 0])

    @torch.no_grad()
    def take(self, poses: Tensor, views: Tensor) -> None:  # [n_chosen, 3, 4], [n_chosen] int64
        """Correct the chosen cameras to these poses."""
        given = self.camera_to_worlds[views]
        poses = poses.to(given.dtype)
        self.shifts[views] = poses[:, :, 3] - given[:, :, 3]
        self.turns[views] = _logarithms(poses[:, :, :3] @ (self._facing(self.shifts)[views] @ given[:, :, :3]).mT)


def _rotations(vectors: Tensor) -> Tensor:  # [n, 3] axis-angle → [n, 3, 3]
    return torch.linalg.matrix_exp(_cross_matrices(vectors))


def _cross_matrices(vectors: Tensor) -> Tensor:  # [n, 3] → [n, 3, 3]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)


def _nearest_rotation(matrix: Tensor) -> Tensor:
    u, _, v = torch.linalg.svd(matrix)
    sign = torch.sign(torch.linalg.det(u @ v))
    return u @ torch.diag(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign])) @ v


def _logarithms(rotations: Tensor) -> Tensor:  # [n, 3, 3] → [n, 3] axis-angle
    cosine = ((rotations.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None]
    skew = torch.stack([rotations[:, 2, 1] - rotations[:, 1, 2], rotations[:, 0, 2] - rotations[:, 2, 0],
                        rotations[:, 1, 0] - rotations[:, 0, 1]], -1) / 2  # fmt: skip
    return torch.where(angle > 1e-4, angle / torch.sin(angle).clamp_min(1e-12), torch.ones_like(angle)) * skew
