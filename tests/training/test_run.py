"""A run that is interrupted and goes on is the run that was not."""

import pytest
import small_run
import torch

from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.meter import Meter
from taichi_nerf.training.preview import limits
from taichi_nerf.training.run import load_run
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.training.step import Step, Told


def tensors(value, path=""):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(item, f"{path}.{key}")


def test_resuming_gives_the_same_bits_as_never_stopping(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=60)
    small_run.trained(tmp_path / "whole", config, scene)
    first = small_run.trained(tmp_path / "parts", config, scene, stop_after=23)
    assert (first.n_steps, first.stopped) == (23, True)
    small_run.trained(tmp_path / "parts", config, scene, resume=True)
    whole, parts = (dict(tensors(load_checkpoint(tmp_path / n / "checkpoint.safetensors")[0])) for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert len(whole) > 20
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    stretch = load_checkpoint(tmp_path / "parts/checkpoint.safetensors")[0]["model"]["sampler._extra_state"]["stretch"]
    assert load_run(tmp_path / "parts", torch.device("cpu")).model.sampler.stretch == stretch


def test_previews_of_photographs_of_more_than_sixteen_megapixels_know_near_and_far():
    assert limits(torch.linspace(1, 3, 2**24 + 1)) == pytest.approx((1.04, 2.96), rel=1e-4)
    assert limits(torch.full((5,), 2.0)) == pytest.approx((2, 2.02))
    assert limits(torch.zeros(0)) == (1, 2)


def test_a_run_without_a_checkpoint_or_with_one_of_other_settings_is_told(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=2)
    small_run.trained(tmp_path / "run", config, scene)
    folder = RunFolder.open(tmp_path / "run")
    text = folder.config.read_text()
    folder.config.write_text(text.replace('"n_levels": 6', '"n_levels": 5'))
    with pytest.raises(RunError, match="does not fit"):
        load_run(tmp_path / "run", torch.device("cpu"))
    folder.checkpoint.unlink()
    with pytest.raises(RunError, match="has no checkpoint yet"):
        load_run(tmp_path / "run", torch.device("cpu"))


def test_a_row_of_metrics_is_the_mean_and_the_rate_since_the_last():
    meter = Meter(n_ranks=2)
    meter.add(Step(1, 5.0, 100, lambda: Told(4.0, 0.1, 300)))
    assert meter.seconds == 0
    meter.add(Step(2, 5.5, 100, lambda: Told(2.0, 0.01, 300)))
    row = meter.row()
    assert (row["step"], row["loss"], row["train_psnr"]) == (2, 3.0, 15.0)
    assert (row["rays_per_second"], row["samples_per_second"], row["n_samples_per_ray"]) == (400, 1200, 3)
    meter.add(Step(3, 6.5, 50, lambda: Told(1.0, 0.01, 100)))
    assert meter.seconds == 1
    assert meter.row()["rays_per_second"] == 100


def test_a_run_and_its_scene_are_found_by_strings_as_by_paths(cpu, tmp_path):
    config, scene = small_run.configured(small_run.make(tmp_path / "scene"), steps=2)
    small_run.trained(tmp_path / "run", config, scene)
    (tmp_path / "scene").rename(tmp_path / "moved")
    run = load_run(str(tmp_path / "run"), "cpu", str(tmp_path / "moved"))
    state, _ = load_checkpoint(tmp_path / "run/checkpoint.safetensors")
    assert torch.equal(run.model.field.table, state["model"]["field.table"])
    assert run.config.scene.path == str(tmp_path / "moved")
