"""A radiance field with all that rendering it takes: field, sampler, cameras."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.fields.hash_grid_field import HashGridField
from taichi_nerf.fields.space import Contraction
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import RenderedBatch, render_rays
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import Config


class Model(nn.Module):
    def __init__(self, config: Config, scene: SceneData, device: torch.device):
        super().__init__()
        generator = torch.Generator().manual_seed(config.run.seed)
        box = torch.tensor(scene.bounds.box, dtype=torch.float32)
        contraction: Contraction = "sphere" if scene.bounds.unbounded and config.occupancy.n_cascades == 1 else "none"
        self.config = config
        appearance = config.appearance
        field = replace(config.field, n_appearance=appearance.n_numbers) if appearance.enabled else config.field
        self.field = HashGridField(field, box, contraction, len(scene.cameras), generator)
        near, far = scene.bounds.near, scene.bounds.far
        self.sampler = OccupancyGridSampler(config.occupancy, box, contraction, near, far)
        self.rig = CameraRig(scene.cameras, config.poses.refine, config.poses.intrinsics)
        self.to(device)

    def leave_out_unseen(self, scene: SceneData, views: list[int]) -> None:
        """Take the space that none of these views shows for empty."""
        chosen = torch.tensor(views, device=self.rig.models.device)
        sizes = torch.tensor(np.asarray(scene.cameras.sizes), dtype=torch.int32, device=chosen.device)
        self.sampler.leave_out_unseen(self.rig.camera_to_worlds[chosen], self.rig.intrinsics[chosen], sizes[chosen])

    def render(self, rays: Rays, background: Tensor | None, **options: object) -> RenderedBatch:
        return render_rays(self.field, self.sampler, rays, background, self.config.culling, **options)  # type: ignore[arg-type]
