"""Volume rendering along packed rays, in plain torch (Max 1995; Mildenhall et al. 2020, equation 3).

α = 1 - exp(-σδ),  T_i = Π_{j<i} (1 - α_j) = exp(-Σ_{j<i} σ_j δ_j),  w = Tα.
"""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def composite_rays(
    density: Tensor,  # [n_samples]
    color: Tensor,  # [n_samples, n_channels]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    spans: Tensor,  # [n_rays, 2] int32: first, count
    background: Tensor | None = None,  # [n_rays, n_channels]; None is black
    *,
    early_stop: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Composite the samples of each ray, front to back, over its background: color, opacity, depth, weights."""
    n_rays, n_samples = len(spans), len(density)
    first, count = spans.long().unbind(-1)
    rows = torch.repeat_interleave(torch.arange(n_rays, device=spans.device), count)  # ray of each covered sample
    columns = torch.arange(len(rows), device=spans.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    covered = first[rows] + columns

    # Rays side by side, padded with empty intervals: a running product along each.
    longest = int(count.max()) if n_rays else 0
    optical_depth = density.new_zeros(n_rays, longest + 1)
    optical_depth[rows, columns + 1] = (density * (t_ends - t_starts))[covered]
    transmittance = torch.exp(-optical_depth.cumsum(-1))[:, :-1]
    alpha = -torch.expm1(-optical_depth[:, 1:])
    lit = transmittance >= early_stop
    padded_weights = torch.where(lit, transmittance * alpha, 0.0)
    remaining = torch.exp(-torch.where(lit, optical_depth[:, 1:], 0.0).sum(-1))  # 1 - Σ w

    weights = density.new_zeros(n_samples).index_put((covered,), padded_weights[rows, columns])
    on_rays = weights[covered]
    midpoints = (t_starts + t_ends)[covered] / 2
    opacity = density.new_zeros(n_rays).index_add(0, rows, on_rays)
    depth = density.new_zeros(n_rays).index_add(0, rows, on_rays * midpoints)
    composited = color.new_zeros(n_rays, color.shape[1]).index_add(0, rows, on_rays[:, None] * color[covered])
    if background is not None:
        composited = composited + remaining[:, None] * background
    return composited, opacity, depth, weights


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

    With `room`, as many indices: what finds no room is left out, and room that is left holds the numbers of its places.
    """
    black = density.new_zeros(len(density), 1)
    weights = composite_rays(density, black, t_starts, t_ends, spans)[3]
    first, count = spans.long().unbind(-1)
    rays = torch.repeat_interleave(torch.arange(len(spans), device=spans.device), count)
    columns = torch.arange(len(rays), device=spans.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    covered = first[rays] + columns
    before = (density * (t_ends - t_starts))[covered].double().cumsum(0)
    before = before - (density * (t_ends - t_starts))[covered].double()  # optical depth in front of each sample …
    on_ray = before - before[(count.cumsum(0) - count)[rays]]  # … on its own ray
    kept = (torch.exp(-on_ray) >= early_stop) & (weights[covered] >= least_weight)
    if draws is not None:
        kept |= (torch.exp(-on_ray) >= early_stop) & (draws[covered] < chance)
    counts = torch.zeros_like(count).index_add(0, rays, kept.long())
    ends, found = counts.cumsum(0), covered[kept]
    if room is not None:
        found = torch.cat([found, torch.arange(len(density), device=found.device)[len(found) :]])[:room]
        counts = ends.clamp_max(room) - (ends - counts).clamp_max(room)
        ends = ends.clamp_max(room)
    return found.int(), torch.stack([ends - counts, counts], -1).int()


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """About n samples on n / 16 rays of uneven lengths, some of them empty."""
    like = torch.empty(0, dtype=dtype)
    n_rays = (n + 15) // 16
    count = torch.randint(0, 33, (n_rays,), generator=generator)
    spans = torch.stack([count.cumsum(0) - count, count], -1).int()
    n_samples = int(count.sum())
    edges = uniform(generator, (n_samples,), 0.01, 0.2, like)
    t_starts = edges.cumsum(0) % 4
    arguments = {
        "density": uniform(generator, (n_samples,), 0, 4, like),
        "color": uniform(generator, (n_samples, 3), 0, 1, like),
        "t_starts": t_starts,
        "t_ends": t_starts + uniform(generator, (n_samples,), 0.01, 0.2, like),
        "spans": spans,
        "background": uniform(generator, (n_rays, 3), 0, 1, like),
    }
    gradients = ("density", "color", "t_starts", "t_ends", "background")
    features = {
        **arguments,
        "color": uniform(generator, (n_samples, 7), -1, 1, like),
        "background": None,
        "early_stop": 0.2,
    }
    looks = {name: arguments[name] for name in ("density", "t_starts", "t_ends", "spans")}
    return [
        Example("composite_rays", arguments, gradients, "color over a background"),
        Example("composite_rays", features, gradients[:4], "seven channels, early stop"),
        Example("visible_samples", {**looks, "early_stop": 0.2, "least_weight": 0.02}, (), "light and weight"),
        Example(
            "visible_samples",
            {**looks, "draws": uniform(generator, (n_samples,), 0, 1, like), "least_weight": 0.05, "chance": 0.25},
            (),
            "some spared by chance",
        ),
        Example("visible_samples", {**looks, "least_weight": 0.02, "room": n_samples // 8}, (), "more than there is room for"),
        Example("visible_samples", {**looks, "least_weight": 0.02, "room": n_samples}, (), "room to spare"),
    ]
