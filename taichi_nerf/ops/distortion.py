"""How far apart a ray's weights lie. See `kernels/distortion.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import distortion
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, check_spans, plain
from taichi_nerf.ops.once import once_differentiable


def distortion_loss(
    weights: Tensor,  # [n_samples]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    spans: Tensor,  # [n_rays, 2] int32: first, count
) -> Tensor:  # [n_rays]
    """Σ_ij w_i w_j |m_i - m_j| + 1/3 Σ_i w_i² δ_i for each ray: small where its weights sit together (mip-NeRF 360).

    The midpoints m of a ray's samples have to ascend, as every sampler here delivers them; equal ones are fine. The
    loss scales with t: mip-NeRF 360 passes distances normalised to [0, 1]. Gradients flow to everything but `spans`; a
    sample that no span covers gets zero.
    """
    check(
        "distortion_loss",
        weights=(weights, "n_samples"),
        t_starts=(t_starts, "n_samples"),
        t_ends=(t_ends, "n_samples"),
        spans=(spans, "n_rays 2", torch.int32),
    )
    check_spans("distortion_loss", spans, len(weights))
    return _DistortionLoss.apply(weights, t_starts, t_ends, spans)


class _DistortionLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights, t_starts, t_ends, spans):  # type: ignore[no-untyped-def]
        inputs = [plain(x) for x in (weights, t_starts, t_ends, spans)]
        loss = weights.new_empty(spans.shape[0])
        if weights.shape[0] and spans.shape[0]:
            launch(distortion.distortion_loss, *inputs, loss)
        else:
            loss.zero_()
        ctx.save_for_backward(*inputs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss):  # type: ignore[no-untyped-def]
        inputs = [saved.detach() for saved in ctx.saved_tensors]
        weights, t_starts, t_ends, spans = inputs
        if not (weights.shape[0] and spans.shape[0]):
            return torch.zeros_like(weights), torch.zeros_like(t_starts), torch.zeros_like(t_ends), None
        gradients = [torch.empty_like(x) for x in (weights, t_starts, t_ends)]
        launch(distortion.distortion_loss_adjoint, *inputs, plain(grad_loss), *gradients)
        return *gradients, None
