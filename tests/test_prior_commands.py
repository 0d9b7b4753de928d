"""prior train, score and sample, and train --prior, as a user meets them."""

import json
import shutil
import signal

import imageio.v3 as imageio
import pytest
from click.testing import CliRunner
from failing_starts import FAILING_STARTS, contents

from taichi_nerf import runtime
from taichi_nerf.apps import progress as apps_progress
from taichi_nerf.apps.main import main
from taichi_nerf.apps.prior import configuration
from taichi_nerf.priors import patch_sources
from taichi_nerf.priors.prior import load_prior
from taichi_nerf.procedural import make_scene
from taichi_nerf.training import prior_run
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint
from taichi_nerf.training.folder_lock import FolderLock
from taichi_nerf.training.train_prior import PriorTrainer

SMALL = ("--data", "objects:8", "--size", 8, "--batch", 4, "--arch", "cpu")


def invoke(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(patch_sources, "SIZE", (32, 24))
    monkeypatch.setattr(patch_sources, "FOCAL", 40.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    runtime.start("cpu")
    folder = tmp_path_factory.mktemp("scenes") / "room"
    return make_scene("rooms", folder, n_views=6, n_val=0, n_test=2, size=48, n_samples=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training by the command; tests leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patch_sources, "SIZE", (32, 24))
        patch.setattr(patch_sources, "FOCAL", 40.0)
        out = tmp_path_factory.mktemp("priors") / "prior"
        status, said, err = invoke("prior", "train", *SMALL, "--steps", 4, "--out", out)
    assert status == 0, err
    assert "4 steps" in said
    return out


def test_a_training_leaves_a_prior_a_checkpoint_figures_and_samples(trained):
    prior = load_prior(trained / "prior.safetensors")
    assert (prior.settings.size, prior.settings.variant) == (8, "rgbd")
    assert prior.settings.focal == pytest.approx(8, rel=1e-4)  # as wide as it is far away
    assert prior.settings.nearest == 1.0
    assert prior.made["data"] == ["objects:8"]
    assert prior.made["steps"] == 4
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4
    assert 0 < rows[-1]["held_out_99"] < 2
    assert imageio.imread(trained / "samples.png").shape[2] == 3


def test_who_stops_a_training_waits_for_no_samples(tmp_path, monkeypatch):
    step = PriorTrainer.step

    def stopped_at_five(trainer):
        loss = step(trainer)
        if trainer.n_steps == 5:
            signal.raise_signal(signal.SIGTERM)
        return loss

    monkeypatch.setattr(PriorTrainer, "step", stopped_at_five)
    status, said, err = invoke("prior", "train", *SMALL, "--steps", 1000, "--out", tmp_path / "prior")
    assert (status, said[:7]) == (143, "5 steps"), err
    assert {file.name for file in (tmp_path / "prior").iterdir()} == {
        ".lock", "config.json", "checkpoint.safetensors", "metrics.jsonl", "prior.safetensors",
    }  # fmt: skip


def test_presets_say_how_wide_patches_are_and_what_is_near_unless_options_do(tmp_path):
    asked = {
        "steps": 1,
        "time_budget": None,
        "size": None,
        "angle": None,
        "nearest": None,
        "variant": "rgbd",
        "schedule": "cosine",
    }
    asked |= {"batch": 1, "learning_rate": None, "half": False, "seed": 0, "data": (), "metric_scale": 1.0}
    published = configuration({**asked, "preset": "published"})
    assert (published.prior.size, published.prior.nearest) == (48, 0.2)
    assert published.prior.focal == pytest.approx(175)
    assert (published.patches.closest, published.patches.farthest) == (0.8, 1.3)
    assert (published.training.learning_rate, published.training.batch) == (1e-4, 1)
    assert published.training.average**10 == pytest.approx(0.995)  # what is left of the mean after ten steps
    other = configuration({**asked, "preset": "small", "angle": 90.0, "nearest": 0.5})
    assert (other.prior.focal, other.prior.nearest) == (pytest.approx(12), 0.5)
    for option in (("--angle", 0), ("--nearest", 0), ("--learning-rate", 1e300), ("--threads", 10**9), ("--metric-scale", 1e300)):
        status, _, err = invoke("prior", "train", *SMALL, "--steps", 1, *option, "--out", tmp_path / "none")
        assert status == 2
        assert option[0] in err
    assert not (tmp_path / "none").exists()


def test_a_training_goes_on_where_it_was_as_if_never_interrupted(trained, tmp_path):
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    for out, steps in ((halves, 4), (whole, 8)):
        assert invoke("prior", "train", *SMALL, "--steps", steps, "--out", out)[0] == 0
    # The rate follows the budget, so the first half has to know the whole one's: its checkpoint is of the same steps alone.
    status, _, err = invoke("prior", "train", "--resume", "--steps", 8, "--out", halves, "--arch", "cpu")
    assert status == 0, err
    assert load_checkpoint(halves / "checkpoint.safetensors")[0]["n_steps"] == 8
    assert [json.loads(line)["step"] for line in (halves / "metrics.jsonl").read_text().splitlines()][-1] == 8


@pytest.mark.filterwarnings("default")
def test_a_training_of_an_older_version_goes_on_and_its_prior_can_be_asked(trained, tmp_path):
    """Of before the nearest depth could be chosen; 0.2 then."""
    older = tmp_path / "older"
    shutil.copytree(trained, older)
    config = json.loads((older / "config.json").read_text())
    n_steps, nearest = config["settings"]["training"]["steps"], config["settings"]["prior"].pop("nearest")
    (older / "config.json").write_text(json.dumps(config))
    state, metadata = load_checkpoint(older / "checkpoint.safetensors")
    told = json.loads(metadata["prior"])
    assert (told.pop("nearest"), nearest) == (1.0, 1.0)
    save_checkpoint(older / "checkpoint.safetensors", state, {"prior": json.dumps(told)})
    status, _, err = invoke("prior", "train", "--resume", "--steps", n_steps + 1, "--out", older, "--arch", "cpu")
    assert status == 0, err
    assert f"warning: {older / 'config.json'}: of an older version of taichi_nerf" in err
    assert "is taken as prior.nearest = 0.2\n" in err
    assert load_prior(older).settings.nearest == 0.2
    assert load_checkpoint(older / "checkpoint.safetensors")[0]["n_steps"] == n_steps + 1


def test_settings_of_a_training_cannot_change_on_resuming(trained):
    before = (trained / "config.json").read_bytes()
    resume = ("prior", "train", "--out", trained, "--resume", "--steps", 8, "--arch", "cpu")
    for option in (("--data", "rooms:3"), ("--metric-scale", 2), ("--preset", "published"), ("--size", 48), ("--angle", 20),
                   ("--nearest", 2), ("--variant", "d"), ("--schedule", "linear"), ("--batch", 7), ("--learning-rate", 5),
                   ("--half",), ("--seed", 3)):  # fmt: skip
        status, _, err = invoke(*resume, *option)
        assert (status, f"{option[0]} cannot change on --resume" in err) == (2, True)
    assert "--size, --batch and --half cannot change" in invoke(*resume, "--half", "--batch", 7, "--size", 48)[2]
    assert (trained / "config.json").read_bytes() == before


@pytest.mark.parametrize("data", ["rooms:x", "rooms:0", "rooms:-3", "rooms:1.5", "rooms:"])
def test_a_number_of_pictures_that_is_none_is_one_line(data, tmp_path):
    train = ("prior", "train", "--data", "objects:8", "--data", data, "--steps", 1, "--out", tmp_path / "prior")
    for arguments in (("prior", "score", "builtin", data), train):
        status, _, err = invoke(*arguments, "--arch", "cpu")
        assert (status, err) == (
            1,
            f"error: {data}: expected rooms:N with a number N of at least 1, as in rooms:1000\n",
        )
    assert not (tmp_path / "prior").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--size", 256), "no picture holds a patch of 256 pixels"),
        (("--angle", 2), "no picture holds a patch of 24 pixels at a focal length of"),
        (("--data", "no/scene"), "no/scene: "),
    ],
)
def test_patches_that_cannot_be_had_are_told_of_before_pictures_are_rendered(arguments, told, tmp_path, monkeypatch):
    monkeypatch.setattr(prior_run, "procedural_pictures", None)
    train = ("prior", "train", "--data", "objects:8", "--steps", 1, "--out", tmp_path / "prior", "--arch", "cpu")
    status, _, err = invoke(*train, *arguments)
    assert status == 1
    assert told in err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("sample", "--out", "x.jpg"), 1, "x.jpg: expected a name that ends in .png"),
        (("score", "builtin", "rooms:2", "--out", "x.mp5"), 1, "x.mp5: expected a name that ends in .png"),
        (("score", "builtin", "rooms:2", "--seed", -1), 2, "Invalid value for '--seed'"),
    ],
)
def test_names_and_seeds_that_are_none_are_refused(arguments, status, told, monkeypatch):
    monkeypatch.setattr("taichi_nerf.priors.prior.load_prior", None)
    found, _, err = invoke("prior", *arguments)
    assert (found, told in err) == (status, True)


def test_overwriting_waits_until_the_new_training_can_begin(trained, tmp_path, monkeypatch):
    copy = shutil.copytree(trained, tmp_path / "prior")
    before = contents(copy)
    command = ("prior", "train", *SMALL, "--steps", 1, "--overwrite", "--out")
    for fails, status in FAILING_STARTS:
        monkeypatch.setattr(PriorTrainer, "warm_up", fails)
        for out in (copy, tmp_path / "new"):
            assert invoke(*command, out)[0] == status
    monkeypatch.undo()
    assert contents(copy) == before
    assert not (tmp_path / "new").exists()
    assert invoke(*command, copy)[0] == 0
    assert load_prior(copy / "prior.safetensors").made["steps"] == 1


@pytest.mark.parametrize("option", [(), ("--overwrite",), ("--resume",)])
def test_a_second_training_into_a_folder_is_told_before_it_renders_anything(trained, tmp_path, monkeypatch, option):
    monkeypatch.setattr(prior_run, "procedural_pictures", None)
    folder = shutil.copytree(trained, tmp_path / "prior") if option else tmp_path / "new"
    before = contents(tmp_path)
    with FolderLock(folder):
        status, _, err = invoke(
            "prior", "train", *(() if option == ("--resume",) else SMALL), "--steps", 9, "--out", folder, *option
        )
        assert (status, err) == (
            1,
            f"error: {folder}: is held by this process already, for a training that was not closed: close() it\n",
        )
    assert contents(tmp_path) == before


def test_folders_are_not_overwritten_unasked(trained, tmp_path):
    status, _, err = invoke("prior", "train", *SMALL, "--steps", 1, "--out", trained)
    assert status == 1
    assert "--resume goes on with it, --overwrite replaces it" in err
    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = invoke("prior", "train", *SMALL, "--steps", 1, "--out", tmp_path)
    assert status == 1
    assert "is no training of a prior and not empty" in err
    assert invoke("prior", "train", "--resume", "--out", tmp_path)[0] == 1
    assert invoke("prior", "train", *SMALL, "--out", tmp_path / "new")[0] == 2  # how long?


def test_a_prior_learns_from_scenes_with_depth(scene, tmp_path):
    options = ("--data", scene, "--variant", "d", "--size", 8, "--batch", 4, "--arch", "cpu", "--steps", 2, "--half")
    status, _, err = invoke("prior", "train", *options, "--out", tmp_path / "prior")
    assert status == 0, err
    assert load_prior(tmp_path / "prior" / "prior.safetensors").settings.denoiser.channels == 1


def test_a_training_on_a_scene_goes_on_from_any_folder(scene, tmp_path, monkeypatch):
    options = ("--variant", "d", "--size", 8, "--batch", 4, "--arch", "cpu")
    monkeypatch.chdir(scene.parent)
    status, _, err = invoke("prior", "train", "--data", scene.name, *options, "--steps", 1, "--out", tmp_path / "prior")
    assert status == 0, err
    monkeypatch.chdir(tmp_path)
    status, _, err = invoke("prior", "train", "--resume", "--steps", 2, "--arch", "cpu", "--out", "prior")
    assert status == 0, err
    made = load_prior(tmp_path / "prior").made
    assert (made["steps"], made["data"]) == (2, [scene.name])  # where the scene lies is nobody's business


def test_score_tells_errors_at_five_levels(trained, tmp_path):
    prior, sheet = trained / "prior.safetensors", tmp_path / "sheet.png"
    status, said, err = invoke("prior", "score", prior, "objects:4", "--n", 4, "--json", "--arch", "cpu", "--out", sheet)
    assert status == 0, err
    rows = json.loads(said[: said.rindex("]") + 1])
    assert [row["t"] for row in rows] == [3, 47, 99, 199, 399]
    assert all(0 < row["depth_error"] < 2 for row in rows)
    assert sheet.exists()
    assert "error of depth" in invoke("prior", "score", prior, "objects:4", "--n", 4, "--arch", "cpu")[1]


def test_sample_draws_patches_and_tells_how_far_it_is(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(apps_progress, "QUICK", 0.0)
    out = tmp_path / "patches.png"
    status, said, err = invoke(
        "prior", "sample", trained / "prior.safetensors", "--n", 3, "--steps", 2, "--out", out, "--arch", "cpu"
    )
    assert (status, said.strip()) == (0, str(out)), err
    assert " 50 %  step 1 of 2\n" in err
    assert imageio.imread(out).shape[0] == 2 * (8 + 2) * 3


def test_the_folder_of_a_training_is_a_prior(trained, tmp_path):
    assert load_prior(trained).made == load_prior(trained / "prior.safetensors").made
    out = tmp_path / "patches.png"
    status, _, err = invoke("prior", "sample", trained, "--n", 1, "--steps", 1, "--out", out, "--arch", "cpu")
    assert status == 0, err
    assert out.is_file()


def test_train_takes_a_prior(trained, scene, tmp_path):
    options = ("--arch", "cpu", "--steps", 3, "--set", "batch.n_samples=4096", "--set", "field.n_levels=4", "--n-views", 3)
    prior = trained / "prior.safetensors"
    status, _, err = invoke("train", scene, "--out", tmp_path / "run", "--prior", prior, *options)
    assert status == 0, err
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["prior"]["file"] == str(prior.resolve())
    assert settings["geometry"]["opacity"] > 0
    status, _, err = invoke("train", "--resume", "--out", tmp_path / "run", "--steps", 5, "--arch", "cpu")
    assert status == 0, err


def test_dry_run_tells_what_a_prior_changes(trained, scene, tmp_path):
    given = ("train", scene, "--out", tmp_path / "run", "--dry-run", "--steps", 3)
    said = invoke(*given, "--prior", trained / "prior.safetensors", "--set", "scene.metric_scale=1")[1]
    assert "prior.weight = " in said
    assert "by scene.metric_scale" in said
    assert "geometry.opacity = 0.001" in said
    assert "geometry.opacity = 0.0\n" in invoke(*given)[1]
    assert "geometry.opacity = 0.001" in invoke(*given, "--geometry")[1]


def test_the_builtin_prior_is_there_and_small():
    from taichi_nerf.priors.prior import BUILTIN_FILE

    prior = load_prior("builtin")
    assert BUILTIN_FILE.stat().st_size <= 8_000_000
    assert (prior.settings.size, prior.settings.variant) == (24, "rgbd")
    assert prior.made["steps"] > 0


def test_priors_that_are_not_there_are_told_of(scene, tmp_path):
    for arguments in (
        ("prior", "sample", "none.safetensors"),
        ("train", scene, "--out", tmp_path / "r", "--prior", "none.safetensors"),
    ):
        status, _, err = invoke(*arguments)
        assert status == 1
        assert "no such prior" in err
    assert not (tmp_path / "r").exists()
