"""`--method nerf` on eight views of a ball: against plain torch, as a training, and as a run."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small_run
import torch
from ball_scene import views_of_ball
from torch import nn
from torch.testing import assert_close

from taichi_nerf.metrics import psnr
from taichi_nerf.rays import Rays
from taichi_nerf.scenes.images import Images
from taichi_nerf.scenes.scene_data import Frustum
from taichi_nerf.settings import SettingsError, apply_settings, from_json_dict, to_json_dict
from taichi_nerf.training import methods
from taichi_nerf.training.config import PoseSettings, RunSettings, SceneSettings
from taichi_nerf.training.evaluate import compare
from taichi_nerf.training.model import Shown
from taichi_nerf.training.nerf_config import PRESETS, NerfConfig
from taichi_nerf.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = ["batch.n_rays=128", "nerf.n_samples=16", "nerf.n_samples_fine=16", "field.n_layers=3", "field.n_hidden=32",
         "field.skip_after=1", "encoding.n_frequencies=4", "field.precision=float32"]  # fmt: skip
PUBLISHED = ["nerf.within_box=false", "nerf.endless=true", "field.density=relu"]


def configured(scene, *settings, preset="small", **run):
    run = RunSettings(method="nerf", preset=preset, **{"steps": 300, **run})
    config, _ = methods.choose(scene, SceneSettings("ball"), run, CPU)
    return apply_settings(config, [*SMALL, *settings])


def forward_facing(scene):
    """The same with a frustum: the cameras look along x, at all that is more than one away."""
    pose = np.array([[0.0, 0, 1, -2.5], [-1, 0, 0, 0], [0, -1, 0, 0]])
    bounds = replace(scene.bounds, unbounded=True, forward_facing=True)
    return replace(scene, ndc=Frustum(pose, np.array([1.4, 1.4]), 1.0), bounds=bounds, masks=None)


# --- against plain torch ------------------------------------------------------------------------------------------------


def published(model, rays, t, field, background):
    """Render as the published code does it: dense, by cumulative products."""
    positions = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    directions = rays.directions[:, None].expand_as(positions)
    density, color = (x.view(*t.shape, -1) for x in field(positions.reshape(-1, 3), directions.reshape(-1, 3)))
    gaps = torch.cat([t.diff(), torch.full_like(t[:, :1], 1e10)], -1)
    alpha = 1 - torch.exp(-density[..., 0] * gaps)
    light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)[:, :-1]
    weights = alpha * light
    return (weights[..., None] * color).sum(1) + (1 - weights.sum(1, keepdim=True)) * background, weights


def invert(edges, weights, n):
    """Where the histogram's distribution function is 0, 1/(n-1), …, 1."""
    share = (weights + 1e-5) / (weights + 1e-5).sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(share[:, :1]), share.cumsum(-1)], -1)
    u = torch.linspace(0, 1, n)
    return torch.stack([torch.from_numpy(np.interp(u, c, e)).float() for c, e in zip(cdf, edges, strict=True)])


def test_a_picture_is_the_published_procedures(cpu):
    """Stratified and hierarchical samples, two networks, an endless last interval. Measured: 3e-6."""
    scene, _ = views_of_ball()
    made = Trainer(configured(scene, *PUBLISHED), scene, CPU)
    [made.step() for _ in range(20)]
    model = made.model
    pixels = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 32
    rays = model.rig.rays(pixels, torch.zeros(60, dtype=torch.int32))
    black = torch.zeros(60, 3)
    with torch.no_grad():
        t = torch.linspace(scene.bounds.near, scene.bounds.far, 16).expand(60, -1)
        _, weights = published(model, rays, t, model.coarse, black)
        drawn = invert((t[:, 1:] + t[:, :-1]) / 2, weights[:, 1:-1], 16)
        color, _ = published(model, rays, torch.cat([t, drawn], -1).sort(-1).values, model.fine, black)
        picture = model.picture(rays, (60, 1))
    assert_close(picture.color[0], color.clamp(0, 1), atol=2e-4, rtol=0)


def test_the_loss_is_the_sum_of_both_networks_squared_errors(cpu):
    scene, _ = views_of_ball()
    model = Trainer(configured(scene, *PUBLISHED), scene, CPU).model
    n = 30
    generator = torch.Generator().manual_seed(5)
    rays = model.rig.rays(torch.rand(n, 2, generator=generator) * 32, torch.zeros(n, dtype=torch.int32))
    shown = Shown(rays, torch.zeros(n, dtype=torch.int32), torch.rand(n, 3, generator=generator), torch.ones(n, 3), None, None)
    compared = model.compare(shown, torch.Generator().manual_seed(9))
    coarse, fine, n_samples = model._levels(model._cast(rays), shown.background, torch.Generator().manual_seed(9))
    errors = [(level.rendered.color[:, :3] - shown.truth).square().mean() for level in (coarse, fine)]
    assert_close(compared.loss, sum(errors))
    assert compared.n_samples == n_samples == n * (16 + 32)


def test_rays_that_miss_the_box_cost_nothing_and_show_the_background(cpu):
    scene, _ = views_of_ball()
    model = Trainer(configured(scene), scene, CPU).model
    rays = model.rig.rays(torch.tensor([[16.0, 16], [0.5, 0.5]]), torch.zeros(2, dtype=torch.int32))
    away = rays._replace(directions=torch.stack([rays.directions[0], -rays.directions[1]]))
    background = torch.tensor([[0.0, 0, 0], [0.6, 0.6, 0.6]])
    shown = Shown(away, torch.zeros(2, dtype=torch.int32), torch.zeros(2, 3), background, None, None)
    compared = model.compare(shown, torch.Generator().manual_seed(0))
    assert compared.n_samples == 16 + 32
    assert compared.squared[1].item() == pytest.approx(0.36)


@pytest.mark.parametrize("disparity", [False, True])
def test_first_samples_are_even_in_distance_or_in_its_inverse(cpu, disparity):
    scene, _ = views_of_ball()
    model = Trainer(configured(scene, f"nerf.disparity={str(disparity).lower()}", "nerf.within_box=false"), scene, CPU).model
    rays = model.rig.rays(torch.tensor([[16.0, 16], [3, 5]]), torch.zeros(2, dtype=torch.int32))
    coarse, _, _ = model._levels(model._cast(rays), torch.zeros(2, 3), None)
    even = torch.linspace(1, 1 / 4.5, 16) if disparity else torch.linspace(1, 4.5, 16)
    t = coarse.samples.t_starts.view(2, 16)
    assert_close(1 / t if disparity else t, even.expand(2, -1), rtol=1e-5, atol=1e-5)


# --- training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [[], PUBLISHED, ["nerf.n_samples_fine=0"], ["nerf.noise=0.1", "batch.one_view=true"],
                                      ["batch.crop_steps=30"], ["nerf.disparity=true", "nerf.within_box=false"]])  # fmt: skip
def test_it_learns_whatever_is_set(cpu, settings):
    scene, _ = views_of_ball()
    made = Trainer(configured(scene, "batch.background=white", *settings), scene, CPU)
    losses = [made.step().loss for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10]), (losses[:3], losses[-3:])


def test_it_learns_in_normalised_device_coordinates(cpu):
    """From cameras on one side of the ball."""
    scene, _ = views_of_ball(24)
    facing = [view for view in range(24) if scene.cameras.forwards[view][0] > 0.8]
    scene = forward_facing(replace(scene, splits={"train": np.array(facing)}))
    made = Trainer(configured(scene), scene, CPU)
    losses = [made.step().loss for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert made.model.density(torch.tensor([[-2.4, 0.0, 0.0]])).item() == 0  # before the near plane


def test_depth_is_in_scene_units_in_normalised_device_coordinates_too(cpu):
    """Of a wall at x = 0.3, which is at 1 - 2 / 2.8 there."""
    scene = forward_facing(views_of_ball()[0])
    model = Trainer(configured(scene, "nerf.n_samples=64"), scene, CPU).model
    for field in (model.coarse, model.fine):
        field.look = lambda at, seen_from, noise=None: (1e5 * (at[:, 2] > 1 - 2 / 2.8).float(), torch.ones_like(at))
    directions = nn.functional.normalize(torch.tensor([[1.0, 0, 0], [1, 0.3, 0.1], [-1, 0, 0]]), dim=-1)
    rays = Rays(torch.tensor([[-2.5, 0, 0], [-2.4, 0.1, 0], [-2.5, 0, 0]]), directions, torch.zeros(3))
    picture = model.picture(rays, (3, 1))
    assert_close(picture.depth[0, :2], torch.tensor([2.8, 2.7]) / directions[:2, 0], rtol=0.02, atol=0)
    assert picture.opacity[0].tolist() == [1, 1, 0]  # the last looks away


def test_light_that_a_capture_lets_through_is_no_light_in_its_pictures(cpu):
    """Of dark photographs, which are shown on white. Measured: 24 dB, and 0 if training puts black behind them."""
    scene, _ = views_of_ball()
    dark = Images([None] * 8, arrays=[scene.images[view][..., :3] // 8 for view in range(8)])
    scene = replace(scene, images=dark, masks=None, bounds=replace(scene.bounds, unbounded=True, far=20.0))
    config = configured(scene, preset="llff")
    made = Trainer(config, scene, CPU)
    trained = [made.step().psnr for _ in range(60)][-1]
    render, truth, *_ = compare(SimpleNamespace(scene=scene, config=config, model=made.model), 0)
    assert psnr(render, truth) > trained - 3


@pytest.mark.parametrize("method", ["nerf", "mipnerf", "mipnerf360"])
@pytest.mark.parametrize("unbounded", [False, True])
def test_training_puts_behind_pictures_what_they_are_shown_on(method, unbounded):
    """Or any color; whatever else it put there would be painted, or missing, in evaluation."""
    scene, _ = views_of_ball()
    scene = replace(scene, bounds=replace(scene.bounds, unbounded=unbounded))
    for preset in methods.METHODS[method].presets:
        for background in ("white", "black"):
            run = RunSettings(method, preset, steps=1, background=background)
            config, _ = methods.choose(scene, SceneSettings(""), run, CPU)
            assert config.batch.background in (background, "random")


def test_poses_are_corrected_through_the_encoding(cpu):
    scene, _ = views_of_ball(pose_error=0.05)
    made = Trainer(replace(configured(scene), poses=PoseSettings(refine=True)), scene, CPU)
    [made.step() for _ in range(3)]
    assert made.model.rig.shifts.abs().max() > 1e-4


def test_normals_of_a_learnt_ball_point_outwards(cpu):
    scene, _ = views_of_ball()
    made = Trainer(configured(scene), scene, CPU)
    [made.step() for _ in range(150)]
    rays = made.model.rig.rays(torch.tensor([[16.0, 16.0], [12.0, 14.0]]), torch.zeros(2, dtype=torch.int32))
    picture = made.model.picture(rays, (2, 1), with_normals=True)
    at = rays.origins + picture.depth[0][:, None] * rays.directions
    cosine = (nn.functional.normalize(at, dim=-1) * nn.functional.normalize(picture.normals[0], dim=-1)).sum(-1)
    assert (cosine > 0.6).all(), cosine
    assert made.model.color(at.detach(), -at.detach()).shape == (2, 3)


@pytest.mark.parametrize("method", ["nerf", "mipnerf", "mipnerf360"])
def test_normals_in_inference_mode_are_those_outside_of_it(cpu, method):
    scene, _ = views_of_ball()
    config, _ = methods.choose(scene, SceneSettings(""), RunSettings(method, "small", steps=1), CPU)
    made = methods.make_model(config, scene, CPU)
    rays = made.rig.rays(torch.tensor([[16.0, 16.0], [12.0, 14.0]]), torch.zeros(2, dtype=torch.int32))
    wanted = made.picture(rays, (2, 1), with_normals=True).normals
    with torch.inference_mode():
        found = made.picture(Rays(*(part.clone() for part in rays)), (2, 1), with_normals=True).normals
    assert wanted.any()
    assert torch.equal(found, wanted)


# --- settings and runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("facing", [False, True])
def test_every_preset_survives_being_written_and_trains(cpu, preset, facing):
    scene, _ = views_of_ball()
    scene = forward_facing(scene) if facing else scene
    run = RunSettings(method="nerf", preset=preset)
    config, notes = methods.choose(scene, SceneSettings("ball"), run, CPU)
    assert from_json_dict(NerfConfig, to_json_dict(config)) == config
    assert methods.config_class(to_json_dict(config)) is NerfConfig
    assert config.run.preset in notes[0]
    assert config.nerf.ndc == (facing and preset in ("llff", "jaxnerf", "small", "default"))
    few = ["batch.n_rays=4", "field.n_hidden=16", "nerf.n_samples=8", "nerf.n_samples_fine=8"]
    assert Trainer(apply_settings(config, few), scene, CPU).step().loss > 0


def test_the_published_presets_have_the_published_figures():
    scene, _ = views_of_ball()
    found = {name: methods.choose(scene, SceneSettings(""), RunSettings("nerf", name), CPU)[0] for name in PRESETS}
    rays = {name: config.batch.n_rays for name, config in found.items()}
    assert (rays["blender"], rays["llff"], rays["deepvoxels"], rays["jaxnerf"]) == (1024, 4096, 4096, 1024)
    for name in ("blender", "llff", "deepvoxels", "jaxnerf"):
        config = found[name]
        assert (config.nerf.n_samples, config.nerf.n_samples_fine, config.optimiser.first_rate) == (64, 128, 5e-4)
        assert (config.encoding.n_frequencies, config.encoding.n_view_frequencies) == (10, 4)
    assert (found["blender"].run.steps, found["llff"].run.steps) == (500_000, 200_000)
    assert (found["blender"].batch.one_view, found["blender"].batch.crop_steps) == (True, 500)
    assert (found["llff"].nerf.noise, found["jaxnerf"].optimiser.final_rate) == (1.0, 5e-6)
    facing, _ = methods.choose(forward_facing(scene), SceneSettings(""), RunSettings("nerf", "jaxnerf"), CPU)
    of_object = found["jaxnerf"].batch  # batching: single_image, and no crop, in its blender.yaml; all_images in its llff.yaml
    assert (of_object.one_view, of_object.crop_steps, facing.batch.one_view) == (True, 0, False)
    assert Trainer(found["blender"], scene, CPU).model.coarse.network.layers[0].in_features == 63


def test_a_setting_of_another_method_and_an_unknown_preset_are_errors():
    scene, _ = views_of_ball()
    with pytest.raises(SettingsError, match=r"occupancy\.resolution: no such setting"):
        configured(scene, "occupancy.resolution=32")
    with pytest.raises(SettingsError, match=r"method nerf has no such preset.*nerf: default, blender, llff"):
        methods.choose(scene, SceneSettings(""), RunSettings("nerf", "quality"), CPU)
    with pytest.raises(SettingsError, match=r"--method nrf: there is no such method. There are ngp, nerf, mipnerf, mipnerf360"):
        methods.choose(scene, SceneSettings(""), RunSettings(method="nrf"), "cpu")
    with pytest.raises(SettingsError, match="not with disparity or within_box"):
        configured(scene, "nerf.ndc=true")
    with pytest.raises(ValueError, match="views that face one way"):
        Trainer(configured(scene, "nerf.ndc=true", "nerf.within_box=false"), scene, CPU)


@pytest.mark.parametrize(
    ("setting", "switch", "why"),
    [
        ("batch.crop_share=0.1", "batch.crop_steps=3", "without batch.crop_steps"),
        ("optimiser.delay=0.5", "optimiser.delay_factor=0.1", "without an optimiser.delay_factor below 1"),
        ("optimiser.delay_factor=0.1", "optimiser.delay=0.5", "without optimiser.delay"),
        ("poses.sharp_from=0.9", None, "with a method that has no hash grid"),
    ],
)
def test_a_setting_is_an_error_where_training_would_be_the_same_without_it(cpu, setting, switch, why):
    scene, _ = views_of_ball()
    of_poses = ["poses.refine=true"] if setting.startswith("poses") else []

    def learnt(*settings):
        trainer = Trainer(configured(scene, *of_poses, *settings, steps=3), scene, CPU)
        while not trainer.is_done:
            trainer.step()
        return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])

    assert torch.equal(learnt(setting), learnt())
    with pytest.raises(SettingsError) as caught:
        methods.changed(configured(scene), [*of_poses, setting])
    assert str(caught.value) == f"{setting}: has no effect {why}"
    if switch is not None:
        assert not torch.equal(learnt(setting, switch), learnt(switch))
        methods.changed(configured(scene), [setting, switch])


def test_a_run_resumes_to_the_bit_and_is_evaluated_rendered_and_exported(cpu, small_scene, tmp_path):
    from taichi_nerf.training.checkpoint import load_checkpoint
    from taichi_nerf.training.evaluate import evaluate
    from taichi_nerf.training.export_run import mesh_of_run
    from taichi_nerf.training.render_path import cameras_of_path, frames
    from taichi_nerf.training.run import load_run
    from taichi_nerf.training.scene_files import open_scene

    settings = SceneSettings(str(small_scene))
    scene = open_scene(settings)
    config, _ = methods.choose(scene, settings, RunSettings("nerf", "small", steps=60), CPU)
    config = apply_settings(config, SMALL)
    small_run.trained(tmp_path / "whole", config, scene)
    assert small_run.trained(tmp_path / "parts", config, scene, stop_after=23).stopped
    small_run.trained(tmp_path / "parts", config, scene, resume=True)
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0]["model"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    run = load_run(tmp_path / "parts", CPU)
    assert evaluate(run)["psnr"] > 12
    assert json.loads((tmp_path / "parts/config.json").read_text())["settings"]["run"]["method"] == "nerf"
    cameras, _ = cameras_of_path(scene, "orbit", 2, 24)
    shown = [picture for _, picture in frames(run, cameras, range(2), ("color", "depth", "opacity", "normals"))]
    assert shown[0].shape == (24, 4 * 24, 3)
    assert len(mesh_of_run(run, 24, threshold=0.5).faces) > 0
