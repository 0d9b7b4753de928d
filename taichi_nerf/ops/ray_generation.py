"""Rays through the pixels of cameras with lenses. See `kernels/ray_generation.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import ray_generation
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, check_indices, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.rays import Rays
from taichi_nerf.runtime import current

# What `camera_models` holds.
PINHOLE = ray_generation.PINHOLE
OPENCV = ray_generation.OPENCV
FISHEYE = ray_generation.FISHEYE
EQUIRECTANGULAR = ray_generation.EQUIRECTANGULAR
ORTHOGRAPHIC = ray_generation.ORTHOGRAPHIC


def generate_rays(
    pixels: Tensor,  # [n_rays, 2] x, y; the centre of the first pixel is (0.5, 0.5)
    camera_indices: Tensor,  # [n_rays] int32
    camera_to_worlds: Tensor,  # [n_cameras, 3, 4] x right, y down, z forward
    intrinsics: Tensor,  # [n_cameras, 4] fx, fy, cx, cy
    distortion: Tensor | None = None,  # [n_cameras, 8] k1, k2, k3, k4, k5, k6, p1, p2
    camera_models: Tensor | None = None,  # [n_cameras] int32; None is OPENCV with distortion, PINHOLE without
) -> Rays:
    """The rays through `pixels`: origins, unit directions, and mip-NeRF's radii at distance one.

    OPENCV reads all eight coefficients (k4, k5, k6 are those of the denominator), FISHEYE the first four, the others none.
    PINHOLE, OPENCV and FISHEYE take focal lengths in pixels. EQUIRECTANGULAR takes pixels per radian, so a whole panorama
    has fx = width / 2π, fy = height / π, and (cx, cy) its forward direction. ORTHOGRAPHIC takes pixels per world unit:
    its rays are parallel, and their radii those of cylinders.

    Gradients flow to pixels, poses, intrinsics and distortion from origins and directions, but not from radii: these
    would take second derivatives of the lens, and hardly depend on a pose. Pixels beyond the fold of a lens get a
    direction near the fold, and through it gradients to the pose only.
    """
    sizes = check(
        "generate_rays",
        pixels=(pixels, "n_rays 2"),
        camera_indices=(camera_indices, "n_rays", torch.int32),
        camera_to_worlds=(camera_to_worlds, "n_cameras 3 4"),
        intrinsics=(intrinsics, "n_cameras 4"),
        distortion=(distortion, "n_cameras 8"),
        camera_models=(camera_models, "n_cameras", torch.int32),
    )
    if camera_models is None:
        model = PINHOLE if distortion is None else OPENCV
        camera_models = torch.full((sizes["n_cameras"],), model, dtype=torch.int32, device=pixels.device)
    else:
        check_indices("generate_rays", "camera_models", camera_models, ORTHOGRAPHIC)
    check_indices("generate_rays", "camera_indices", camera_indices, sizes["n_cameras"] - 1)
    if distortion is None:
        distortion = intrinsics.new_zeros(sizes["n_cameras"], 8)
    return Rays(*_GenerateRays.apply(pixels, camera_indices, camera_to_worlds, intrinsics, distortion, camera_models))


class _GenerateRays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments):  # type: ignore[no-untyped-def]
        inputs = [plain(x) for x in arguments]
        pixels = inputs[0]
        origins, directions = pixels.new_empty(len(pixels), 3), pixels.new_empty(len(pixels), 3)
        radii = pixels.new_empty(len(pixels))
        if len(pixels):
            tolerance = 2 * torch.finfo(pixels.dtype).eps
            launch(ray_generation.generate_rays, *inputs, tolerance, origins, directions, radii)
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(radii)
        return origins, directions, radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_origins, grad_directions, _):  # type: ignore[no-untyped-def]
        inputs = [saved.detach() for saved in ctx.saved_tensors]
        pixels, n_cameras = inputs[0], len(inputs[3])
        of_pixels = torch.zeros_like(pixels)
        on_cpu = current().arch == "cpu"
        of_cameras = pixels.new_zeros(n_tables(len(pixels), n_cameras) if on_cpu else 1, n_cameras, 24)
        if len(pixels):
            tolerance = 2 * torch.finfo(pixels.dtype).eps
            cotangents = plain(grad_origins), plain(grad_directions)
            launch(ray_generation.generate_rays_adjoint, *inputs, tolerance, *cotangents, of_pixels, of_cameras, not on_cpu)
        of_pose, of_intrinsics, of_distortion = of_cameras.sum(0).split([12, 4, 8], dim=-1)
        return of_pixels, None, of_pose.view(n_cameras, 3, 4), of_intrinsics, of_distortion, None


def n_tables(n_rays: int, n_cameras: int) -> int:
    """Into how many tables the split adjoint adds: enough for the cores, and fewer elements than the rays have.

    It depends on nothing but sizes, so that a gradient has the same last digit on every machine.
    """
    return min(max(n_rays // max(4 * n_cameras, 1024), 1), 32)
