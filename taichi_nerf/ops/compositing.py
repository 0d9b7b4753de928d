"""Volume rendering along packed rays. See `kernels/compositing.py` for the formulas."""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import compositing
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, check_spans, plain, upload
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.rays import RenderedRays


def composite_rays(
    density: Tensor,  # [n_samples]
    color: Tensor,  # [n_samples, n_channels]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    spans: Tensor,  # [n_rays, 2] int32: first, count
    background: Tensor | None = None,  # [n_rays, n_channels]; None is black
    *,
    early_stop: float = 0.0,
) -> RenderedRays:
    """Composite the samples of each ray, front to back, over its background.

    A ray ends before the first sample whose transmittance is below `early_stop`; the weights behind it are zero. Color may
    have any number of channels (features, semantic logits). A sample belongs to one ray at most: spans that overlap give
    wrong weights and gradients. Gradients flow to everything but `spans`.
    """
    sizes = check(
        "composite_rays",
        density=(density, "n_samples"),
        color=(color, "n_samples n_channels"),
        t_starts=(t_starts, "n_samples"),
        t_ends=(t_ends, "n_samples"),
        spans=(spans, "n_rays 2", torch.int32),
        background=(background, "n_rays n_channels"),
    )
    check_spans("composite_rays", spans, sizes["n_samples"])
    if background is None:
        background = color.new_zeros(sizes["n_rays"], sizes["n_channels"])
    return RenderedRays(*_CompositeRays.apply(density, color, t_starts, t_ends, spans, background, early_stop))


def visible_samples(
    density: Tensor,  # [n_samples]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    spans: Tensor,  # [n_rays, 2] int32: first, count, in the order of the samples
    draws: Tensor | None = None,  # [n_samples] uniform in [0, 1)
    *,
    early_stop: float = 1e-4,
    least_weight: float = 0.0,
    chance: float = 0.0,
    room: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Which samples are worth a second look: their indices [n_visible] int32, and the spans of the rays among these.

    Samples that less than `early_stop` of the light reaches are left out, and those whose weight is below `least_weight`,
    except for a random share `chance` of the latter: training needs some of them, lest a place that was once
    thought empty could never be filled again. No gradients.

    Without `room` the host waits for a GPU to tell how many there are. With it there are so many indices, or n_samples of them:
    what finds no room is left out, and room that is left holds indices of any samples, which no span covers.
    """
    sizes = check(
        "visible_samples",
        density=(density, "n_samples"),
        t_starts=(t_starts, "n_samples"),
        t_ends=(t_ends, "n_samples"),
        draws=(draws, "n_samples"),
        spans=(spans, "n_rays 2", torch.int32),
    )
    check_spans("visible_samples", spans, sizes["n_samples"])
    counts, is_visible = spans.new_zeros(sizes["n_rays"]), spans.new_zeros(sizes["n_samples"])
    if sizes["n_rays"] and sizes["n_samples"]:
        limits = upload([early_stop, least_weight, chance if draws is not None else 0.0], density.dtype, density.device)
        inputs = [plain(x) for x in (density, t_starts, t_ends, spans, density if draws is None else draws)]
        launch(compositing.visible_samples, *inputs, limits, is_visible, counts)
    ends = counts.cumsum(0)
    if room is None:
        return is_visible.nonzero()[:, 0].int(), torch.stack([ends - counts, counts], -1).int()
    first, ends = (ends - counts).clamp_max(room), ends.clamp_max(room)
    return packed_indices(is_visible > 0, room).int(), torch.stack([first, ends - first], -1).int()


def packed_indices(mask: Tensor, room: int) -> Tensor:  # [n] bool → [min(room, n)] int64
    """`mask.nonzero()` without waiting for a GPU to tell how many there are: the first `room` of them; behind them, any."""
    n = len(mask)
    room, places, numbers = min(room, n), mask.cumsum(0) - 1, torch.arange(n, device=mask.device)
    aside = torch.where(mask & (places < room), places, room)  # all others are written to one place behind the room
    return torch.arange(room + 1, device=mask.device).scatter_(0, aside, numbers)[:room]


class _CompositeRays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density, color, t_starts, t_ends, spans, background, early_stop):  # type: ignore[no-untyped-def]
        n_rays, n_channels = background.shape
        inputs = [plain(x) for x in (density, color, t_starts, t_ends, spans, background)]
        out_color = density.new_empty(n_rays, n_channels)
        opacity, depth = density.new_empty(n_rays), density.new_empty(n_rays)
        check("composite_rays", output=(out_color, "n_rays n_channels"))
        weights = torch.zeros_like(inputs[0])
        if n_rays:
            launch(compositing.composite_rays, *inputs, early_stop, out_color, opacity, depth, weights)
        ctx.save_for_backward(*inputs, weights)
        ctx.early_stop = early_stop
        return out_color, opacity, depth, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_color, grad_opacity, grad_depth, grad_weights):  # type: ignore[no-untyped-def]
        *inputs, weights = (saved.detach() for saved in ctx.saved_tensors)
        density, color, t_starts, t_ends, spans, background = inputs
        gradients = [torch.zeros_like(x) for x in (density, color, t_starts, t_ends, background)]
        if spans.shape[0]:
            cotangents = [plain(g) for g in (grad_color, grad_opacity, grad_depth, grad_weights)]
            launch(compositing.composite_rays_adjoint, *inputs, weights, ctx.early_stop, *cotangents, *gradients)
        of_density, of_color, of_t_starts, of_t_ends, of_background = gradients
        return of_density, of_color, of_t_starts, of_t_ends, None, of_background, None
