"""`--method mipnerf360`: a wide network that looks only where a small one proposes, in contracted space (Barron et al. 2022).

loss = Charbonnier's of colors + interlevel loss of each proposal + 0.01 distortion, means over rays. The small network learns
from the wide one's weights alone. Of scenes that go on, the last interval of a ray is opaque.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf import losses
from taichi_nerf.fields.contracted_encoding import ContractedEncoding
from taichi_nerf.fields.mip_nerf_360_field import MipNerf360Field, ProposalNetwork
from taichi_nerf.ops import compositing, distortion
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.samplers.hierarchical_sampler import endless_last, from_edges
from taichi_nerf.samplers.proposal_sampler import Proposed, propose
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.cast import Cast, cast, even_until
from taichi_nerf.training.dense_model import DenseModel, of_all_rays
from taichi_nerf.training.mipnerf360_config import MipNerf360Config
from taichi_nerf.training.model import Compared, Shown
from taichi_nerf.training.presets import pixel_footprint

LEAST_NEAR = 1e-3  # where 1 / t begins


class Rendered(NamedTuple):
    """What the networks make of some rays."""

    proposed: Proposed
    out: RenderedRays  # color [n, 4]: the last is Σ w distance


class MipNerf360Model(DenseModel):
    config: MipNerf360Config

    def __init__(self, config: MipNerf360Config, scene: SceneData, device: torch.device):
        super().__init__(config, scene)
        self.bounds, self.footprint = scene.bounds, pixel_footprint(scene)
        generator = torch.Generator().manual_seed(config.run.seed)
        encoding = ContractedEncoding(config.encoding, self.box)
        self.field = MipNerf360Field(encoding, config.field, generator)
        self.proposal = ProposalNetwork(encoding, config.density, generator)
        self.even_until = even_until(config.proposal.even_until, scene)
        self.progress = 0.0
        self.to(device)

    def before_step(self, n_steps: int, progress: float, generator: torch.Generator) -> None:
        self.progress = progress

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        config, found = self.config.mipnerf360, self._cast(shown.rays)
        proposed, out = self._render(found, shown.background[found.which], generator, self.progress)
        color = shown.background.index_copy(0, found.which, out.color[:, :3])
        loss = losses.photometric(config.photometric, color, shown.truth, shown.weight)
        n, n_all = len(found.which), len(shown.truth)
        weights = out.weights.view_as(proposed.edges[:, 1:])
        for proposal in proposed.proposals:
            # Its gradient alone: it grows while the field learns, and the loss is what tells whether training goes well.
            behind = losses.interlevel(proposed.edges, weights, *proposal) * (n / n_all)
            loss = loss + self.config.proposal.loss * (behind - behind.detach())
        if config.distortion:
            s = from_edges(proposed.edges)
            loss = loss + config.distortion / n_all * distortion.distortion_loss(out.weights, *s[:2], s.spans).sum()
        seen = self._seen(found, proposed.samples, out, shown.background)
        return Compared(loss, (color.detach() - shown.truth).square().mean(-1), n * self.samples_of_ray, seen)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        found = self._cast(rays)
        proposed, out = self._render(found, background[found.which], generator, self.progress)
        return self._seen(found, proposed.samples, out, background)

    def _seen(self, found: Cast, samples: Samples, out: RenderedRays, background: Tensor) -> RenderedBatch:
        return of_all_rays(found, out, out.color[:, 3], samples, background, self.bounds.far)

    @property
    def samples_of_ray(self) -> int:
        return sum(self.config.proposal.n_proposed) + self.config.proposal.n_samples

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        return self.field.around(positions, directions, self.footprint / 2)[1].clamp(0, 1)

    def _density(self, positions: Tensor) -> Tensor:
        """Of Gaussians of a pixel's width: finer than those of pictures nothing was learnt."""
        return self.field.around(positions, torch.zeros_like(positions), self.footprint / 2)[0]

    def _seen_over_black(self, found: Cast) -> tuple[RenderedRays, Tensor]:
        out = self._render(found, torch.zeros_like(found.origins), None, 1.0).out
        return out, out.color[:, 3]

    def _cast(self, rays: Rays) -> Cast:
        """Through the box of a bounded scene, or from near to far."""
        found = cast(rays, self.bounds, None if self.bounds.unbounded else self.box, None)
        return found._replace(t_near=found.t_near.clamp_min(LEAST_NEAR)) if self.bounds.unbounded else found

    def _render(self, found: Cast, background: Tensor, generator: torch.Generator | None, progress: float) -> Rendered:
        """Without a generator: evenly within each histogram."""
        endless = self.bounds.unbounded
        levels = [self.proposal] * len(self.config.proposal.n_proposed)
        proposed = propose(
            levels, self.config.proposal, found.rays, found.t_near, found.t_far,
            even_until=self.even_until, endless=endless, generator=generator, progress=progress,
        )  # fmt: skip
        samples = proposed.samples
        density, color = self.field(found.rays, samples)
        lasting = endless_last(samples) if endless else samples
        middles = ((samples.t_starts + samples.t_ends) / 2)[:, None]
        out = compositing.composite_rays(
            density, torch.cat([color, middles], -1), *lasting[:2], samples.spans, nn.functional.pad(background, (0, 1))
        )
        return Rendered(proposed, out)
