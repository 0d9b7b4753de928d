"""`--method ngp`: a hash grid, and an occupancy grid that knows where to look (Müller et al. 2022)."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from taichi_nerf import losses, random_numbers
from taichi_nerf.fields.hash_grid_field import OF_NO_IMAGE, HashGridField
from taichi_nerf.fields.space import Contraction, unit_positions
from taichi_nerf.optimiser import Adam
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Picture, RenderedBatch, render_picture, render_rays
from taichi_nerf.rooms import Rooms
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import AppearanceSettings, LossSettings, NgpConfig
from taichi_nerf.training.model import Compared, Model, Shown
from taichi_nerf.training.schedules import late_decay, ramp

LONGEST_STRETCH = 5.0  # of the steps along rays
FEWEST_RAYS, FIRST_RAYS = 256, 512  # few at first, when every cell is still taken for occupied


class NgpModel(Model):
    """The number of rays of a step follows the number of samples that the last one took, which keeps its work constant."""

    config: NgpConfig
    first_n_rays = FIRST_RAYS

    def __init__(self, config: NgpConfig, scene: SceneData, device: torch.device):
        super().__init__(config, scene)
        generator = torch.Generator().manual_seed(config.run.seed)
        self.field = field_of(config, scene, self.box.clone(), generator)
        near, far, contraction = scene.bounds.near, scene.bounds.far, contraction_of(config, scene)
        self.sampler = OccupancyGridSampler(config.occupancy, self.box.clone(), contraction, near, far)
        self.sampler.roams = contraction == "none" and self.sampler.sees_whole_box_from(self.rig.camera_to_worlds[:, :, 3])
        self.progress = 0.0
        self.needs_depth = config.loss.depth > 0
        self.rooms = Rooms() if device.type == "cuda" else None  # a processor's numbers are there at once
        self.register_load_state_dict_post_hook(_forget_rooms)
        self.to(device)

    @property
    def pace(self) -> float:
        """How far the steps along rays are stretched: the grid's memory follows from it."""
        return self.sampler.stretch

    @pace.setter
    def pace(self, value: float) -> None:
        self.sampler.stretch = value

    def optimiser(self) -> Adam:
        return optimiser_of(self.config, self.field)

    def rate(self, progress: float) -> float:
        return rate_at(self.config, progress)

    def prepare(self, scene: SceneData, views: list[int]) -> None:
        """Take the space that none of these views shows for empty."""
        pinholes = scene.cameras[views].covering_pinholes()
        if pinholes is None:
            return
        poses = self.rig.camera_to_worlds[torch.tensor(views, device=self.rig.models.device)]
        intrinsics, sizes = (torch.tensor(each, dtype=poses.dtype, device=poses.device) for each in pinholes)
        self.sampler.leave_out_unseen(poses, intrinsics, sizes.int())

    def before_step(self, n_steps: int, progress: float, generator: torch.Generator) -> None:
        """Look at the grid's cells again."""
        config = self.config.grid
        self.progress = progress
        sharpen(self.field, self.config, progress)
        if n_steps % config.every == 0:
            share = 1.0 if n_steps < config.full_until else config.share
            self.sampler.update(lambda at: self.field.glance(at).density, share, generator)

    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        config, n = self.config.loss, len(shown.views)
        jitter = random_numbers.uniform(n, generator=generator, device=shown.truth.device)
        image_ids = seen_as(self.config.appearance, shown.views, generator)
        batch = self.render(
            shown.rays, shown.background, jitter=jitter, draws=generator, image_ids=image_ids, rooms=self.rooms
        )  # fmt: skip
        spread = losses.spread(batch.rendered.weights, batch.samples) if config.spread else None
        return compared(config, self.progress, shown, batch, spread)

    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:
        jitter = random_numbers.uniform(len(rays.origins), generator=generator, device=background.device)
        return self.render(rays, background, jitter=jitter, draws=generator)

    def density_weights(self) -> list[Tensor]:
        return list(self.field.density_mlp.parameters())

    def next_n_rays(self, n_rays: int, n_samples: int, n_ranks: int) -> int:
        batch, sampler = self.config.batch, self.sampler
        wanted = n_rays * batch.n_samples / n_ranks / max(n_samples, 1)
        stretch = sampler.stretch * n_samples / n_rays / batch.n_samples_per_ray
        sampler.stretch = min(max(stretch, 1.0), LONGEST_STRETCH)
        return int(min(max(wanted, FEWEST_RAYS / n_ranks), 2 * n_rays, batch.n_rays_most / n_ranks))

    def render(self, rays: Rays, background: Tensor | None, **options: Any) -> RenderedBatch:
        return render_rays(self.field, self.sampler, rays, background, self.config.culling, **options)

    def pull(self) -> None:
        """For who reads the field or the grid themselves: bring torch's up to date, if they are learned elsewhere."""

    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool = False) -> Picture:
        return render_picture(self.field, self.sampler, rays, size, 0.0, self.config.culling, with_normals=with_normals)

    @torch.no_grad()
    def density(self, positions: Tensor) -> Tensor:
        """None in cells that the occupancy grid passes over, where nothing ever taught the field."""
        sampler, n = self.sampler, self.sampler.settings.resolution
        unit = unit_positions(positions, sampler.box, sampler.contraction)
        x, y, z = (unit * n).long().clamp(0, n - 1).unbind(-1)
        cell = x + n * (y + n * z)
        occupied = (sampler.bits[cell // 32] >> (cell % 32)) & 1
        density = torch.zeros_like(positions[:, 0])
        there = occupied.nonzero()[:, 0]
        if len(there):
            density[there] = self.field.glance(positions[there]).density
        return density

    def color(self, positions: Tensor, directions: Tensor) -> Tensor:
        return self.field(positions, directions)[1]


def compared(config: LossSettings, progress: float, shown: Shown, batch: RenderedBatch, spread: Tensor | None) -> Compared:
    """What the loss makes of it; `spread`: that of the weights along rays."""
    out = batch.rendered
    squared = (out.color.detach() - shown.truth).square().mean(-1)
    loss = losses.photometric(config.kind, out.color, shown.truth, shown.weight)
    if config.opacity_entropy:
        loss = loss + config.opacity_entropy * losses.opacity_entropy(out.opacity)
    if spread is not None:
        if config.spread_fit is not None:
            share = losses.explained(squared, shown.truth, shown.weight)
            spread = spread * ((share - config.spread_fit) / (1 - config.spread_fit)).clamp_min(0)
        loss = loss + config.spread * ramp(progress, config.spread_from) * spread
    if config.depth and shown.depth is not None:
        loss = loss + config.depth * losses.depth_error(out.depth, out.opacity, shown.depth, shown.depth > 0)
    return Compared(loss, squared, batch.n_marched, batch, batch.is_whole)


def contraction_of(config: NgpConfig, scene: SceneData) -> Contraction:
    return "sphere" if scene.bounds.unbounded and config.occupancy.n_cascades == 1 else "none"


def field_of(config: NgpConfig, scene: SceneData, box: Tensor, generator: torch.Generator) -> HashGridField:
    appearance = config.appearance
    field = replace(config.field, n_appearance=appearance.n_numbers) if appearance.enabled else config.field
    contraction, n_images = contraction_of(config, scene), len(scene.cameras)
    return HashGridField(field, box, contraction, n_images, generator, coarse_to_fine=config.poses.refine)


def seen_as(settings: AppearanceSettings, views: Tensor, generator: torch.Generator) -> Tensor | None:
    """[n] whose appearance the rays of a step have, which are of these views."""
    if not settings.enabled:
        return None
    of_none = random_numbers.uniform(len(views), generator=generator, device=views.device) < settings.dropout
    return views.masked_fill(of_none, OF_NO_IMAGE)


def sharpen(field: HashGridField, config: NgpConfig, progress: float) -> None:
    """Let another level in, where the cameras are corrected."""
    if config.poses.refine:
        field.sharpen(ramp(progress, config.poses.sharp_from))


def optimiser_of(config: NgpConfig, field: HashGridField) -> Adam:
    groups, options = groups_of(config, field)
    optimiser = Adam(groups, **options)
    field.watch(optimiser)
    return optimiser


def groups_of(config: NgpConfig, field: HashGridField) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parameters and what Adam is told beside them."""
    settings, networks = config.optimiser, [*field.density_mlp.parameters(), *field.color_mlp.parameters()]
    rate, network_rate = settings.learning_rate, settings.network_rate
    groups: list[dict[str, Any]] = [
        {"name": "table", "params": [field.table], "first_lr": rate, "weight_decay": settings.table_decay},
        {"name": "networks", "params": networks, "first_lr": network_rate, "weight_decay": settings.mlp_decay},
    ]
    if field.appearance.numel():
        groups.append({"name": "appearance", "params": [field.appearance], "first_lr": network_rate})
    return groups, {"lr": rate, "betas": (settings.beta1, settings.beta2), "eps": settings.epsilon, "fused": True}


def rate_at(config: NgpConfig, progress: float) -> float:
    return late_decay(progress, config.optimiser.decay_from, config.optimiser.final_share)


def _forget_rooms(model: NgpModel, _: Any) -> None:
    """By name, for pickle. A state that was loaded may see a hundredth of the samples that the one before it saw."""
    if model.rooms is not None:
        model.rooms.forget()
