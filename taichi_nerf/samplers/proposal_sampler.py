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
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.fields.ranges import AT_LEAST_ZERO, INTERVALS, SHARE, check_ranges
from taichi_nerf.ops import importance_sampling
from taichi_nerf.rays import Rays, Samples
from taichi_nerf.samplers.hierarchical_sampler import endless_last, from_edges

ANNEAL_BIAS = 10.0  # b
MOST_PROPOSED = 2000  # intervals that a network sees of a ray


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
        if not self.n_proposed or min(self.n_proposed) < 1 or max(self.n_proposed) > MOST_PROPOSED:
            raise ValueError(f"n_proposed: expected at least one network, each of 1 to {MOST_PROPOSED} intervals")
        check_ranges(self, n_samples=INTERVALS, anneal=SHARE, padding=AT_LEAST_ZERO, even_until=AT_LEAST_ZERO, loss=AT_LEAST_ZERO)


# Densities [n_samples] of the samples of some rays.
Density = Callable[[Rays, Samples], Tensor]


class Proposal(NamedTuple):
    """What one network makes of the rays that are left."""

    edges: Tensor  # [n_rays, n + 1] of s
    weights: Tensor  # [n_rays, n] with gradients


class Proposed(NamedTuple):
    """Where the field should look."""

    samples: Samples  # of the rays that are left
    edges: Tensor  # [n_left, n_samples + 1] of s
    proposals: list[Proposal]
    which: Tensor | None  # [n_left] int64 among the rays; None: all of them


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
    learns: bool = True,  # whether gradients are wanted
    least_opacity: float = 0.0,  # that the last network has to see on a ray, for the field to look there at all
    chance: float = 0.0,  # that it does all the same, given a generator
) -> Proposed:
    power = annealed(progress / settings.anneal) if settings.anneal else 1.0
    edges = torch.arange(2.0, device=t_near.device).expand(len(t_near), 2).contiguous()
    weights = torch.ones_like(edges[:, :1])
    proposals = []
    still = Rays(*(part.detach() for part in rays))  # proposals learn; cameras, where these are corrected, follow colors alone
    for density, n in zip(densities, settings.n_proposed, strict=True):
        edges = _drawn(edges, weights, n, settings, power, generator)
        samples = from_edges(distances(edges, t_near, t_far, even_until))
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            weights = weights_of(density(still, samples), samples, endless).view(-1, n)
        proposals.append(Proposal(edges, weights))
    which = _left(weights.detach().sum(-1), least_opacity, chance, generator)
    if which is not None:
        proposals = [Proposal(*(part.index_select(0, which) for part in proposal)) for proposal in proposals]
        edges, weights, t_near, t_far = (part.index_select(0, which) for part in (edges, weights, t_near, t_far))
    edges = _drawn(edges, weights, settings.n_samples, settings, power, generator)
    return Proposed(from_edges(distances(edges, t_near, t_far, even_until)), edges, proposals, which)


def _drawn(
    edges: Tensor, weights: Tensor, n: int, settings: ProposalSettings, power: float, generator: torch.Generator | None
) -> Tensor:  # [n_rays, k + 1], [n_rays, k] → [n_rays, n + 1]
    """The edges of n intervals of a histogram, all of a ray shifted alike."""
    uniforms = None
    if generator is not None:
        shifts = random_numbers.uniform(len(edges), 1, generator=generator, device=edges.device)
        uniforms = shifts.expand(-1, n + 1).contiguous()
    flat = weights.detach() if power == 1 else weights.detach() ** power
    return importance_sampling.importance_sample(
        edges, flat, n + 1, uniforms=uniforms, stratified=generator is not None, padding=settings.padding, blur=settings.blur
    )


def _left(opacity: Tensor, least: float, chance: float, generator: torch.Generator | None) -> Tensor | None:
    """The rays on which there is something; in training some of the others too, lest what was once missed stays so."""
    if not least:
        return None
    some = opacity >= least
    if generator is not None:
        some |= random_numbers.uniform(len(opacity), generator=generator, device=opacity.device) < chance
    return some.nonzero()[:, 0]


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
    rest = torch.lerp(2 - near / m, torch.where(far < m, 2 - far / m, m / far), s)  # 2 - g, with its digits where that is small
    return m * torch.where(g < 1, g, 1 / rest.clamp_max(1))


def in_rows(values: Tensor, samples: Samples) -> Tensor:  # [n_samples] → [n_rays, n_samples / n_rays]
    """Of rays that have equally many; there may be no rays at all."""
    n_rays = len(samples.spans)
    return values.view(n_rays, len(values) // max(n_rays, 1))


def weights_of(density: Tensor, samples: Samples, endless: bool) -> Tensor:
    """Weights [n_samples] that densities [n_samples] give to the intervals: T_i (1 - exp(-σ_i δ_i)). Rays have equally many.

    The same as `compositing.composite_rays`, which walks each ray: of whole matrices, torch takes several numbers at once.
    """
    lasting = endless_last(samples) if endless and len(samples.spans) else samples
    thickness = in_rows(density * (lasting.t_ends - lasting.t_starts), samples)
    before = nn.functional.pad(thickness[:, :-1].cumsum(-1), (1, 0))
    return (torch.exp(-before) * -torch.expm1(-thickness)).view(-1)


def at_middles(density: Callable[[Tensor], Tensor]) -> Density:
    """The density [n] of places [n, 3] as one of samples: seen at their middles. Rays have equally many."""

    def of_samples(rays: Rays, samples: Samples) -> Tensor:
        middles = in_rows((samples.t_starts + samples.t_ends) / 2, samples)[..., None]
        positions = torch.addcmul(rays.origins[:, None], middles, rays.directions[:, None])
        return density(positions.view(-1, 3))

    return of_samples
