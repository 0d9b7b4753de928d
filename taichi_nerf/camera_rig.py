"""The cameras of a scene as a torch module: pixels to rays, with poses and lenses that training may correct.

A correction turns a camera about its own centre by an axis-angle vector ω, in scene axes, and moves the centre: R ← exp(ω) R,
c ← c + τ. What amounts to moving the scene as a whole says nothing about the cameras: `settle` takes that out.
"""

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
        rotations = torch.linalg.matrix_exp(_cross_matrices(self.turns)) @ self.camera_to_worlds[:, :, :3]
        return torch.cat([rotations, (self.camera_to_worlds[:, :, 3] + self.shifts)[:, :, None]], -1)

    def lenses(self) -> Tensor:
        """Intrinsics [n, 4], corrected."""
        if not self.refine_intrinsics:
            return self.intrinsics
        return torch.cat([self.intrinsics[:, :2] * self.log_focal.exp(), self.intrinsics[:, 2:]], -1)

    def rays(self, pixels: Tensor, views: Tensor) -> Rays:  # [n_rays, 2], [n_rays] int32
        return ray_generation.generate_rays(pixels, views, self.poses(), self.lenses(), self.distortion, self.models)

    @torch.no_grad()
    def settle(self, views: Tensor) -> None:  # [n_chosen] int64, the views that training sees
        """Take out of the corrections what moves the chosen cameras as one body (and scales them about their middle)."""
        if not self.refine_poses or len(views) < 3:
            return
        given, now = self.camera_to_worlds[views], self.poses()[views]
        turn = _nearest_rotation((given[:, :, :3] @ now[:, :, :3].mT).sum(0))
        centers, wanted = now[:, :, 3], given[:, :, 3]
        arms, wanted_arms = (centers - centers.mean(0)) @ turn.T, wanted - wanted.mean(0)
        scale = (arms * wanted_arms).sum() / (arms * arms).sum().clamp_min(1e-12)
        rotations = turn @ now[:, :, :3]
        self.turns[views] = _logarithms(rotations @ given[:, :, :3].mT)
        self.shifts[views] = scale * arms + wanted.mean(0) - wanted


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
