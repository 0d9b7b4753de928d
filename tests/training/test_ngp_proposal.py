"""The hash grid under proposals, on eight views of a ball."""

import pytest
import torch
from ball_scene import views_of_ball

from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.settings import SettingsError
from taichi_nerf.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = ["batch.n_samples=4096", "field.n_levels=6", "field.log2_table_size=12", "field.n_hidden=16", "field.precision=float32",
         "sampler.kind=proposal", "proposal.n_proposed=32,24", "proposal.n_samples=16", "density.log2_table_size=10"]  # fmt: skip


def trainer(*settings, unbounded=False, steps=150):
    from dataclasses import replace

    scene, _ = views_of_ball()
    scene = replace(scene, bounds=replace(scene.bounds, unbounded=unbounded))
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings(steps=steps), CPU)
    return Trainer(methods.changed(config, [*SMALL, *settings]), scene, CPU)


@pytest.mark.parametrize("settings", [[], ["loss.spread=0.01", "appearance.enabled=true"], ["poses.refine=true"]])
def test_it_learns_and_resumes_to_the_bit(cpu, settings):
    whole, first, second = (trainer(*settings) for _ in range(3))
    losses = [whole.step().loss for _ in range(50)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    [first.step() for _ in range(20)]
    second.load_state_dict(first.state_dict(copied=True))
    assert [second.step().loss for _ in range(5)] == losses[20:25]


def test_it_learns_a_scene_that_goes_on(cpu):
    made = trainer(unbounded=True)
    figures = [made.step().psnr for _ in range(100)]
    assert sum(figures[-10:]) / 10 > sum(figures[:10]) / 10 + 1


def test_proposals_learn_where_the_ball_is(cpu):
    """After 150 steps most samples of rays through its middle lie within a fifth of its surface."""
    made = trainer()
    [made.step() for _ in range(150)]
    rays = made.model.rig.rays(torch.tensor([[16.0, 16.0], [14.0, 17.0]]), torch.zeros(2, dtype=torch.int32))
    samples = made.model._propose(rays, None).samples
    of = samples.ray_indices.long()
    middles = rays.origins[of] + ((samples.t_starts + samples.t_ends) / 2)[:, None] * rays.directions[of]
    near = (middles.norm(dim=-1) - 0.5).abs() < 0.2
    assert near.float().mean() > 0.5
    picture = made.model.picture(rays, (2, 1), with_normals=True)
    assert (picture.opacity > 0.9).all()
    assert made.model.density(torch.tensor([[0.74, 0.74, 0.74], [0.0, 0.0, 0.45]])).shape == (2,)


def test_settings_that_the_sampler_does_not_look_at_are_errors():
    scene, _ = views_of_ball()
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings(), CPU)
    for settings in (["proposal.n_samples=8"], ["sampler.kind=proposal", "grid.every=4"], ["density.n_levels=3"]):
        with pytest.raises(SettingsError, match="has no effect"):
            methods.changed(config, settings)
    assert methods.changed(config, ["grid.every=4"]).grid.every == 4
