"""A loss of your own: depth that hardly changes from a pixel to the next, where nobody looked (RegNeRF, Niemeyer et al. 2022).

    taichi-nerf scene make objects --out scene
    python examples/my_loss.py scene --out my_loss.png

Trains twice on four views, without and with the term, and shows the depth that a view which was held out has then.
"""

import argparse
from pathlib import Path

import torch

from taichi_nerf import Rays, start
from taichi_nerf.export.colors import color_depth, side_by_side
from taichi_nerf.export.files import write_png
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.pictures import over, picture_of_view, truth_of_view
from taichi_nerf.training.scene_files import open_scene
from taichi_nerf.training.terms import Term
from taichi_nerf.training.trainer import Trainer


class SmoothDepth(Term):
    """Squared differences of depth between neighbours, in small patches seen by any of the scene's cameras."""

    def __init__(self, weight: float, sizes: torch.Tensor, n_patches: int = 8, side: int = 8):
        self.weight, self.sizes, self.n_patches, self.side = weight, sizes, n_patches, side

    def __call__(self, moment):
        rig, n = moment.model.rig, self.n_patches
        # Any camera of the scene will do: its pose is known, its picture is not looked at.
        views = torch.randint(len(rig.models), (n,), generator=moment.generator)
        corner = torch.rand(n, 2, generator=moment.generator) * (self.sizes[views] - self.side)
        inside = torch.cartesian_prod(torch.arange(self.side), torch.arange(self.side)).flip(-1)
        pixels = (corner[:, None] + inside + 0.5).view(-1, 2).to(rig.models.device)
        rays = rig.rays(pixels, views.repeat_interleave(self.side**2).int().to(pixels.device))
        black = torch.zeros_like(rays.origins)
        out = moment.model.look(Rays(*rays), black, moment.generator).rendered
        depth = out.depth.view(n, self.side, self.side)
        return self.weight * (
            (depth[:, 1:] - depth[:, :-1]).square().mean() + (depth[:, :, 1:] - depth[:, :, :-1]).square().mean()
        )


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("scene", type=Path)
parser.add_argument("--out", type=Path, default="my_loss.png")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--weight", type=float, default=0.1)
arguments = parser.parse_args()

device = start("auto").torch_device
settings = SceneSettings(str(arguments.scene.resolve()), n_views=4)
scene = open_scene(settings)
config, _ = methods.choose(scene, settings, RunSettings(steps=arguments.steps), device)
view = int(scene.splits["test"][0])
color, alpha, _ = truth_of_view(scene, view, masks_are_alpha=False)
white = torch.ones_like(color)
truth = over(color * alpha[..., None], alpha, white)

shown = []
for name, terms in (("without", []), ("with", [SmoothDepth(arguments.weight, torch.as_tensor(scene.cameras.sizes))])):
    trainer = Trainer(config, scene, device, terms=terms)
    while not trainer.is_done:
        trainer.step()
    seen = picture_of_view(trainer.model.eval(), view, scene.cameras.sizes[view])
    opacity, depth = seen.opacity.cpu(), seen.depth.cpu()
    color = over(seen.color.cpu(), opacity, white)
    solid = (opacity > 0.5)[1:] & (opacity > 0.5)[:-1]
    roughness = (depth[1:] - depth[:-1])[solid].abs().mean()
    print(f"{name} the term: {-10 * (color - truth).square().mean().log10():.2f} dB, roughness of depth {roughness:.4f}")
    shown += [color, color_depth(depth, scene.bounds.near, scene.bounds.far, opacity)]
write_png(arguments.out, side_by_side([truth, *shown]))
