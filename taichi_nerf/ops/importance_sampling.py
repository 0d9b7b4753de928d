"""Where to sample rays. See `kernels/importance_sampling.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from taichi_nerf.kernels import importance_sampling
from taichi_nerf.ops.door import check, plain

SPACINGS = ("linear", "inverse")


def importance_sample(
    bin_edges: Tensor,  # [n_rays, n_bins + 1] ascending
    weights: Tensor,  # [n_rays, n_bins]
    n_samples: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n_samples] in [0, 1)
    stratified: bool = False,
    padding: float = 1e-5,
) -> Tensor:  # [n_rays, n_samples] ascending
    """Draw t of each ray from the histogram `weights + padding` over its bins, by inverting its cumulative distribution.

    `uniforms` and `stratified` choose the u in [0, 1] at which it is inverted:

        uniforms  stratified
        None      False       linspace(0, 1, n_samples): from the first edge to the last (NeRF and mip-NeRF, evaluation)
        given     False       independent draws, sorted (NeRF, training)
        None      True        the centers of n_samples equal parts of [0, 1]
        given     True        one draw in each of n_samples equal parts of [0, 1] (mip-NeRF, training)

    NeRF's bins lie between the midpoints of its coarse samples, and it leaves out the first and last weight; mip-NeRF's are
    its intervals, with `blur_weights(weights)` and a padding of 0.01. A single bin from near to far, stratified, gives
    pixelNeRF's coarse samples.

    A ray without any mass is sampled as if all its bins weighed the same. Negative weights and NaN count as zero. Where
    a bin holds less than 1e-5 of the mass NeRF's own code returns the bin's left edge; here samples spread over it, too.
    The samples are constants to autograd, as in all methods that use them: no gradient flows through this op.
    """
    n_bins = check("importance_sample", weights=(weights, "n_rays n_bins"))["n_bins"]
    check(
        "importance_sample",
        weights=(weights, "n_rays n_bins"),
        bin_edges=(bin_edges, f"n_rays {n_bins + 1}"),
        uniforms=(uniforms, f"n_rays {n_samples}"),
    )
    if n_bins < 1 or n_samples < 0 or not padding >= 0:
        raise ValueError(
            "importance_sample: expected at least one bin, n_samples >= 0 and padding >= 0, "
            f"got {n_bins} bins, n_samples={n_samples}, padding={padding}"
        )
    if uniforms is not None:
        rows = plain(uniforms) if stratified else plain(uniforms).sort(-1).values
    elif stratified:
        rows = weights.new_full((1, n_samples), 0.5)
    else:
        rows = torch.linspace(0, 1, n_samples, dtype=weights.dtype, device=weights.device)[None]
    t = weights.new_empty(weights.shape[0], n_samples)
    if t.numel():
        importance_sampling.importance_sample(plain(bin_edges), plain(weights), rows, padding, stratified, t)
    return t


def stratified_samples(
    t_near: Tensor,  # [n_rays]
    t_far: Tensor,  # [n_rays]
    n_samples: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n_samples] in [0, 1)
    spacing: str = "linear",
) -> Tensor:  # [n_rays, n_samples] ascending
    """Points from near to far, both included, evenly spaced in t ("linear") or in 1 / t ("inverse", for 0 < near).

    With `uniforms` each point is drawn between the midpoints to its neighbours (the first and last between near or far and
    one midpoint), as NeRF does in training. mip-NeRF's interval edges are these with one more than its intervals.
    The samples are constants to autograd: no gradient flows to near and far.
    """
    check(
        "stratified_samples",
        t_near=(t_near, "n_rays"),
        t_far=(t_far, "n_rays"),
        uniforms=(uniforms, f"n_rays {n_samples}"),
    )
    if spacing not in SPACINGS or n_samples < 0:
        raise ValueError(
            f"stratified_samples: expected spacing of {' or '.join(SPACINGS)} and n_samples >= 0, "
            f"got spacing={spacing!r}, n_samples={n_samples}"
        )
    t = t_near.new_empty(t_near.shape[0], n_samples)
    inverse = spacing == "inverse"
    if t.numel() and uniforms is None:
        importance_sampling.even_samples(plain(t_near), plain(t_far), inverse, t)
    elif t.numel():
        importance_sampling.jittered_samples(plain(t_near), plain(t_far), plain(uniforms), inverse, t)
    return t


def blur_weights(
    weights: Tensor,  # [n_rays, n_bins]
) -> Tensor:  # [n_rays, n_bins]
    """The mean of each weight's maxima with its left and with its right neighbour: an upper envelope (mip-NeRF).

    Sampling from it also visits the neighbours of what is seen, where the coarse samples may have missed an edge.
    """
    check("blur_weights", weights=(weights, "n_rays n_bins"))
    return _BlurWeights.apply(weights)


class _BlurWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights):  # type: ignore[no-untyped-def]
        weights = plain(weights)
        blurred = torch.empty_like(weights)
        if blurred.numel():
            importance_sampling.blur_weights(weights, blurred)
        ctx.save_for_backward(weights)
        return blurred

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_blurred):  # type: ignore[no-untyped-def]
        (weights,) = (saved.detach() for saved in ctx.saved_tensors)
        gradient = torch.empty_like(weights)
        if gradient.numel():
            importance_sampling.blur_weights_adjoint(weights, plain(grad_blurred), gradient)
        return gradient
