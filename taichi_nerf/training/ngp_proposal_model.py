"""`--method ngp --set sampler.kind=proposal`: the hash grid, seen where small hash grids propose: nerfacto's arrangement."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf import losses, random_numbers
from taichi_nerf.fields.density_field import DensityField
from taichi_nerf.ops import compositing, ray_box, ray_marching
from taichi_nerf.rays import Rays, Samples
from taichi_nerf.rendering import SAMPLES_AT_ONCE, Picture, RenderedBatch, picture_in_parts, with_normals_at
from taichi_nerf.samplers.proposal_sampler import MOST_PROPOSED, Proposed, at_middles, propose, weights_of
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.cast import even_until, to_the_middle
from taichi_nerf.training.config import NgpConfig, NgpProposalSettings
from taichi_nerf.training.model import Compared, Model, Shown
from taichi_nerf.training.near_gradients import fading
from taichi_nerf.training.ngp_model import compared, contraction_of, field_of, optimiser_of, rate_at, seen_as, sharpen

LEAST_PROPOSED = 1e-2  # density at which a proposal leads somewhere
CLOSER = 2  # times as many proposed intervals in pictures
LESSONS = 100  # steps after which proposals learn in every second one only, then in every third, …


class Rendered(NamedTuple):
    """What rays see."""

    proposed: Proposed
    weights: Tensor  # [n_left, n_samples] of all that was proposed, without gradients
    batch: RenderedBatch


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
        self.faded_until = config.proposal.near_fade * to_the_middle(scene)
        self.progress, self.learns = 0.0, True
        self.needs_depth = config.loss.depth > 0
        self.to(device)

    @property
    def first_n_rays(self) -> int:  # type: ignore[override]
        return self.next_n_rays(0, 0, 1)

    def next_n_rays(self, n_rays: int, n_samples: int, n_ranks: int) -> int:
        batch, n = self.config.batch, self.config.proposal.n_samples
        return max(1, min(batch.n_samples // n // n_ranks, batch.n_rays_most))

    @property
    def shown(self) -> NgpProposalSettings:
        """How pictures look at rays: closer than training, which sees each place on many rays."""
        settings = self.config.proposal
        n_proposed = tuple(min(CLOSER * n, MOST_PROPOSED) for n in settings.n_proposed)
        return replace(settings, n_proposed=n_proposed, n_samples=max(settings.n_samples, settings.n_shown))

    def optimiser(self) -> torch.optim.Adam:
        config, settings = self.config, self.config.proposal
        slower = replace(config.optimiser, network_rate=settings.network_share * config.optimiser.network_rate)
        optimiser = optimiser_of(replace(config, optimiser=slower), self.field)
        proposals, rate = list(self.proposals.parameters()), settings.learning_rate
        optimiser.add_param_group({"name": "proposals", "params": proposals, "first_lr": rate})
        return optimiser

    def rate(self, progress: float) -> float:
        return rate_at(self.config, progress)

    def before_step(self, n_steps: int, progress: float, generator: torch.Generator) -> None:
        self.progress = progress
        self.learns = n_steps % min(1 + n_steps // LESSONS, self.config.proposal.learn_every) == 0
        sharpen(self.field, self.config, progress)

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        image_ids = seen_as(self.config.appearance, shown.views, generator)
        seen = self._render(shown.rays, shown.background, generator, image_ids, learns=self.learns)
        spread = losses.spread(seen.batch.rendered.weights, seen.batch.samples) if self.config.loss.spread else None
        found = compared(self.config.loss, self.progress, shown, seen.batch, spread)
        loss = found.loss
        for proposal in seen.proposed.proposals if self.learns else ():
            # Its gradient alone: it grows while the field learns, and the loss is what tells whether training goes well.
            behind = losses.interlevel(seen.proposed.edges, seen.weights, *proposal)
            loss = loss + self.config.proposal.loss * (behind - behind.detach())
        return found._replace(loss=loss)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        return self._render(rays, background, generator, None).batch

    def density_weights(self) -> list[Tensor]:
        return list(self.field.density_mlp.parameters())

    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool = False) -> Picture:
        most = max(*self.shown.n_proposed, self.shown.n_samples)
        found = picture_in_parts(lambda some: self._see(some, with_normals), rays, size, max(1, SAMPLES_AT_ONCE // most))
        return found._replace(opacity=found.opacity.clamp(0, 1))

    @torch.no_grad()
    def density(self, positions: Tensor) -> Tensor:
        """None where no proposal leads: what the field says there was never seen."""
        density = self.field.glance(positions).density
        for proposal in self.proposals:
            density = torch.where(proposal(positions) > LEAST_PROPOSED, density, 0.0)
        return density

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        return self.field(positions, directions)[1]

    def _propose(self, rays: Rays, generator: torch.Generator | None, learns: bool = False) -> Proposed:
        """Of the rays that meet the scene; `which` tells these among all."""
        origins, directions = rays.origins.detach(), rays.directions.detach()
        near, far, which = self.bounds.near, self.bounds.far, None
        if self.bounds.unbounded:
            t_near = torch.full_like(origins[:, 0], max(near, 1e-3))
            t_far = torch.full_like(t_near, far)
        else:
            t_near, t_far = ray_box.intersect_boxes(origins, directions, self.box, near=near, far=far)
            which = (t_far > t_near).nonzero()[:, 0]
            rays = Rays(*(part.detach().index_select(0, which) for part in rays))
            t_near, t_far = t_near[which], t_far[which]
        settings = self.shown if generator is None else self.config.proposal
        proposed = propose(
            [at_middles(proposal) for proposal in self.proposals], settings, rays, t_near, t_far,
            even_until=self.even_until, generator=generator, progress=self.progress if generator else 1.0, learns=learns,
            least_opacity=settings.least_opacity, chance=settings.chance,
        )  # fmt: skip
        if which is None or proposed.which is None:
            return proposed if which is None else proposed._replace(which=which)
        return proposed._replace(which=which[proposed.which])

    def _render(
        self, rays: Rays, background: Tensor, generator: torch.Generator | None, image_ids: Tensor | None, learns: bool = False
    ) -> Rendered:
        """The field is asked twice, as in `rendering`: it looks in full where light gets and something is."""
        n_rays, culling = len(rays.origins), self.config.culling
        proposed = self._propose(rays, generator, learns)
        all_of, which = proposed.samples, proposed.which
        ids = all_of.ray_indices if which is None else which.int().index_select(0, all_of.ray_indices)
        with torch.no_grad():
            whole = self._middles(rays, all_of._replace(ray_indices=ids))
            density, features = self.field.glance(whole)
            chances = None
            if generator is not None:
                chances = random_numbers.uniform(len(density), generator=generator, device=density.device)
            kept, spans = compositing.visible_samples(
                density, all_of.t_starts, all_of.t_ends, all_of.spans, chances,
                early_stop=culling.early_stop, least_weight=culling.least_weight, chance=culling.chance,
            )  # fmt: skip
            weights = weights_of(density, all_of, endless=False).view_as(proposed.edges[:, 1:])
            features = None if features is None else features.index_select(0, kept)
        t_starts, t_ends, own = (part.index_select(0, kept) for part in (all_of.t_starts, all_of.t_ends, ids))
        if which is not None:
            spans = torch.zeros(n_rays, 2, dtype=torch.int32, device=own.device).index_copy_(0, which, spans)
        samples = Samples(t_starts, t_ends, own, spans)
        moving = rays.origins.requires_grad or rays.directions.requires_grad
        positions = (
            ray_marching.sample_positions(rays.origins, rays.directions, *samples) if moving else whole.index_select(0, kept)
        )
        of_images = None if image_ids is None else image_ids.index_select(0, own)
        density, color = self.field(positions, rays.directions.index_select(0, own), of_images, features)
        density, color = fading(density, color, (t_starts + t_ends) / 2, self.faded_until)
        out = compositing.composite_rays(density, color, *samples[:2], samples.spans, background)
        n = n_rays * sum(proposal.weights.shape[1] for proposal in proposed.proposals) + len(all_of.t_starts)
        return Rendered(proposed, weights, RenderedBatch(out, samples, n))

    @staticmethod
    def _middles(rays: Rays, samples: Samples) -> Tensor:
        origins, directions = (part.detach().index_select(0, samples.ray_indices) for part in rays[:2])
        return torch.addcmul(origins, ((samples.t_starts + samples.t_ends) / 2)[:, None], directions)

    def _see(self, rays: Rays, with_normals: bool) -> tuple[Tensor, Tensor, Tensor]:
        color, opacity, depth, _ = self._render(rays, torch.zeros_like(rays.origins), None, None).batch.rendered
        if with_normals:
            color = with_normals_at(color, opacity, depth, rays, lambda at: self.field(at, torch.zeros_like(at))[0])
        return color, opacity, depth
