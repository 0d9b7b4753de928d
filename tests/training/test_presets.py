"""Presets follow the scene, and are settings like any others."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball

from taichi_nerf import runtime
from taichi_nerf.settings import SettingsError, apply_settings, from_json_dict, to_json_dict
from taichi_nerf.training.config import NgpConfig, NgpProposalSettings, OptimiserSettings, RunSettings, SceneSettings
from taichi_nerf.training.few_views import with_few_views
from taichi_nerf.training.methods import changed
from taichi_nerf.training.mipnerf360_config import MipNerf360Config
from taichi_nerf.training.mipnerf_config import MipNerfConfig
from taichi_nerf.training.nerf_config import NerfConfig
from taichi_nerf.training.presets import STEPS, choose, pixel_angle, pixel_footprint

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("cpu")


def chosen(scene, **run):
    return choose(scene, SceneSettings("ball"), RunSettings(**run), CPU)


def around(scene):
    return replace(scene, bounds=replace(scene.bounds, unbounded=True))


def within(scene):
    """Bounds that cameras stand in, as a room has them."""
    return replace(scene, bounds=replace(scene.bounds, box=4 * scene.bounds.box))


def test_a_pixel_covers_its_angle_times_the_distance():
    """Focal length 1.4 sizes, from 2.5 · sqrt(1 + 0.4²) away."""
    scene, _ = views_of_ball(4, 50)
    assert pixel_angle(scene) == pytest.approx(1 / 70)
    assert pixel_footprint(scene) == pytest.approx(2.5 * np.sqrt(1.16) / 70)


def test_larger_pictures_get_finer_steps_finer_grids_and_larger_tables():
    scene, _ = views_of_ball(8, 16)
    configs = [chosen(replace(scene, cameras=scene.cameras.resized((n, n))))[0] for n in (512, 1024, 2048)]
    for coarse, fine in pairwise(configs):
        assert fine.occupancy.step_size == pytest.approx(max(coarse.occupancy.step_size / 2, 1 / 128))
        assert fine.field.max_resolution > coarse.field.max_resolution
        assert fine.field.log2_table_size > coarse.field.log2_table_size


def test_a_training_that_stays_on_a_gpu_gets_batches_and_tables_of_a_gpu(monkeypatch):
    """Vulkan's and Metal's tensors are the host's for torch, but no processor works on them; one that emulates a GPU does."""
    scene, _ = views_of_ball(8, 16)
    scene = replace(scene, cameras=scene.cameras.resized((1024, 1024)))
    on_cuda, _ = choose(scene, SceneSettings("ball"), RunSettings(time_budget=60), torch.device("cuda"))
    on_cpu, _ = chosen(scene, time_budget=60)
    for name, like in (("AMD Radeon RX 7900 XTX", on_cuda), ("llvmpipe (LLVM 15.0.6, 256 bits)", on_cpu)):
        monkeypatch.setattr(runtime, "_current", runtime.Backend("vulkan", name, copies=True, n_threads=2))
        found, _ = chosen(scene, time_budget=60)
        assert found.batch == like.batch
        assert found.field.log2_table_size == like.field.log2_table_size
    assert on_cuda.batch.n_samples > 4 * on_cpu.batch.n_samples
    assert on_cuda.field.log2_table_size > on_cpu.field.log2_table_size


@pytest.mark.parametrize("size", [1, 4, 20_000])
@pytest.mark.parametrize("unbounded", [False, True])
def test_choices_stay_within_reason(size, unbounded):
    """A pixel may cover nearly all, as after --downscale 64."""
    scene, _ = views_of_ball(4, 16)
    scene = replace(scene, cameras=scene.cameras.resized((size, size)))
    config = chosen(around(scene) if unbounded else scene)[0]
    field = config.field
    assert config.occupancy.cone_angle <= 0.5
    assert 128 <= field.max_resolution <= 4096
    assert 15 <= field.log2_table_size <= 19


def test_only_what_has_a_surrounding_gets_growing_steps():
    scene, _ = views_of_ball(4, 50)
    assert chosen(scene)[0].occupancy.cone_angle == 0
    assert chosen(around(scene))[0].occupancy.cone_angle > 0


def test_weights_are_pulled_together_around_cameras_and_left_alone_around_objects():
    scene, _ = views_of_ball(4, 16)
    loss = {name: chosen(made(scene))[0].loss for name, made in (("object", replace), ("room", within), ("capture", around))}
    assert loss["object"].spread == 0 < loss["room"].spread == loss["capture"].spread
    assert loss["object"].kind == loss["room"].kind == "mse"


def test_proposals_look_everywhere_again_and_again_around_cameras():
    """With what suits objects, rooms end at 15 dB where they are at 21 dB after 300 steps."""
    scene, _ = views_of_ball(4, 16)
    object_s, room, capture = (chosen(made(scene))[0].proposal for made in (replace, within, around))
    assert room == capture == NgpProposalSettings(near_fade=room.near_fade)
    assert object_s.near_fade == 0 < room.near_fade  # else what is near is learned first: fog
    assert object_s.least_opacity > 0 == room.least_opacity
    assert object_s.network_share < 1 == room.network_share


def test_outside_a_mask_is_nothing_around_objects_and_unknown_elsewhere():
    scene, _ = views_of_ball(4, 16)
    assert chosen(scene)[0].batch.masks == "alpha"
    assert chosen(around(scene))[0].batch.masks == "ignore"
    assert any("masks" in note for note in chosen(scene)[1])
    assert not any("masks" in note for note in chosen(replace(scene, masks=None))[1])


@pytest.mark.parametrize("preset", STEPS)
def test_without_a_budget_a_preset_has_its_own(preset):
    scene, _ = views_of_ball(4, 16)
    config, notes = chosen(scene, preset=preset)
    assert (config.run.steps, config.run.time_budget) == (STEPS[preset], None)
    assert f"preset {preset}: {STEPS[preset]} steps" in notes
    given, notes = chosen(scene, preset=preset, time_budget=60.0)
    assert (given.run.steps, given.run.time_budget) == (None, 60.0)
    assert f"preset {preset}: 60 s" in notes
    assert list(STEPS.values()) == sorted(STEPS.values())


@pytest.mark.parametrize("preset", STEPS)
@pytest.mark.parametrize("unbounded", [False, True])
def test_the_settings_of_every_preset_survive_being_written(preset, unbounded):
    scene, _ = views_of_ball(4, 16)
    config, _ = chosen(around(scene) if unbounded else scene, preset=preset)
    assert from_json_dict(NgpConfig, to_json_dict(config)) == config


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("batch.n_samples=-5", "batch: n_samples: expected 1 to 5e+07, got -5"),
        ("batch.importance=2", "batch: importance: expected 0 to 1, got 2"),
        ("field.n_levels=-3", "field: n_levels: expected 1 to 64, got -3"),
        ("field.max_resolution=8", "field: max_resolution: expected 16 to 1.04858e+06, got 8"),
        ("field.harmonics=9", "field: harmonics: expected 0 to 4, got 9"),
        ("occupancy.resolution=-4", "occupancy: resolution: expected 32 to 1280, got -4"),
        ("occupancy.resolution=100", "occupancy: resolution: expected a multiple of 32, got 100"),
        ("occupancy.step_size=0", "occupancy: step_size: expected more than 0, got 0"),
        ("optimiser.learning_rate=-1", "optimiser: learning_rate: expected 0 to 100, got -1"),
        ("optimiser.network_rate=1e300", "optimiser: network_rate: expected 0 to 100, got 1e+300"),
        ("optimiser.beta2=1", "optimiser: beta2: expected at least 0 and less than 1, got 1"),
        ("optimiser.final_share=0", "optimiser: final_share: expected more than 0 and at most 1, got 0"),
        ("grid.every=0", "grid: every: expected at least 1, got 0"),
        ("culling.chance=-1", "culling: chance: expected 0 to 1, got -1"),
        ("density.n_levels=0", "density: n_levels: expected 1 to 64, got 0"),
        ("proposal.learn_every=0", "proposal: learn_every: expected at least 1, got 0"),
        ("proposal.anneal=2", "proposal: anneal: expected 0 to 1, got 2"),
        ("poses.until=0", "poses: until: expected more than 0 and at most 1, got 0"),
        ("loss.spread=-1", "loss: spread: expected at least 0, got -1"),
        ("appearance.n_numbers=0", "appearance: n_numbers: expected 1 to 10000, got 0"),
        ("geometry.opacity=-1", "geometry: opacity: expected at least 0, got -1"),
        ("prior.every=0", "prior: every: expected at least 1, got 0"),
        ("run.seed=1000000000000000000000", "run: seed: expected -9.22337e+18 to 9.22337e+18, got 1e+21"),
        ("scene.metric_scale=-1", "scene: metric_scale: expected more than 0, got -1"),
        ("run.save_every=-1", "run: save_every: expected at least 0, got -1"),
        ("field.n_levels=100000", "field: n_levels: expected 1 to 64, got 100000"),
        ("field.n_color_layers=1000000", "field: n_color_layers: expected 0 to 64, got 1e+06"),
        ("proposal.n_proposed=64,999999", "proposal: n_proposed: expected at least one network, each of 1 to 2000 intervals"),
    ],
)
def test_a_value_out_of_range_is_told_by_the_settings_name(setting, told):
    with pytest.raises(SettingsError) as caught:
        apply_settings(NgpConfig(SceneSettings("ball")), [setting])
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("method", "setting", "told"),
    [
        (NerfConfig, "nerf.n_samples=2", "nerf: n_samples: expected 3 to 10000, got 2"),
        (NerfConfig, "field.n_hidden=0", "field: n_hidden: expected 1 to 10000, got 0"),
        (NerfConfig, "encoding.n_frequencies=-1", "encoding: n_frequencies: expected 0 to 30, got -1"),
        (NerfConfig, "encoding.n_view_frequencies=31", "encoding: n_view_frequencies: expected 0 to 30, got 31"),
        (MipNerfConfig, "mipnerf.padding=-1", "mipnerf: padding: expected at least 0, got -1"),
        (MipNerfConfig, "field.n_view_frequencies=0", "field: n_view_frequencies: expected 1 to 30, got 0"),
        (MipNerfConfig, "field.n_frequencies=17", "field: n_frequencies: expected 1 to 16, got 17"),
        (MipNerf360Config, "encoding.n_frequencies=17", "encoding: n_frequencies: expected 1 to 16, got 17"),
        (MipNerf360Config, "mipnerf360.distortion=-1", "mipnerf360: distortion: expected at least 0, got -1"),
        (MipNerf360Config, "field.n_feature=0", "field: n_feature: expected 1 to 10000, got 0"),
        (MipNerf360Config, "density.n_layers=0", "density: n_layers: expected 1 to 64, got 0"),
    ],
)
def test_so_it_is_for_every_method(method, setting, told):
    with pytest.raises(SettingsError) as caught:
        apply_settings(method(SceneSettings("ball")), [setting])
    assert str(caught.value) == told


def test_a_setting_is_changed_by_its_name_and_others_stay():
    config, _ = chosen(views_of_ball(4, 16)[0])
    changed = apply_settings(config, ["field.n_levels=5", "poses.refine=true"])
    assert (changed.field.n_levels, changed.poses.refine) == (5, True)
    assert replace(changed, field=config.field, poses=config.poses) == config


def test_objects_learn_quickest_and_what_was_weighed_against_calm_rates_keeps_them():
    """Around a scene that goes on slow networks learn fog; proposals were fitted with Adam as usual."""
    scene, _ = views_of_ball(4, 16)
    usual, objects, surroundings = OptimiserSettings(), chosen(scene)[0], chosen(around(scene))[0]
    assert objects.optimiser.learning_rate > surroundings.optimiser.learning_rate > usual.learning_rate
    assert objects.optimiser.network_rate < surroundings.optimiser.network_rate == usual.network_rate
    on_cuda, _ = choose(scene, SceneSettings("ball"), RunSettings(), torch.device("cuda"))
    assert on_cuda.optimiser == with_few_views(objects, scene, None, "builtin")[0].optimiser == objects.optimiser
    assert changed(objects, ["sampler.kind=proposal"]).optimiser == usual
    named = changed(objects, ["sampler.kind=proposal", "optimiser.beta1=0.5"]).optimiser
    assert named == replace(usual, beta1=0.5)
