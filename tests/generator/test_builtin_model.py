"""The model of procedural heads that comes with the program: small, complete, told how it was made, better refined than not."""

import json

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from taichi_nerf.apps.main import main
from taichi_nerf.generator.evaluation.feature_files import load_features
from taichi_nerf.generator.evaluation.instruments import instruments
from taichi_nerf.generator.heads import HELD_OUT, VIEWS, heads, pictures_of
from taichi_nerf.generator.model_folder import BUILTIN, ModelError, ModelFolder

MOST_BYTES = 10e6


def invoke(*arguments):
    torch.set_default_device(None)
    result = CliRunner().invoke(main, ["generator", *map(str, arguments), "--arch", "cpu"])
    return result.exit_code, result.stdout, result.stderr


def test_it_is_small_and_tells_how_each_stage_was_made():
    assert sum(file.stat().st_size for file in BUILTIN.rglob("*") if file.is_file()) < MOST_BYTES
    about = json.loads((BUILTIN / "about.json").read_text())
    assert list(about) == ["train", "features", "directions", "depth_pose", "refine"]
    assert all({"seconds", "seed", "machine"} <= stage.keys() for name, stage in about.items() if name != "directions")


def test_it_renders_without_anything_else(cpu, tmp_path):
    status, _, err = invoke("render", "--model", "builtin", "--seed", 510, "--n-frames", 5, "--out", tmp_path / "turn.png",
                            "--what", "gan,refined,depth")  # fmt: skip
    assert status == 0, err
    picture = imageio.imread(tmp_path / "turn.png").astype(float)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(5 / 3)
    assert picture.std() > 30


def test_its_features_know_the_yaw_of_heads_that_nobody_saw(cpu):
    real = heads(range(HELD_OUT + 300, HELD_OUT + 310), 4)
    images = torch.from_numpy(real.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    told = load_features(ModelFolder("builtin").features).yaws(images).numpy()
    assert np.corrcoef(told, real.yaws)[0, 1] > 0.97


def test_refined_turns_agree_better_and_still_turn(cpu, tmp_path):
    status, out, err = invoke(
        "evaluate", "--model", "builtin", "--seeds", "540-549", "--places", 5, "--json", tmp_path / "f.json"
    )
    assert status == 0, err
    found = json.loads((tmp_path / "f.json").read_text())
    plain, refined = found["gan_space"], found["refined"]
    assert refined["warp_error"] < 0.85 * plain["warp_error"]
    assert refined["ssim"] > plain["ssim"]
    assert refined["identity"] > plain["identity"]
    assert refined["yaw_span"] > 0.6 * plain["yaw_span"]
    assert found["yaw_correlation"] > 0.85
    assert found["features"] == "self-trained"
    assert "gan_space" in out


def test_it_is_not_changed_in_place(cpu, tmp_path):
    status, _, err = invoke("refine", "--model", "builtin", "--steps", 1)
    assert status == 1
    assert "generator convert builtin FOLDER" in err
    result = CliRunner().invoke(main, ["generator", "convert", "builtin", str(tmp_path / "mine")])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "mine" / "refiner.safetensors").is_file()


def test_pictures_that_it_is_measured_on_do_not_stay_in_the_package(cpu, monkeypatch):
    def save(file, images):
        raise AssertionError(f"{file} is written")

    monkeypatch.setattr("taichi_nerf.generator.heads.save_image_set", save)
    tools = instruments(ModelFolder("builtin"), "heads:2", None, None, None, torch.device("cpu"))
    assert len(tools.real) == 2 * VIEWS
    with pytest.raises(ModelError, match="stays as it is"):  # before anything is trained
        instruments(ModelFolder("builtin"), "heads:2", None, None, 10**9, torch.device("cpu"))


def test_heads_that_were_kept_serve_only_those_who_want_as_many_of_that_size(cpu, tmp_path):
    cached = tmp_path / "images.npz"
    made = pictures_of("heads:2", 8, cached, True)
    before = cached.read_bytes()
    assert np.array_equal(pictures_of("heads:2", 8, cached, False).images, made.images)
    for number, size in ((3, 8), (2, 16)):
        again = pictures_of(f"heads:{number}", size, cached, False)
        assert again.images.shape == (number * VIEWS, size, size, 3)
    assert cached.read_bytes() == before
    assert np.array_equal(pictures_of("heads:3", 8, cached, True).images[: 2 * VIEWS], made.images)
    assert len(pictures_of(str(cached), 8, cached, False)) == 3 * VIEWS
    with pytest.raises(ValueError, match="heads:0: expected heads:N with a number N of at least 1, as in heads:1000"):
        pictures_of("heads:0", 8, cached, True)
