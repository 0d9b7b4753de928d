"""Real spherical harmonics of directions. See `kernels/spherical_harmonics.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import spherical_harmonics as kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable

HIGHEST_DEGREE = len(kernels.LEGENDRE) - 1


def spherical_harmonics(
    directions: Tensor,  # [n_directions, 3]
    *,
    degree: int = 3,
) -> Tensor:  # [n_directions, (degree + 1)²]
    """Evaluate all real spherical harmonics up to band `degree` (0 to 4) in each direction.

    `degree` is the highest band, as in gsplat: what instant-ngp's configurations call degree 4, with 16 components, is
    degree 3 here. Pass unit directions as they are, with entries in [-1, 1], not squeezed into [0, 1]. They are not
    normalized: off the sphere the values are those of the polynomials x, y and z appear in, and so is the gradient.
    """
    if degree not in range(HIGHEST_DEGREE + 1):
        raise ValueError(f"spherical_harmonics: degree has to be 0 to {HIGHEST_DEGREE}, got {degree}")
    check("spherical_harmonics", directions=(directions, "n_directions 3"))
    return _SphericalHarmonics.apply(directions, degree)


class _SphericalHarmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, directions, degree):  # type: ignore[no-untyped-def]
        directions = plain(directions)
        out = fresh(directions, len(directions), (degree + 1) ** 2)
        check("spherical_harmonics", output=(out, "n_directions n_harmonics"))
        if len(directions):
            launch(kernels.evaluate_harmonics, directions, degree, out)
        ctx.save_for_backward(directions)
        ctx.degree = degree
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out):  # type: ignore[no-untyped-def]
        directions = ctx.saved_tensors[0].detach()
        of_directions = torch.empty_like(directions)
        if len(directions):
            launch(kernels.evaluate_harmonics_adjoint, directions, plain(grad_out), ctx.degree, of_directions)
        return of_directions, None
