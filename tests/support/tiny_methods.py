"""Each method at a size that trains on eight views of a ball in no time."""

import torch
from ball_scene import views_of_ball

from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.trainer import Trainer

CPU = torch.device("cpu")
TINY = {
    "ngp": ["batch.n_samples=4096", "field.n_levels=4", "field.log2_table_size=12", "occupancy.resolution=32"],
    "ngp, proposals": ["sampler.kind=proposal", "batch.n_samples=1024", "field.n_levels=4", "field.log2_table_size=12",
                       "proposal.n_proposed=12", "proposal.n_samples=8", "density.log2_table_size=10"],
    "nerf": ["batch.n_rays=64", "nerf.n_samples=8", "nerf.n_samples_fine=8", "field.n_layers=2", "field.n_hidden=16"],
    "mipnerf": ["batch.n_rays=64", "mipnerf.n_samples=8", "field.n_layers=2", "field.n_hidden=16"],
    "mipnerf360": ["batch.n_rays=64", "proposal.n_proposed=8", "proposal.n_samples=8", "field.n_layers=2", "field.n_hidden=16",
                   "density.n_layers=2", "density.n_hidden=16"],
}  # fmt: skip


def configured(method, scene, *settings, steps=20):
    run = RunSettings(method.partition(",")[0], steps=steps)
    config, _ = methods.choose(scene, SceneSettings("ball"), run, CPU)
    return methods.changed(config, [*TINY[method], *settings])


def trainer(method, scene=None, *settings, steps=20):
    scene = views_of_ball()[0] if scene is None else scene
    return Trainer(configured(method, scene, *settings, steps=steps), scene, CPU)
