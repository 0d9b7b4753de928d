"""Where rays are inside a box or a sphere. See `kernels/ray_box.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import ray_box
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, plain
from taichi_nerf.ops.once import once_differentiable


def intersect_boxes(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    box: Tensor,  # [2, 3] least and greatest corner
    *,
    near: float = 0.0,
    far: float = float("inf"),
) -> tuple[Tensor, Tensor]:
    """t_near and t_far [n_rays] between which a ray is inside an axis-aligned box, cut to [near, far].

    From inside the box t_near = near. A ray that misses the box, or only touches it, has t_near = t_far = near. The faces
    belong to the box for rays that run within them. Gradients flow to origins and directions, from ends that lie on a face.
    """
    check(
        "intersect_boxes",
        origins=(origins, "n_rays 3"),
        directions=(directions, "n_rays 3"),
        box=(box, "2 3"),
    )
    return _Intersect.apply(ray_box.intersect_boxes, ray_box.intersect_boxes_adjoint, origins, directions, plain(box), near, far)


def intersect_sphere(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    *,
    radius: float = 1.0,
    near: float = 0.0,
    far: float = float("inf"),
) -> tuple[Tensor, Tensor]:
    """The same for the sphere of `radius` around the origin. t_near and t_far are infinitely steep where a ray grazes it."""
    check("intersect_sphere", origins=(origins, "n_rays 3"), directions=(directions, "n_rays 3"))
    return _Intersect.apply(ray_box.intersect_sphere, ray_box.intersect_sphere_adjoint, origins, directions, radius, near, far)


class _Intersect(torch.autograd.Function):
    """A solid is a kernel, its adjoint, and what stands between rays and outputs in the arguments of both."""

    @staticmethod
    def forward(ctx: Any, kernel, adjoint, origins, directions, *solid):  # type: ignore[no-untyped-def]
        inputs = plain(origins), plain(directions)
        t_near, t_far = origins.new_empty(len(origins)), origins.new_empty(len(origins))
        if len(origins):
            launch(kernel, *inputs, *solid, t_near, t_far)
        ctx.save_for_backward(*inputs)
        ctx.adjoint, ctx.solid = adjoint, solid
        return t_near, t_far

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_near, grad_far):  # type: ignore[no-untyped-def]
        origins, directions = (saved.detach() for saved in ctx.saved_tensors)
        of_origins, of_directions = torch.empty_like(origins), torch.empty_like(directions)
        if len(origins):
            launch(ctx.adjoint, origins, directions, *ctx.solid, plain(grad_near), plain(grad_far), of_origins, of_directions)
        return None, None, of_origins, of_directions, *(None for _ in ctx.solid)
