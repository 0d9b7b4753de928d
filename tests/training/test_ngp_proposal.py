"""The hash grid under proposals, on eight views of a ball."""

import pytest
import torch
from ball_scene import views_of_ball
from resuming import expect_to_learn_and_resume

from taichi_nerf.settings import SettingsError
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
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


@pytest.mark.parametrize(
    "settings", [[], ["loss.spread=0.01", "loss.spread_fit=none", "appearance.enabled=true"], ["poses.refine=true"]]
)
def test_it_learns_and_resumes_to_the_bit(cpu, settings):
    expect_to_learn_and_resume(lambda: trainer(*settings), 0.7)


def test_networks_learn_at_their_share_of_the_rate(cpu):
    """Of an object at a quarter, which the schedule then scales; of a scene that goes on at the whole."""

    def rates(made):
        made.step()
        return {group["name"]: group["lr"] for group in made.optimiser.param_groups}

    object_s, halved, whole = rates(trainer()), rates(trainer("proposal.network_share=0.5")), rates(trainer(unbounded=True))
    assert object_s["networks"] == pytest.approx(0.25 * object_s["table"])
    assert halved["networks"] == pytest.approx(0.5 * halved["table"])
    assert whole["networks"] == pytest.approx(whole["table"])


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


def test_culled_samples_are_missing_from_no_picture(cpu):
    """Pictures are those of the field at all proposed samples, but for weights that are too small to see."""
    made = trainer("proposal.least_opacity=0.0", "proposal.network_share=1.0")  # of thin fog all weights are too small
    [made.step() for _ in range(60)]
    model, n = made.model, 200
    pixels = 32 * torch.rand(n, 2, generator=torch.Generator().manual_seed(1))
    rays = model.rig.rays(pixels, torch.zeros(n, dtype=torch.int32))
    proposed = model._propose(rays, None)
    samples, rows = proposed.samples, proposed.which[proposed.samples.ray_indices.long()]
    middles = rays.origins[rows] + ((samples.t_starts + samples.t_ends) / 2)[:, None] * rays.directions[rows]
    with torch.no_grad():
        density, color = model.field(middles, rays.directions[rows])
        thickness = (density * (samples.t_ends - samples.t_starts)).view(len(proposed.which), -1)
        light = torch.exp(-torch.cat([torch.zeros_like(thickness[:, :1]), thickness.cumsum(-1)], -1))
        weights = light[:, :-1] - light[:, 1:]
        expected = torch.zeros(n, 3)
        expected[proposed.which] = (weights[..., None] * color.view(*weights.shape, 3)).sum(1)
        batch = model.look(rays, torch.zeros(n, 3), torch.Generator().manual_seed(1))
        picture = model.picture(rays, (n, 1))
    assert (picture.color[0] - expected.clamp(0, 1)).abs().max() < 0.02  # 24 weights below 1e-3
    assert (picture.color[0] - expected).abs().mean() < 1e-3
    assert (batch.samples.spans[:, 1] == torch.bincount(batch.samples.ray_indices.long(), minlength=n)).all()


def test_pictures_look_closer_than_training_does(cpu):
    """More samples on a ray, of twice as many proposed intervals; never fewer than in training."""
    for chosen, expected in (("proposal.n_shown=40", 40), ("proposal.n_shown=4", 16)):
        model = trainer(chosen).model
        rays = model.rig.rays(torch.tensor([[16.0, 16.0], [14.0, 17.0]]), torch.zeros(2, dtype=torch.int32))
        shown, learnt = model._propose(rays, None), model._propose(rays, torch.Generator().manual_seed(0))
        assert (shown.edges.shape, learnt.edges.shape) == ((2, expected + 1), (2, 17))
        assert [each.weights.shape[1] for each in shown.proposals] == [64, 48]
        assert [each.weights.shape[1] for each in learnt.proposals] == [32, 24]


def test_proposals_learn_in_fewer_and_fewer_steps(cpu):
    made = trainer("proposal.learn_every=3")
    model = made.model

    def learns(n_steps):
        model.before_step(n_steps, 0.5, made.generator)
        before = model.proposals[0].table.detach().clone()
        made.optimiser.zero_grad()
        made.compare(made.draw(200)).loss.backward()
        assert (model.proposals[0].table == before).all()
        return model.proposals[0].table.grad is not None

    assert [learns(n) for n in range(3)] == [True] * 3
    assert [learns(n) for n in range(3000, 3006)] == [True, False, False] * 2


def test_what_is_near_a_camera_is_learned_less():
    """All that is seen is near, if near is far enough: nothing learns much then, and the loss is what it was."""

    def learned(*settings):
        made = trainer(*settings, unbounded=True)
        made.optimiser.zero_grad()
        found = made.compare(made.draw(200)).loss
        found.backward()
        return found.item(), [weight.grad.norm() for weight in (made.model.field.table, *made.model.field.color_mlp.parameters())]

    (loss, whole), (same, faded) = learned(), learned("proposal.near_fade=1e4")
    assert loss == same
    for before, after in zip(whole, faded, strict=True):
        assert 0 < after < 1e-2 * before


def test_settings_that_the_sampler_does_not_look_at_are_errors():
    scene, _ = views_of_ball()
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings(), CPU)
    under = "sampler.kind=proposal"
    idle = (["proposal.n_samples=8"], [under, "grid.every=4"], ["density.n_levels=3"], [under, "batch.n_samples_per_ray=9"])
    for settings in (*idle, [under, "density.precision=bfloat16"]):
        with pytest.raises(SettingsError, match="has no effect"):
            methods.changed(config, settings)
    assert methods.changed(config, ["grid.every=4"]).grid.every == 4


@pytest.mark.parametrize(
    ("setting", "switch", "why"),
    [
        ("prior.weight=1.0", "prior.file=builtin", "without a prior (--prior)"),
        ("geometry.on_patches=true", "geometry.opacity=0.001", "without geometric terms (--geometry)"),
        ("appearance.dropout=0.1", "appearance.enabled=true", "without appearance.enabled=true"),
        ("poses.learning_rate=1.0", "poses.refine=true", "without poses.refine=true"),
        ("poses.until=0.5", "poses.intrinsics=true", "without poses.refine=true"),
        ("poses.sharp_from=0.5", "poses.refine=true", "without poses.refine=true"),
        ("loss.spread_from=0.5", "loss.spread=0.01", "without loss.spread"),
        ("occupancy.max_step=0.5", "occupancy.cone_angle=0.01", "without occupancy.cone_angle"),
    ],
)
def test_settings_of_what_is_off_are_errors(setting, switch, why):
    scene, _ = views_of_ball()
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings(), CPU)
    with pytest.raises(SettingsError) as caught:
        methods.changed(config, [setting])
    assert str(caught.value) == f"{setting}: has no effect {why}"
    assert methods.changed(config, [setting, switch]) != methods.changed(config, [switch])
