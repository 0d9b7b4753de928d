"""A run that is interrupted and goes on is the run that was not."""

import json
import shutil
from dataclasses import replace

import pytest
import small_run
import torch
from click.testing import CliRunner
from torch import nn

from taichi_nerf.apps.main import main
from taichi_nerf.settings import OlderSettings, apply_settings
from taichi_nerf.training.budget import Stopwatch
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint
from taichi_nerf.training.config import SceneSettings
from taichi_nerf.training.distributed import World
from taichi_nerf.training.meter import Meter
from taichi_nerf.training.ngp_model import NgpModel
from taichi_nerf.training.preview import limits
from taichi_nerf.training.run import _agree, go_on, load_run, train
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.training.step import Step, Told
from taichi_nerf.training.terms import Term
from taichi_nerf.training.trainer import Trainer


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


class WithGain(NgpModel):
    """The method's own model and one number more, which no picture depends on."""

    def __init__(self, config, scene, device):
        super().__init__(config, scene, device)
        self.gain = nn.Parameter(torch.tensor(1.0, device=device))

    def optimiser(self):
        optimiser = super().optimiser()
        optimiser.add_param_group({"name": "gain", "params": [self.gain], "first_lr": 0.01})
        return optimiser


class Pull(Term):
    """The gain to three."""

    def __call__(self, moment):
        return (moment.model.gain - 3).square()


def test_a_model_and_a_loss_of_ones_own_are_trained_into_a_folder_and_opened_again(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=8)
    model = WithGain(config, scene, torch.device("cpu"))
    with RunFolder.create(tmp_path / "run") as folder:
        train(config, scene, folder, "cpu", model=model, terms=[Pull()])
    rates = [0.01 * model.rate(step / 8) for step in range(8)]
    assert model.gain.item() == pytest.approx(1 + sum(rates), abs=1e-3)  # Adam's steps are as long as the rate
    found = load_run(tmp_path / "run", "cpu", make=WithGain)
    assert (type(found.model), found.n_steps) == (WithGain, 8)
    opened, trained = dict(tensors(found.model.state_dict())), dict(tensors(model.state_dict()))
    assert opened.keys() == trained.keys()
    assert all(torch.equal(opened[name], trained[name]) for name in trained)
    with pytest.raises(RunError, match="of a model of one's own, WithGain"):
        load_run(tmp_path / "run", "cpu")


class Dimmed(NgpModel):
    """Has the method's parameters, and makes something else of them."""


def test_a_run_of_ones_own_is_not_taken_for_the_methods(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=2)

    def none(moment):
        return torch.zeros(())

    def goes_on(path, **parts):
        with RunFolder.open(path).locked() as folder:
            return train(config, scene, folder, "cpu", resume=True, **parts).n_steps

    for path, parts in (
        (tmp_path / "model", {"model": Dimmed(config, scene, torch.device("cpu"))}),
        (tmp_path / "terms", {"terms": [none]}),
    ):
        with RunFolder.create(path) as folder:
            train(config, scene, folder, "cpu", **parts)
        with pytest.raises(RunError, match=r"one's own, (Dimmed|none); the commands do not know it"):
            goes_on(path)
        result = CliRunner().invoke(main, ["train", "--resume", "--dry-run", "--arch", "cpu", "--out", str(path)])
        assert result.exit_code == 1
        assert "of one's own" in result.output
        assert goes_on(path, **parts) == 2
    with pytest.raises(RunError, match="load_run"):
        load_run(tmp_path / "model", "cpu")
    assert type(load_run(tmp_path / "terms", "cpu").model) is NgpModel  # terms are of training alone
    given = NgpModel(config, scene, torch.device("cpu"))
    with RunFolder.create(tmp_path / "given") as folder:
        train(config, scene, folder, "cpu", model=given)
    assert type(load_run(tmp_path / "given", "cpu").model) is NgpModel


def test_a_scene_may_be_given_as_a_path(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=2)
    assert config.scene == replace(config.scene, path=small_scene)
    small_run.trained(tmp_path / "run", replace(config, scene=SceneSettings(small_scene)), scene)
    assert load_run(tmp_path / "run", "cpu").config.scene.path == str(small_scene)


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


def made_older(path):
    """As a version wrote it before embeddings were left out, the spread grew in and levels of the hash grid were weighed."""
    folder = RunFolder.open(path)
    about = json.loads(folder.config.read_text())
    del about["settings"]["appearance"]["dropout"], about["settings"]["loss"]["spread_from"], about["settings"]["backend"]
    folder.config.write_text(json.dumps(about))
    state, metadata = load_checkpoint(folder.checkpoint)
    del state["model"]["field.level_weights"], state["model"]["sampler.least_density"]
    save_checkpoint(folder.checkpoint, state, {"config": metadata["config"]})


def test_a_run_of_an_older_version_is_what_it_was_and_goes_on(cpu, tmp_path):
    config, scene = small_run.configured(small_run.make(tmp_path / "scene"), steps=20)
    config = apply_settings(
        config, ["appearance.enabled=true", "appearance.dropout=0", "loss.spread=0.01", "loss.spread_from=0", "grid.full_until=0"]
    )
    small_run.trained(tmp_path / "now", config, scene, stop_after=9)
    shutil.copytree(tmp_path / "now", tmp_path / "older")
    made_older(tmp_path / "older")
    with pytest.warns(OlderSettings) as told:
        older = load_run(tmp_path / "older", "cpu")
    assert str(told[0].message) == (
        f"{tmp_path / 'older/config.json'}: of an older version of taichi_nerf; what it does not say is taken as "
        "loss.spread_from = 0.0, appearance.dropout = 0.0, backend.resident = auto"
    )
    assert older.config == config
    now = dict(tensors(load_run(tmp_path / "now", "cpu").model.state_dict()))
    for name, tensor in tensors(older.model.state_dict()):
        known = torch.zeros_like(tensor) if name.endswith("least_density") else now[name]
        assert torch.equal(tensor, known), name
    small_run.trained(tmp_path / "older", config, scene, resume=True)
    assert load_checkpoint(tmp_path / "older/checkpoint.safetensors")[0]["n_steps"] == 20
    assert load_run(tmp_path / "older", "cpu").n_steps == 20  # and no warning: config.json says all of it now


def test_weights_that_a_checkpoint_lacks_are_named(cpu, tmp_path):
    config, scene = small_run.configured(small_run.make(tmp_path / "scene"), steps=2)
    small_run.trained(tmp_path / "run", config, scene)
    folder = RunFolder.open(tmp_path / "run")
    state, _ = load_checkpoint(folder.checkpoint)
    lacking = {name: value for name, value in state["model"].items() if name != "field.table"}
    for given, told in (({**state, "model": lacking}, 'Missing key.*"field.table"'), ({"n_steps": 2}, "it lacks model")):
        save_checkpoint(folder.checkpoint, given, {})
        with pytest.raises(RunError, match=told):
            load_run(tmp_path / "run", "cpu")
        with pytest.raises(RunError, match=told):
            small_run.trained(tmp_path / "run", config, scene, resume=True)


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


class Beside(World):
    """One of two processes, of which the other has trained for 20 s at a pace of three and wishes nothing."""

    def sum_over_ranks(self, tensor):
        return tensor + tensor.new_tensor([20.0, 3.0, 0.0])


def test_processes_that_train_together_share_a_clock_and_a_pace_and_end_together(cpu, small_scene):
    config, scene = small_run.configured(small_scene, steps=4)
    made = Trainer(config, scene, "cpu")
    made.world, made.stopwatch, made.model.pace = Beside(0, 2), Stopwatch(10.0), 1.0
    assert not _agree(made, False)
    assert (made.stopwatch.seconds, made.model.pace) == (15.0, 2.0)
    assert _agree(made, True)


def test_processes_that_go_on_together_draw_other_pixels(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=2)
    small_run.trained(tmp_path / "run", config, scene)
    drawn = []
    for rank in (0, 0, 1):
        made = Trainer(config, scene, "cpu")
        made.world = World(rank, 2)
        go_on(made, RunFolder.open(tmp_path / "run"))
        drawn.append(made.draw(50).rows)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
