"""What few views leave open, said without a learnt prior: DiffusioNeRF's geometric terms, which RegNeRF and others had before.

All are means over rays. Light is to end somewhere; not in places that a single camera sees, where nothing contradicts; and at one
place of a ray rather than here and there.
"""

import torch
from torch import Tensor

from taichi_nerf.ops import distortion
from taichi_nerf.rays import Samples

ENOUGH = 2  # cameras that see a place (paper: 1(n <= 1), of all others; the rays' own camera counts here)


def shortfall(opacity: Tensor, wanted: Tensor | float = 1.0) -> Tensor:
    """(1 - Σ w)² of opacities [n]; of pictures on nothing: (alpha - Σ w)²."""
    return (wanted - opacity).square().mean()


def frustum_count(
    positions: Tensor,  # [n, 3]
    camera_to_worlds: Tensor,  # [n_cameras, 3, 4]
    intrinsics: Tensor,  # [n_cameras, 4]
    sizes: Tensor,  # [n_cameras, 2] width, height
    near: float = 0.0,
) -> Tensor:  # [n] int32
    """How many cameras have each place in their picture. What lies behind a camera it does not see, whatever x / z is."""
    found = torch.zeros(len(positions), dtype=torch.int32, device=positions.device)
    for pose, (fx, fy, cx, cy), (width, height) in zip(camera_to_worlds, intrinsics.tolist(), sizes.tolist(), strict=True):
        x, y, z = ((positions - pose[:, 3]) @ pose[:, :3]).unbind(-1)
        ahead = z > max(near, 1e-6)
        z = torch.where(ahead, z, 1.0)
        u, v = fx * x / z + cx, fy * y / z + cy
        found += (ahead & (u >= 0) & (u <= width) & (v >= 0) & (v <= height)).int()
    return found


def loneliness(weights: Tensor, counts: Tensor, n_rays: int, enough: int = ENOUGH) -> Tensor:
    """Σ_i w_i max(enough - n_i, 0) over the samples of all rays, per ray: weights [n_samples], counts [n_samples]."""
    return (weights * (enough - counts).clamp_min(0)).sum() / max(n_rays, 1)


def relative_spread(weights: Tensor, samples: Samples, depth: Tensor) -> Tensor:
    """mip-NeRF 360's distortion of each ray over its depth [n_rays]: Σ_ij w_i w_j |m_i - m_j| + ⅓ Σ w_i² δ_i, without a unit."""
    found = distortion.distortion_loss(weights, samples.t_starts, samples.t_ends, samples.spans)
    return (found / depth.detach().clamp_min(1e-3)).mean()
