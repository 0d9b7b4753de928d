"""A field of your own in 40 lines, trained by the project's trainer: Plenoxels' idea, a dense grid and no network at all.

taichi-nerf scene make objects --out scene
python examples/my_field.py scene --out my_field.png
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from taichi_nerf import start
from taichi_nerf.export.colors import side_by_side
from taichi_nerf.export.files import write_png
from taichi_nerf.fields.field import Field, Glance
from taichi_nerf.fields.space import unit_positions
from taichi_nerf.ops.spherical_harmonics import spherical_harmonics
from taichi_nerf.ops.voxel_grid import sample_voxel_grid
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.ngp_model import NgpModel
from taichi_nerf.training.pictures import over, picture_of_view, truth_of_view
from taichi_nerf.training.scene_files import open_scene
from taichi_nerf.training.trainer import Trainer


class VoxelField(Field):
    """Density, and per color channel four spherical harmonics of the direction, at the nodes of a grid (Yu et al. 2022)."""

    def __init__(self, box: torch.Tensor, resolution: int):
        super().__init__()
        self.register_buffer("box", box)
        self.density = nn.Parameter(torch.zeros((resolution,) * 3 + (1,)))
        self.harmonics = nn.Parameter(torch.zeros((resolution,) * 3 + (12,)))

    def forward(self, positions, directions, image_ids=None, features=None):
        at = unit_positions(positions, self.box, "none")
        density = nn.functional.softplus(20 * sample_voxel_grid(at, self.density)[:, 0])
        harmonics = sample_voxel_grid(at, self.harmonics).view(-1, 3, 4)
        color = (harmonics * spherical_harmonics(directions, degree=1)[:, None]).sum(-1)
        return density, torch.sigmoid(5 * color)

    @torch.no_grad()
    def glance(self, positions):
        at = unit_positions(positions, self.box, "none")
        return Glance(nn.functional.softplus(20 * sample_voxel_grid(at, self.density)[:, 0]), None)


class VoxelModel(NgpModel):
    """instant-ngp's way of training, with this field in the place of its own."""

    def __init__(self, config, scene, device, resolution):
        super().__init__(config, scene, device)
        self.field = VoxelField(self.box.clone(), resolution).to(device)

    def optimiser(self):
        groups = [{"name": "grid", "params": list(self.field.parameters()), "first_lr": 0.03}]
        return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)

    def density_weights(self):
        return []


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("scene", type=Path)
parser.add_argument("--out", type=Path, default="my_field.png")
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--resolution", type=int, default=96)
arguments = parser.parse_args()

device = start("auto").torch_device
settings = SceneSettings(str(arguments.scene.resolve()))
scene = open_scene(settings)
config, _ = methods.choose(scene, settings, RunSettings(steps=arguments.steps), device)
trainer = Trainer(config, scene, device, model=VoxelModel(config, scene, device, arguments.resolution))
while not trainer.is_done:
    step = trainer.step()
    if step.step % 100 == 0:
        print(f"step {step.step}: {step.psnr:.1f} dB in this batch")

view = int(scene.splits["test"][0])
color, alpha, _ = truth_of_view(scene, view, masks_are_alpha=False)
white = torch.ones_like(color)
truth = over(color * alpha[..., None], alpha, white)
seen = picture_of_view(trainer.model.eval(), view, scene.cameras.sizes[view])
seen = over(seen.color.cpu(), seen.opacity.cpu(), white)
print(f"{-10 * (seen - truth).square().mean().log10():.2f} dB on a view that was held out: {arguments.out}")
write_png(arguments.out, side_by_side([truth, seen]))
