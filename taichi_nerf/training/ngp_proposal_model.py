"""`--method ngp --set sampler.kind=proposal`: the hash grid, seen where small hash grids propose: nerfacto's arrangement."""

import torch
from torch import Tensor, nn

from taichi_nerf import losses
from taichi_nerf.fields.density_field import DensityField
from taichi_nerf.ops import compositing, ray_box, ray_marching
from taichi_nerf.rays import Rays, RenderedRays
from taichi_nerf.rendering import Picture, RenderedBatch, normals_of
from taichi_nerf.samplers.proposal_sampler import Proposed, at_middles, propose
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.cast import even_until
from taichi_nerf.training.config import NgpConfig
from taichi_nerf.training.dense_picture import SAMPLES_AT_ONCE, Seen, in_parts
from taichi_nerf.training.model import Compared, Model, Shown
from taichi_nerf.training.ngp_model import contraction_of, field_of, optimiser_of, rate_at, sharpen
from taichi_nerf.training.schedules import ramp

LEAST_PROPOSED = 1e-2  # density at which a proposal leads somewhere


class NgpProposalModel(Model):
    """Every ray has equally many samples; how many rays a step has follows from `batch.n_samples`."""

    config: NgpConfig

    def __init__(self, config: NgpConfig, scene: SceneData, device: torch.device):
        super().__init__(config, scene)
        generator = torch.Generator().manual_seed(config.run.seed)
        self.bounds, contraction = scene.bounds, contraction_of(config, scene)
        self.field = field_of(config, scene, self.box.clone(), generator)
        self.proposals = nn.ModuleList(
            DensityField(config.density, self.box.clone(), contraction, generator) for _ in config.proposal.n_proposed
        )
        self.even_until = even_until(config.proposal.even_until, scene)
        self.progress = 0.0
        self.needs_depth = config.loss.depth > 0
        self.to(device)

    @property
    def first_n_rays(self) -> int:  # type: ignore[override]
        return self.next_n_rays(0, 0, 1)

    def next_n_rays(self, n_rays: int, n_samples: int, n_ranks: int) -> int:
        batch, n = self.config.batch, self.config.proposal.n_samples
        return max(1, min(batch.n_samples // n // n_ranks, batch.n_rays_most))

    def optimiser(self) -> torch.optim.Adam:
        optimiser = optimiser_of(self.config, self.field)
        rate = self.config.optimiser.network_rate
        optimiser.add_param_group({"name": "proposals", "params": list(self.proposals.parameters()), "first_lr": rate})
        return optimiser

    def rate(self, progress: float) -> float:
        return rate_at(self.config, progress)

    def before_step(self, n_steps: int, progress: float, generator: torch.Generator) -> None:
        self.progress = progress
        sharpen(self.field, self.config, progress)

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        config, n_rays = self.config.loss, len(shown.views)
        proposed = self._propose(shown.rays, generator, self.progress)
        out = self._render(shown.rays, proposed, shown.background, shown.views)
        weights = out.weights.view(n_rays, -1)
        loss = losses.photometric(config.kind, out.color, shown.truth, shown.weight)
        for proposal in proposed.proposals:
            # Its gradient alone: it grows while the field learns, and the loss is what tells whether training goes well.
            behind = losses.interlevel(proposed.edges, weights, *proposal)
            loss = loss + self.config.proposal.loss * (behind - behind.detach())
        if config.opacity_entropy:
            loss = loss + config.opacity_entropy * losses.opacity_entropy(out.opacity)
        if config.spread:
            grown = config.spread * ramp(self.progress, config.spread_from)
            loss = loss + grown * losses.spread(out.weights, proposed.samples)
        if config.depth and shown.depth is not None:
            loss = loss + config.depth * losses.depth_error(out.depth, out.opacity, shown.depth, shown.depth > 0)
        n_samples = n_rays * (sum(self.config.proposal.n_proposed) + self.config.proposal.n_samples)
        seen = RenderedBatch(out, proposed.samples, n_samples)
        return Compared(loss, (out.color.detach() - shown.truth).square().mean(-1), n_samples, seen)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        proposed = self._propose(rays, generator, self.progress)
        out = self._render(rays, proposed, background, None)
        return RenderedBatch(out, proposed.samples, len(out.weights))

    def density_weights(self) -> list[Tensor]:
        return list(self.field.density_mlp.parameters())

    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool = False) -> Picture:
        most = max(*self.config.proposal.n_proposed, self.config.proposal.n_samples)
        return in_parts(lambda some: self._see(some, with_normals), rays, size, max(1, SAMPLES_AT_ONCE // most))

    @torch.no_grad()
    def density(self, positions: Tensor) -> Tensor:
        """None where no proposal leads: what the field says there was never seen."""
        density = self.field.glance(positions).density
        for proposal in self.proposals:
            density = torch.where(proposal(positions) > LEAST_PROPOSED, density, 0.0)
        return density

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        return self.field(positions, directions)[1]

    def _propose(self, rays: Rays, generator: torch.Generator | None, progress: float = 1.0) -> Proposed:
        origins, directions = rays.origins.detach(), rays.directions.detach()
        near, far, unbounded = self.bounds.near, self.bounds.far, self.bounds.unbounded
        if unbounded:
            t_near = torch.full_like(origins[:, 0], max(near, 1e-3))
            t_far = torch.full_like(t_near, far)
        else:
            t_near, t_far = ray_box.intersect_boxes(origins, directions, self.box, near=near, far=far)
        return propose(
            [at_middles(proposal) for proposal in self.proposals], self.config.proposal, rays, t_near, t_far,
            even_until=self.even_until, generator=generator, progress=progress,
        )  # fmt: skip

    def _render(self, rays: Rays, proposed: Proposed, background: Tensor, views: Tensor | None) -> RenderedRays:
        samples = proposed.samples
        positions = ray_marching.sample_positions(rays.origins, rays.directions, *samples)
        ids = None if views is None else views.index_select(0, samples.ray_indices)
        density, color = self.field(positions, rays.directions.index_select(0, samples.ray_indices), ids)
        return compositing.composite_rays(density, color, *samples[:2], samples.spans, background)

    def _see(self, rays: Rays, with_normals: bool) -> Seen:
        black = torch.zeros_like(rays.origins)
        out = self._render(rays, self._propose(rays, None), black, None)
        depth = out.depth / out.opacity.clamp_min(1e-6)
        normals = None
        if with_normals:
            normals = normals_of(self.field, rays.origins + depth[:, None] * rays.directions) * out.opacity[:, None]
        return Seen(out.color, out.opacity, depth, normals)
