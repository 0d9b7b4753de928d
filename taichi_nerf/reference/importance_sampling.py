"""Where to sample rays, in plain torch: evenly, jittered, or by the weights of a first pass.

Mildenhall et al. 2020 (sections 4 and 5.2), Barron et al. 2021 (the blur, and one draw for each part of [0, 1]).
"""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def importance_sample(
    bin_edges: Tensor,  # [n_rays, n_bins + 1] ascending
    weights: Tensor,  # [n_rays, n_bins]
    n_samples: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n_samples] in [0, 1)
    stratified: bool = False,
    padding: float = 1e-5,
    blur: bool = False,
) -> Tensor:  # [n_rays, n_samples] ascending
    """Draw t of each ray from the histogram `weights + padding` of its bins: invert its cumulative distribution."""
    bin_edges, weights = bin_edges.detach(), weights.detach()
    if stratified:
        within = 0.5 if uniforms is None else uniforms
        u = (torch.arange(n_samples, dtype=weights.dtype, device=weights.device) + within) / n_samples
    elif uniforms is None:
        u = torch.linspace(0, 1, n_samples, dtype=weights.dtype, device=weights.device)
    else:
        u = uniforms.sort(-1).values
    u = u.expand(len(weights), n_samples)

    mass = torch.where(weights > 1e-30, weights, 0).clamp(max=1e30)
    mass = (blurred(mass) if blur else mass) + padding
    mass = torch.where(mass.sum(-1, keepdim=True) > 0, mass, 1)
    cumulative = torch.nn.functional.pad(mass.cumsum(-1), (1, 0))
    total = cumulative[:, -1:]
    last = torch.searchsorted(cumulative, total.contiguous()) - 1  # the last bin with mass
    bins = torch.minimum(torch.searchsorted(cumulative, u * total, right=True) - 1, last)
    below, above = cumulative.gather(-1, bins), cumulative.gather(-1, bins + 1)
    near, far = bin_edges.gather(-1, bins), bin_edges.gather(-1, bins + 1)
    return torch.lerp(near, far, (u * total - below) / (above - below))


def blurred(weights: Tensor) -> Tensor:  # [n_rays, n_bins] -> [n_rays, n_bins]
    """The mean of each weight's maxima with its left and with its right neighbour; the outer neighbours repeat."""
    padded = torch.cat([weights[:, :1], weights, weights[:, -1:]], -1)
    maxima = torch.maximum(padded[:, :-1], padded[:, 1:])
    return (maxima[:, :-1] + maxima[:, 1:]) / 2


def stratified_samples(
    t_near: Tensor,  # [n_rays]
    t_far: Tensor,  # [n_rays]
    n_samples: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n_samples] in [0, 1)
    spacing: str = "linear",
) -> Tensor:  # [n_rays, n_samples] ascending
    """Points from near to far, even in t or in 1 / t; with `uniforms`, each drawn between the midpoints around it."""
    near, far = t_near.detach()[:, None], t_far.detach()[:, None]
    s = torch.linspace(0, 1, n_samples, dtype=near.dtype, device=near.device)
    t = torch.lerp(near, far, s) if spacing == "linear" else 1 / torch.lerp(1 / near, 1 / far, s)
    if uniforms is None:
        return t
    midpoints = (t[:, 1:] + t[:, :-1]) / 2
    low = torch.cat([t[:, :1], midpoints], -1)
    high = torch.cat([midpoints, t[:, -1:]], -1)
    return torch.lerp(low, high, uniforms)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """About n samples, 64 on each ray. The weights stay away from 0, where a rounded sum would move a sample far."""
    like = torch.empty(0, dtype=dtype)
    n_rays, n_bins, n_samples = (n + 63) // 64, 64, 64
    t_near = uniform(generator, (n_rays,), 0.5, 2, like)
    t_far = t_near + uniform(generator, (n_rays,), 1, 4, like)
    widths = uniform(generator, (n_rays, n_bins + 1), 0.02, 0.1, like.double())
    weights = uniform(generator, (n_rays, n_bins), 0.1, 1, like)
    uniforms = uniform(generator, (n_rays, n_samples), 0, 1, like)
    histogram = {
        "bin_edges": (t_near[:, None] + widths.cumsum(-1)).to(dtype),
        "weights": weights,
        "n_samples": n_samples,
    }
    between = {"t_near": t_near, "t_far": t_far, "n_samples": n_samples}
    mip = {"uniforms": uniforms, "stratified": True, "padding": 0.01, "blur": True}
    inverse = {**between, "spacing": "inverse"}
    return [
        Example("importance_sample", {**histogram, **mip}, label="one draw a stratum, blurred (mip-NeRF)"),
        Example("importance_sample", {**histogram, "uniforms": uniforms}, label="independent draws (NeRF)"),
        Example("importance_sample", histogram, label="evenly, ends included"),
        Example("importance_sample", {**histogram, "n_samples": 33, "stratified": True}, label="centers of strata"),
        Example("stratified_samples", {**between, "uniforms": uniforms}, label="jittered"),
        Example("stratified_samples", {**inverse, "uniforms": uniforms}, label="jittered, inverse"),
        Example("stratified_samples", between, label="even"),
        Example("stratified_samples", {**inverse, "n_samples": 65}, label="even, inverse"),
    ]
