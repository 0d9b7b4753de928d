"""Settings and scenes in combination: what holds of each alone holds of them together."""

import math
from dataclasses import replace

import pytest
import sample_transforms
import torch
from ball_scene import views_of_ball
from tiny_methods import CPU, TINY, configured, trainer

from taichi_nerf.scenes import Overrides, load_scene
from taichi_nerf.settings import SettingsError, apply_settings
from taichi_nerf.training import methods
from taichi_nerf.training.trainer import Trainer


@pytest.mark.parametrize("method", TINY)
def test_rays_that_all_pass_the_scene_by_see_the_background_and_teach_nothing(cpu, method):
    """As those of a small batch of a small object, or of a scene whose --scale is wrong."""
    scene, _ = views_of_ball()
    bounds = replace(scene.bounds, box=scene.bounds.box + 1e3)
    made = trainer(method, replace(scene, bounds=bounds), "batch.background=black", "poses.refine=true")
    before = made.state_dict(copied=True)["model"]
    batch = made.draw(made.n_rays)
    with torch.no_grad():
        squared = made.compare(batch).error
    assert float(squared) == pytest.approx(float((batch.color * batch.alpha[:, None]).square().mean()), rel=1e-5)
    for _ in range(2):
        assert torch.isfinite(torch.tensor(made.step().loss))
    picture = made.model.picture(made.model.rig.rays(torch.rand(4, 2), torch.zeros(4, dtype=torch.int32)), (2, 2))
    assert not picture.opacity.any()
    for name, value in made.model.state_dict().items():
        if isinstance(value, torch.Tensor) and "thickness" not in name and "least" not in name and "level" not in name:
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("method", "setting", "beside", "why"),
    [
        ("ngp, proposals", "batch.masks=alpha", ["batch.masks=ignore"], "in a scene without masks"),
        ("ngp, proposals", "loss.depth=0.1", [], "in a scene without depth maps"),
        ("ngp, proposals", "proposal.even_until=1.0", [], "in a scene with nothing behind its box"),
        ("ngp, proposals", "backend.resident=true", [], "with the chosen sampler (sampler.kind)"),
        ("ngp, proposals", "optimiser.decay_from=0.0", ["optimiser.final_share=1"], "with optimiser.final_share=1"),
        ("nerf", "geometry.frustum_until=1.0", ["geometry.opacity=0.01"], "without geometry.frustum"),
        ("nerf", "geometry.distortion_from=0.0", ["geometry.opacity=0.01"], "without geometry.distortion"),
        ("nerf", "geometry.opacity_from=0.0", ["geometry.distortion=0.01"], "without geometry.opacity"),
        (
            "ngp, proposals",
            "field.n_appearance=3",
            ["appearance.enabled=true"],
            "here: appearance.enabled and appearance.n_numbers say it",
        ),
    ],
)
def test_what_a_scene_or_another_setting_leaves_nothing_to_do_is_an_error(cpu, method, setting, beside, why):
    """It trains to the same bits without it."""
    scene = replace(views_of_ball()[0], masks=None, depths=None)
    config = configured(method, scene, *beside)
    losses = []
    for settings in ([setting], []):
        made = Trainer(apply_settings(config, settings), scene, CPU)
        losses.append([made.step().loss for _ in range(3)])
    assert losses[0] == losses[1]
    with pytest.raises(SettingsError) as caught:
        methods.changed(config, [setting], scene)
    assert str(caught.value) == f"{setting}: has no effect {why}"


def test_what_a_scene_has_may_be_used_and_what_it_lacks_left_alone(cpu):
    scene, _ = views_of_ball()
    methods.changed(configured("ngp", scene), ["batch.masks=alpha", "loss.depth=0.1"], scene)
    bare = replace(scene, masks=None, depths=None)
    methods.changed(configured("ngp", bare), ["batch.masks=ignore", "loss.depth=0"], bare)


@pytest.mark.parametrize("method", TINY)
def test_rays_may_begin_at_the_camera(cpu, tmp_path, method):
    """--near 0, of a scene that goes on: its rays are not cut by a box."""
    sample_transforms.make(tmp_path)
    scene = load_scene(tmp_path, overrides=Overrides(near=0.0, unbounded=True))
    made = trainer(method, scene, *(["nerf.disparity=false"] if method == "nerf" else []))
    assert scene.bounds.near == 0
    assert all(math.isfinite(made.step().loss) for _ in range(3))
    assert made.guard.n_skipped == 0
