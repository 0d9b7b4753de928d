"""NeRF's samples: points that are even along a ray, and more of them where the first have shown something.

All rays have equally many. The light that a point takes away goes from it to the next one; behind the last it goes on for
1e10 in the published code, or ends where the ray ends.
"""

import torch
from torch import Tensor

from taichi_nerf.ops import importance_sampling
from taichi_nerf.rays import Samples

ENDLESS = 1e10


@torch.no_grad()
def coarse_points(
    t_near: Tensor,  # [n_rays]
    t_far: Tensor,  # [n_rays]
    n: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n] in [0, 1); None: evenly
    disparity: bool = False,  # even in 1 / t
) -> Tensor:  # [n_rays, n] ascending
    spacing = "inverse" if disparity else "linear"
    return importance_sampling.stratified_samples(t_near, t_far, n, uniforms=uniforms, spacing=spacing)


@torch.no_grad()
def fine_points(
    t: Tensor,  # [n_rays, n_coarse]
    weights: Tensor,  # [n_rays, n_coarse] of these in the picture
    n: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n] in [0, 1); None: evenly
) -> Tensor:  # [n_rays, n_coarse + n] ascending: the coarse points, and those drawn between their midpoints
    midpoints = torch.lerp(t[:, :-1], t[:, 1:], 0.5)
    drawn = importance_sampling.importance_sample(midpoints, weights[:, 1:-1].contiguous(), n, uniforms=uniforms)
    return torch.cat([t, drawn], -1).sort(-1).values


def from_points(t: Tensor, t_end: Tensor | None) -> Samples:  # [n_rays, n], [n_rays]
    """Each point stands for what lies between it and the next; the last for what lies before `t_end`, None: for ENDLESS."""
    last = t[:, -1:] + ENDLESS if t_end is None else torch.maximum(t_end[:, None], t[:, -1:])
    return from_edges(torch.cat([t, last], -1))


def from_edges(edges: Tensor) -> Samples:  # [n_rays, n + 1] ascending
    """The n intervals between them."""
    n_rays, n = edges.shape[0], edges.shape[1] - 1
    first = torch.arange(n_rays, dtype=torch.int32, device=edges.device)
    spans = torch.stack([first * n, torch.full_like(first, n)], -1)
    return Samples(edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1), first[:, None].expand(-1, n).reshape(-1), spans)


def endless_last(samples: Samples) -> Samples:
    """The last interval of each ray stands for all behind it. All rays have equally many."""
    t_ends = samples.t_ends.view(len(samples.spans), -1).clone()
    t_ends[:, -1] += ENDLESS
    return samples._replace(t_ends=t_ends.view(-1))
