"""mip-NeRF's frustum Gaussians and integrated encoding. See `kernels/integrated_encoding.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import integrated_encoding as kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, check_indices, check_spans, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.runtime import current

SHAPES = ("cone", "cylinder")
MOST_FREQUENCIES = 16  # 4^l is a 32-bit integer


def cast_frustums(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    radii: Tensor,  # [n_rays]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    ray_indices: Tensor,  # [n_samples] int32
    spans: Tensor,  # [n_rays, 2] int32: first, count
    *,
    shape: str = "cone",
) -> tuple[Tensor, Tensor]:
    """Approximate the piece of cone or cylinder that each sample covers by a Gaussian.

    Returns means [n_samples, 3] and the diagonals of the covariances [n_samples, 3]. `shape="cone"` widens as radius · t
    from the origin; "cylinder" keeps the radius (orthographic cameras, normalized device coordinates). Directions need not
    be unit; t counts in their length. Gradients flow to origins, directions, radii and both ends; those of a ray are summed
    over its span, so the spans have to cover its samples.
    """
    if shape not in SHAPES:
        raise ValueError(f"cast_frustums: shape has to be one of {', '.join(SHAPES)}, got {shape!r}")
    check(
        "cast_frustums",
        origins=(origins, "n_rays 3"),
        directions=(directions, "n_rays 3"),
        radii=(radii, "n_rays"),
        t_starts=(t_starts, "n_samples"),
        t_ends=(t_ends, "n_samples"),
        ray_indices=(ray_indices, "n_samples", torch.int32),
        spans=(spans, "n_rays 2", torch.int32),
    )
    check_spans("cast_frustums", spans, len(t_starts))
    check_indices("cast_frustums", "ray_indices", ray_indices, len(origins) - 1)
    return _CastFrustums.apply(origins, directions, radii, t_starts, t_ends, ray_indices, spans, shape == "cone")


def integrated_encoding(
    means: Tensor,  # [n_points, n_coordinates]
    variances: Tensor,  # [n_points, n_coordinates]
    *,
    n_frequencies: int = 16,
) -> Tensor:  # [n_points, 2 * n_coordinates * n_frequencies]
    """Encode Gaussians by the expected sines and cosines of 2^l x, l = 0 … n_frequencies - 1, without x itself.

    Columns: all sines, frequency after frequency with the coordinates innermost, then all cosines. Octaves finer than the
    Gaussian fade by themselves, which is what removes aliasing. Variances of zero give `frequency_encoding`.
    """
    if not 1 <= n_frequencies <= MOST_FREQUENCIES:
        raise ValueError(f"integrated_encoding: n_frequencies has to be 1 to {MOST_FREQUENCIES}, got {n_frequencies}")
    check("integrated_encoding", means=(means, "n_points n_coordinates"), variances=(variances, "n_points n_coordinates"))
    return _IntegratedEncoding.apply(means, variances, n_frequencies)


class _CastFrustums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, origins, directions, radii, t_starts, t_ends, ray_indices, spans, cone):  # type: ignore[no-untyped-def]
        inputs = [plain(x) for x in (origins, directions, radii, t_starts, t_ends)]
        means, variances = (t_starts.new_empty(len(t_starts), 3) for _ in range(2))
        if len(t_starts):
            launch(kernels.frustum_gaussians, *inputs, plain(ray_indices), cone, means, variances)
        ctx.save_for_backward(*inputs[1:], plain(spans))
        ctx.cone = cone
        return means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_means, grad_variances):  # type: ignore[no-untyped-def]
        directions, radii, t_starts, t_ends, spans = (saved.detach() for saved in ctx.saved_tensors)
        gradients = [torch.zeros_like(x) for x in (directions, directions, radii, t_starts, t_ends)]
        if len(t_starts):
            cotangents = [plain(g) for g in (grad_means, grad_variances)]
            inputs = (directions, radii, t_starts, t_ends, spans)
            launch(kernels.frustum_gaussians_adjoint, *inputs, *cotangents, ctx.cone, *gradients)
        return *gradients, None, None, None


class _IntegratedEncoding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means, variances, n_frequencies):  # type: ignore[no-untyped-def]
        out = fresh(means, len(means), 2 * means.shape[1] * n_frequencies)
        check("integrated_encoding", output=(out, "n_points n_columns"))
        if len(means):
            n_lanes, n_parts = (8, 1) if current().arch == "cpu" else (1, n_frequencies)
            launch(kernels.encode_gaussians, plain(means), plain(variances), n_frequencies, n_lanes, n_parts, out)
        ctx.save_for_backward(out)
        ctx.n_frequencies = n_frequencies
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out):  # type: ignore[no-untyped-def]
        out = ctx.saved_tensors[0].detach()
        of_means, of_variances = (out.new_empty(len(out), out.shape[1] // (2 * ctx.n_frequencies)) for _ in range(2))
        if len(out):
            launch(kernels.encode_gaussians_adjoint, out, plain(grad_out), ctx.n_frequencies, of_means, of_variances)
        return of_means, of_variances, None
