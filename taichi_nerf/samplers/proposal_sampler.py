"""mip-NeRF 360's samples (Barron et al. 2022, section 3): small networks propose where on a ray the field should look.

Each network sees the intervals that the one before it proposes, even ones at first, and the weights that its density gives them
are the histogram from which the next ones are drawn. The networks learn from the field's weights alone (`losses.interlevel`).
Early in training histograms are flattened to w^a, a = b p / ((b - 1) p + 1), so that all of a ray is seen. Intervals are even in
t; around scenes that go on up to a distance m, and in 1 / t from there: in g(t) = t / m up to m, 2 - m / t beyond. s goes from 0
at near to 1 at far.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.ops import compositing, importance_sampling
from taichi_nerf.rays import Rays, Samples
from taichi_nerf.samplers.hierarchical_sampler import endless_last, from_edges

ANNEAL_BIAS = 10.0  # b


@dataclass(frozen=True)
class ProposalSettings:
    n_proposed: tuple[int, ...] = (64, 48)  # intervals that each network sees
    n_samples: int = 32  # that the field sees
    anneal: float = 0.1  # share of the training in which histograms are flattened
    padding: float = 0.01  # that every interval weighs besides
    blur: bool = False  # intervals next to heavy ones count as such
    even_until: float | None = None  # distance m, for scenes that go on; None: of the cameras from the scene's middle; 0: near
    loss: float = 1.0  # weight of what the networks learn by

    def __post_init__(self) -> None:
        if not self.n_proposed or min(*self.n_proposed, self.n_samples) < 1:
            raise ValueError("expected at least one network in n_proposed, and at least one sample of each")


# Densities [n_samples] of the samples of some rays.
Density = Callable[[Rays, Samples], Tensor]


class Proposal(NamedTuple):
    """What one network makes of a ray."""

    edges: Tensor  # [n_rays, n + 1] of s
    weights: Tensor  # [n_rays, n] with gradients


class Proposed(NamedTuple):
    """Where the field should look."""

    samples: Samples
    edges: Tensor  # [n_rays, n_samples + 1] of s
    proposals: list[Proposal]


def propose(
    densities: Sequence[Density],  # one for each of `n_proposed`
    settings: ProposalSettings,
    rays: Rays,
    t_near: Tensor,  # [n_rays]
    t_far: Tensor,  # [n_rays]
    *,
    even_until: float = math.inf,  # the distance from which intervals are even in 1 / t
    endless: bool = False,  # the last interval of a ray stands for all behind it
    generator: torch.Generator | None = None,  # None: evenly within each histogram
    progress: float = 1.0,  # of the training
) -> Proposed:
    n_rays = len(t_near)
    edges = torch.tensor([0.0, 1.0], device=t_near.device).expand(n_rays, 2).contiguous()
    weights = torch.ones_like(edges[:, :1])
    power = annealed(progress / settings.anneal) if settings.anneal else 1.0
    proposals = []
    for number, n in enumerate((*settings.n_proposed, settings.n_samples)):
        uniforms = None if generator is None else torch.rand(n_rays, n + 1, generator=generator).to(edges.device)
        flat = weights.detach() ** power
        edges = importance_sampling.importance_sample(
            edges, flat, n + 1, uniforms=uniforms, stratified=generator is not None,
            padding=settings.padding, blur=settings.blur,
        )  # fmt: skip
        samples = from_edges(distances(edges, t_near, t_far, even_until))
        if number < len(densities):
            weights = weights_of(densities[number](rays, samples), samples, endless).view(n_rays, n)
            proposals.append(Proposal(edges, weights))
    return Proposed(samples, edges, proposals)


def annealed(p: float) -> float:
    """The power of weights at this share of the annealing."""
    p = min(max(p, 0.0), 1.0)
    return ANNEAL_BIAS * p / ((ANNEAL_BIAS - 1) * p + 1)


def distances(s: Tensor, t_near: Tensor, t_far: Tensor, even_until: float) -> Tensor:  # [n_rays, n], [n_rays], [n_rays]
    """t of s."""
    near, far = t_near[:, None], t_far[:, None]
    if even_until == math.inf:
        return torch.lerp(near, far, s)
    m = near.clamp_min(even_until)
    g = torch.lerp(near / m, torch.where(far < m, far / m, 2 - m / far), s)
    return m * torch.where(g < 1, g, 1 / (2 - g))


def weights_of(density: Tensor, samples: Samples, endless: bool) -> Tensor:
    """Weights [n_samples] that densities [n_samples] give to the intervals."""
    nothing = density.new_zeros(len(density), 1)
    lasting = endless_last(samples) if endless else samples
    return compositing.composite_rays(density, nothing, *lasting[:2], samples.spans).weights


def at_middles(density: Callable[[Tensor], Tensor]) -> Density:
    """The density [n] of places [n, 3] as one of samples: seen at their middles."""

    def of_samples(rays: Rays, samples: Samples) -> Tensor:
        middles = (samples.t_starts + samples.t_ends) / 2
        origins, directions = (part.detach().index_select(0, samples.ray_indices) for part in rays[:2])
        return density(origins + middles[:, None] * directions)

    return of_samples
