"""Gaussians where space is contracted. See `kernels/contraction.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import contraction as kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.reference.contraction import icosahedron

__all__ = ["contract_gaussians", "icosahedron"]


def contract_gaussians(
    means: Tensor,  # [n_points, 3]
    directions: Tensor,  # [n_points, 3] unit length
    spreads: Tensor,  # [n_points, 2] variances along the direction, and across it
    basis: Tensor,  # [n_basis, 3] unit length
) -> tuple[Tensor, Tensor]:
    """Means and variances [n_points, n_basis] along the directions of a basis, of Gaussians carried into contracted space.

    x stays where |x| ≤ 1 and goes to (2 - 1/|x|) x/|x| beyond: all of space fits in a ball of radius 2. Covariances follow by
    the derivative at the mean. Gradients flow to all but the basis.
    """
    check(
        "contract_gaussians",
        means=(means, "n_points 3"),
        directions=(directions, "n_points 3"),
        spreads=(spreads, "n_points 2"),
        basis=(basis, "n_basis 3"),
    )
    return _ContractGaussians.apply(means, directions, spreads, basis)


class _ContractGaussians(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means, directions, spreads, basis):  # type: ignore[no-untyped-def]
        inputs = [plain(x) for x in (means, directions, spreads, basis)]
        outputs = [fresh(means, len(means), len(basis)) for _ in range(2)]
        if len(means) and len(basis):
            launch(kernels.contract_gaussians, *inputs, *outputs)
        ctx.save_for_backward(*inputs)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_means, grad_variances):  # type: ignore[no-untyped-def]
        inputs = [saved.detach() for saved in ctx.saved_tensors]
        gradients = [torch.empty_like(x) for x in inputs[:3]]
        if len(inputs[0]):
            launch(kernels.contract_gaussians_adjoint, *inputs, plain(grad_means), plain(grad_variances), *gradients)
        return *gradients, None
