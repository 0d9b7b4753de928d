"""The ops alone, under a model and a training loop of your own: no trainer, no field of ours, no settings.

    python examples/own_model.py --out own_model.png

What is yours here: an ordinary torch network, the loop, the optimiser. What is used: rays of cameras, a hash encoding, the
occupancy grid that skips empty space and asks any function for density, and compositing.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from taichi_nerf import start
from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.export.colors import side_by_side
from taichi_nerf.export.files import write_png
from taichi_nerf.ops import hash_grid
from taichi_nerf.ops.compositing import composite_rays
from taichi_nerf.ops.ray_marching import sample_positions
from taichi_nerf.procedural import make_scene
from taichi_nerf.rays import Rays
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler, OccupancySettings
from taichi_nerf.scenes import load_scene

LAYOUT = {"n_levels": 8, "base_resolution": 8, "max_resolution": 96, "log2_table_size": 14}


class MyModel(nn.Module):
    """Density and color of points of the box [-1, 1]³, seen from everywhere alike: a hash table and a small network."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(hash_grid.initialise_table(**LAYOUT, n_features=2))
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, positions):
        numbers = self.layers(hash_grid.hash_grid((positions + 1) / 2, self.table, **LAYOUT))
        return nn.functional.softplus(10 * numbers[:, 0]), numbers[:, 1:].sigmoid()


def render(rays: Rays, background: torch.Tensor, jitter: torch.Tensor | None = None) -> torch.Tensor:  # [n_rays, 3]
    samples = grid(rays, jitter)
    density, color = model(sample_positions(rays.origins, rays.directions, *samples))
    return composite_rays(density, color, samples.t_starts, samples.t_ends, samples.spans, background).color


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default="own_model.png")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--size", type=int, default=100)
arguments = parser.parse_args()

device = start("auto").torch_device
torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    scene = load_scene(make_scene("objects", f"{folder}/scene", n_views=40, n_val=0, n_test=1, size=arguments.size, n_samples=2))
    pictures = torch.from_numpy(np.stack(list(scene.images))).to(device) / 255  # [n_views, h, w, 4], colors and alpha
cameras = CameraRig(scene.cameras).to(device)
training, (test,) = torch.from_numpy(scene.splits["train"]).to(device), scene.splits["test"]

model = MyModel().to(device)
box = torch.tensor([[-1.0] * 3, [1.0] * 3], device=device)
grid = OccupancyGridSampler(OccupancySettings(resolution=64, step_size=0.04), box, "none", scene.bounds.near, scene.bounds.far)
optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, arguments.steps)

for step in range(arguments.steps):
    if step % 16 == 0:  # cells that turned out empty are skipped from now on
        grid.update(lambda at: model(at)[0], 1.0 if step < 128 else 0.25, torch.default_generator)
    n = 1024
    views = training[torch.randint(len(training), (n,))]
    x, y = torch.randint(arguments.size, (2, n), device=device)
    rays = cameras.rays(torch.stack([x, y], -1) + 0.5, views.int())
    truth, background = pictures[views, y, x], torch.rand(n, 3, device=device)
    truth = torch.lerp(background, truth[:, :3], truth[:, 3:])
    loss = (render(rays, background, torch.rand(n, device=device)) - truth).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    if step % 250 == 0:
        print(f"step {step}: loss {loss.item():.4f}, {grid.thickness.gt(0.01).float().mean():.1%} of the cells hold something")

y, x = torch.meshgrid(torch.arange(arguments.size), torch.arange(arguments.size), indexing="ij")
pixels = torch.stack([x, y], -1).reshape(-1, 2) + 0.5
with torch.no_grad():
    rays = cameras.rays(pixels.to(device), torch.full((len(pixels),), int(test), dtype=torch.int32, device=device))
    seen = render(rays, torch.ones(len(pixels), 3, device=device)).view(arguments.size, arguments.size, 3)
truth = torch.lerp(torch.ones(3, device=device), pictures[test, ..., :3], pictures[test, ..., 3:])
print(f"{-10 * (seen - truth).square().mean().log10():.2f} dB on a view that was held out: {arguments.out}")
write_png(arguments.out, side_by_side([truth, seen]))
