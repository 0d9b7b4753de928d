"""`taichi-nerf pixelnerf` as a user meets it, and pictures that come without poses."""

import json
import math
import os
import shutil
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from ball_objects import ball_views, write_set
from click.testing import CliRunner
from failing_starts import FAILING_STARTS, contents

from taichi_nerf.apps.main import main
from taichi_nerf.apps.pixelnerf_steps import cameras_for, lpips_of, viewed
from taichi_nerf.camera_path import write_camera_path
from taichi_nerf.metrics import TRUNKS
from taichi_nerf.settings import apply_settings
from taichi_nerf.training.folder_lock import FolderLock
from taichi_nerf.training.pixelnerf_config import ObjectSettings, PixelNerfRun, published
from taichi_nerf.training.pixelnerf_distil import write_scene
from taichi_nerf.training.pixelnerf_model import BUILTIN, Prior, load_prior
from taichi_nerf.training.pixelnerf_objects import ObjectSet, object_of
from taichi_nerf.training.pixelnerf_pictures import (
    Turntable,
    in_the_middle,
    matted,
    on_turntable,
    orbit_of,
    turned,
    with_best_azimuth,
)
from taichi_nerf.training.pixelnerf_render import cameras_like
from taichi_nerf.training.pixelnerf_trainer import PixelNerfTrainer, make_field
from taichi_nerf.training.tensor_file import read_tensors
from taichi_nerf.weight_files import WeightsError

CPU = torch.device("cpu")
TINY = [word for text in ("encoder.kind=resnet10", "encoder.width=4", "field.n_hidden=16", "batch.n_objects=2",
                          "batch.n_rays=16", "sampling.n_coarse=8") for word in ("--set", text)]  # fmt: skip


def invoke(*arguments):
    result = CliRunner().invoke(main, ["pixelnerf", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), n_train=3, n_test=1, n_views=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, balls):
    out = tmp_path_factory.mktemp("runs") / "run"
    status, _, err = invoke("train", balls, "--out", out, "--preset", "small", "--steps", 2, "--arch", "cpu", *TINY)
    assert status == 0, err
    return out


@pytest.fixture
def square(tmp_path):
    """A red rectangle of 20 x 30 pixels, off the middle of a grey picture."""
    picture = np.full((60, 80, 3), 128, np.uint8)
    picture[10:40, 50:70] = (200, 20, 30)
    imageio.imwrite(tmp_path / "square.png", picture)
    return tmp_path / "square.png"


def test_train_evaluate_and_render_a_set(cpu, balls, trained, tmp_path):
    assert (trained / "model.safetensors").is_file()
    status, out, err = invoke("evaluate", trained, "--views", "0,1", "--save-images", "--arch", "cpu")
    assert status == 0, err
    found = json.loads((trained / "eval/test/metrics.json").read_text())
    assert (found["n_objects"], found["n_images"]) == (1, 1)
    assert f"{found['psnr']:.2f} dB" in out
    assert (trained / "eval/test/balls/100/000002.png").is_file()
    arguments = ("render", balls / "balls_test/100", "--model", trained, "--out", tmp_path / "frames", "--arch", "cpu")
    status, _, err = invoke(*arguments, "--n-frames", 2, "--what", "color,depth", "--refine", 2, "--width", 20)
    assert status == 0, err
    frames = sorted((tmp_path / "frames").glob("*.png"))
    assert [imageio.imread(frame).shape for frame in frames] == [(20, 40, 3)] * 2


def test_what_the_authors_files_do_not_say_is_set(cpu, balls, tmp_path):
    """Networks without the first pooling, another background, other bounds; the weights fit either way."""
    narrow = ("encoder.width=4", "field.n_hidden=16", "sampling.n_coarse=8", "sampling.n_importance=2", "sampling.n_depth=2")
    config = apply_settings(published(ObjectSettings(""), PixelNerfRun(steps=1)), narrow)
    torch.save(make_field(config).state_dict(), tmp_path / "pixel_nerf_latest")
    told = ("encoder.first_pool=false", "objects.background=black", "objects.near=1.5", "objects.far=2.5")
    changes = [word for text in (*narrow, *told) for word in ("--set", text)]
    taps = {}
    for settings in (narrow, (*narrow, *told)):
        prior = load_prior(tmp_path / "pixel_nerf_latest", CPU, settings)
        taps[prior.background] = [tap.shape[-1] for tap in prior.field.encoder(torch.zeros(1, 3, 32, 32))]
    assert taps == {1.0: [16, 8, 4, 2], 0.0: [16, 16, 8, 4]}
    item = viewed((balls / "balls_test/100",), prior, {"turntable": False, "views": [0], "settings": told}, CPU)[0]
    assert (item.near, item.far) == (1.5, 2.5)
    found = []
    for given in (changes[:10], changes):
        arguments = ("evaluate", tmp_path / "pixel_nerf_latest", balls, "--out", tmp_path / "eval", "--arch", "cpu", *given)
        status, _, err = invoke(*arguments)
        assert status == 0, err
        found.append(json.loads((tmp_path / "eval/metrics.json").read_text())["psnr"])
    assert found[0] != found[1]
    arguments = ("render", balls / "balls_test/100", "--model", tmp_path / "pixel_nerf_latest", "--n-frames", 1, "--arch", "cpu")
    status, _, err = invoke(*arguments, "--out", tmp_path / "frames", *changes)
    assert status == 0, err
    status, _, err = invoke(*arguments, "--out", tmp_path / "other", "--set", "encoder.frist_pool=false")
    assert (status, "first_pool" in err) == (1, True)


def test_a_dry_run_refuses_what_the_training_would(cpu, balls, trained, tmp_path):
    """In the same words, and leaves everything as it was."""
    held = tmp_path / "held"
    shutil.copytree(trained, held)
    before = contents(tmp_path)
    with FolderLock(held):
        for arguments, told in (
            ((balls, "--out", held, "--overwrite"), "is held by this process already"),
            (("--out", held, "--resume"), "is held by this process already"),
            ((balls, "--out", held), "holds a run already"),
            ((tmp_path / "nothing", "--out", tmp_path / "new"), f"{tmp_path / 'nothing'}: "),
        ):
            answers = [invoke("train", *arguments, "--arch", "cpu", "--steps", 3, *dry) for dry in (("--dry-run",), ())]
            assert [status for status, *_ in answers] == [1, 1], arguments
            assert all(told in err.splitlines()[-1] for *_, err in answers), answers
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == ["held"]


def test_figures_of_objects_that_were_trained_on_say_so(cpu, balls, trained, tmp_path):
    """A set of fewer than eight objects without splits has none to spare."""
    for name in ("100", "101"):
        shutil.copytree(balls / "balls_test/100", tmp_path / "plain" / name)
    command = ("train", tmp_path / "plain", "--out", tmp_path / "run", "--preset", "small", "--steps", 1, "--arch", "cpu", *TINY)
    assert invoke(*command)[0] == 0
    found = []
    for run, options in ((tmp_path / "run", ()), (trained, ()), (trained, ("--split", "train"))):
        status, _, err = invoke("evaluate", run, "--arch", "cpu", "--out", tmp_path / "eval", *options)
        assert status == 0, err
        found.append(
            (json.loads((tmp_path / "eval/metrics.json").read_text())["n_trained_on"], "was trained on 2 of these 2" in err)
        )
    assert found == [(2, True), (0, False), (3, False)]


def test_lpips_is_by_vgg_as_published_where_there_is_a_choice(tmp_path):
    """Its figures and AlexNet's cannot be compared."""
    for network, name in (("alex", "alexnet"), ("vgg", "vgg16")):
        taps = [layer.n_out for layer in TRUNKS[network] if layer.tap]
        torch.save({f"lin{i}.model.1.weight": torch.ones(1, n, 1, 1) for i, n in enumerate(taps)}, tmp_path / f"{network}.pth")
        trunk = {}
        for layer in TRUNKS[network]:
            trunk[f"features.{layer.number}.weight"] = torch.zeros(layer.n_out, layer.n_in, layer.kernel, layer.kernel)
            trunk[f"features.{layer.number}.bias"] = torch.zeros(layer.n_out)
        torch.save(trunk, tmp_path / f"{name}.pth")
    assert lpips_of(tmp_path, CPU).network == "vgg"
    (tmp_path / "vgg16.pth").unlink()
    assert lpips_of(tmp_path, CPU).network == "alex"
    (tmp_path / "alexnet.pth").unlink()
    with pytest.raises(WeightsError, match="lacks weights of alex and vgg"):
        lpips_of(tmp_path, CPU)


def test_a_folder_of_frames_goes_on_only_with_the_same_render(cpu, balls, trained, tmp_path):
    out = tmp_path / "frames"
    command = ("render", balls / "balls_test/100", "--out", out, "--arch", "cpu", "--n-frames", 2, "--width", 8, "--refine", 1)
    assert invoke(*command, "--model", trained)[0] == 0
    before = {file: file.read_bytes() for file in out.iterdir()}
    for options, told in (
        (("--model", "builtin"), "model: "),
        (("--views", 1), "sources: "),
        (("--what", "depth"), "what: color there, depth now"),
        (("--refine", 2), "refined: 1 steps from seed 0 there, 2 steps from seed 0 now"),
        (("--seed", 1), "refined: "),
    ):
        status, _, err = invoke(*command, *(options if "--model" in options else ("--model", trained, *options)))
        assert (status, told in err, err.count("\n")) == (1, True, 1), err
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    (out / "00001.png").unlink()
    status, said, err = invoke(*command, "--model", trained)
    assert (status, said) == (0, f"2 frames, 1 of them were there already: {out}\n"), err
    assert {file: file.read_bytes() for file in out.iterdir()} == before


def test_a_training_begins_with_the_weights_of_a_model(cpu, balls, trained, tmp_path):
    """Without learning it ends with them; a model of other sizes is refused."""
    arguments = ("train", balls, "--preset", "small", "--steps", 1, "--arch", "cpu", "--seed", 5, *TINY)
    still = ("--set", "optimiser.learning_rate=0", "--set", "optimiser.warm_up=0")
    status, _, err = invoke(*arguments, "--out", tmp_path / "same", "--start", trained, *still)
    assert status == 0, err
    status, _, err = invoke(*arguments, "--out", tmp_path / "other", *still)
    assert status == 0, err
    same, other, given = (
        dict(load_prior(run, CPU).field.named_parameters()) for run in (tmp_path / "same", tmp_path / "other", trained)
    )
    assert all(torch.equal(same[name], given[name]) for name in given)
    assert not all(torch.equal(other[name], given[name]) for name in given)
    status, _, err = invoke(*arguments, "--out", tmp_path / "wide", "--start", "builtin")
    assert status == 1
    assert "builtin: its networks are not those of this run's settings" in err
    assert invoke(*arguments, "--out", tmp_path / "wide", "--start", trained, "--resume")[0] == 2


def test_a_picture_without_pose_becomes_a_video_with_the_model_that_comes_along(cpu, square, tmp_path):
    arguments = ("render", square, "--turntable", "--azimuth", "30", "--out", tmp_path / "x.gif", "--arch", "cpu")
    status, out, err = invoke(*arguments, "--n-frames", 2, "--fps", 2, "--width", 16)
    assert status == 0, err
    assert "2 frames" in out
    assert imageio.imread(tmp_path / "x.gif", index=None).shape[0] == 2
    status, _, err = invoke("render", square, "--turntable", "--out", tmp_path / "pngs", "--fps", 2)
    assert (status, "--fps is of a video" in err) == (2, True), err


def test_overwriting_waits_until_the_new_run_can_begin(cpu, balls, trained, tmp_path, monkeypatch):
    copy = shutil.copytree(trained, tmp_path / "run")
    before = contents(copy)
    command = ("train", balls, "--preset", "small", "--steps", 1, "--arch", "cpu", "--overwrite", *TINY)
    for fails, status in FAILING_STARTS:
        monkeypatch.setattr(PixelNerfTrainer, "warm_up", fails)
        for out in (copy, tmp_path / "new"):
            assert invoke(*command, "--out", out)[0] == status
    assert contents(copy) == before
    assert not (tmp_path / "new").exists()


def test_settings_of_a_run_cannot_change_on_resuming_but_its_budget_can(cpu, balls, trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "run")
    resume = ("train", "--out", copy, "--resume", "--arch", "cpu")
    for option in (("--preset", "published"), ("--views", 2), ("--seed", 3), ("--set", "batch.n_rays=8"), ("--encoder", "x.pth"),
                   ("--background", "black"), ("--prefix", "gen")):  # fmt: skip
        status, _, err = invoke(*resume, *option)
        assert (status, f"{option[0]} cannot change on --resume" in err) == (2, True)
    status, _, err = invoke("train", tmp_path, *resume[1:])
    assert (status, f"was trained on {balls.resolve()}, not on {tmp_path}" in err) == (1, True)
    status, out, err = invoke("train", balls, *resume[1:], "--steps", 3)
    assert (status, "3 steps in" in out, "nothing was trained" in out) == (0, True, False), err
    assert "nothing was trained" in invoke(*resume)[1]


def test_a_preset_has_source_views_of_its_own_unless_views_says_otherwise(balls, tmp_path):
    for preset, given, wanted in (("small", (), "(1, 2)"), ("published", (), "(1)"), ("small", ("--views", "1-3"), "(1, 2, 3)")):
        arguments = ("train", balls, "--out", tmp_path / "run", "--preset", preset, "--steps", 1, "--dry-run", *given)
        assert f"batch.views = {wanted}" in invoke(*arguments)[1].splitlines()


def test_the_preset_is_small_where_there_is_no_cuda_unless_it_is_chosen(cpu, balls, tmp_path):
    arguments = ("train", balls, "--out", tmp_path / "run", "--steps", 1)
    for options, wanted in (("cpu",), "small"), (("cpu", "--preset", "published"), "published"), (("cuda",), "published"):
        assert f"run.preset = {wanted}" in invoke(*arguments, "--dry-run", "--arch", *options)[1].splitlines()
    status, _, err = invoke(*arguments, "--arch", "cpu", *TINY)
    assert (status, err.startswith("preset small, as networks are not trained on CUDA")) == (0, True)


def test_a_path_file_says_how_many_frames_how_large_and_how_fast_unless_options_do(trained, balls, tmp_path):
    options = {"turntable": False, "views": [0], "settings": ()}
    item = viewed((balls / "balls_test/100",), load_prior(trained, CPU), options, CPU)[0]
    orbit = cameras_like(item, orbit_of(item, 5))
    write_camera_path(tmp_path / "path.json", orbit, fps=7)
    cameras, fps = cameras_for(item, [0], None, None, tmp_path / "path.json")
    assert (len(cameras), cameras.sizes[0].tolist(), fps) == (5, [24, 24], 7)
    cameras, fps = cameras_for(item, [0], 3, 12, tmp_path / "path.json")
    assert (len(cameras), cameras.sizes[0].tolist(), fps) == (3, [12, 12], 7)
    np.testing.assert_allclose(cameras.camera_to_worlds, orbit.camera_to_worlds[[0, 2, 4]], atol=1e-5)
    cameras, fps = cameras_for(item, [0], None, None, None)
    assert (len(cameras), fps) == (60, 20)


def test_options_that_have_no_use_are_refused(balls, square, tmp_path):
    folder = ("render", balls / "balls_test/100", "--out", tmp_path / "x.gif")
    for option in (("--mask", square), ("--threshold", 0.2), ("--fill", 0.5), ("--azimuth", 10), ("--elevation", 20),
                   ("--size", 32), ("--distance", 1.5), ("--field-of-view", 40), ("--reach", 0.5)):  # fmt: skip
        status, _, err = invoke(*folder, *option)
        assert (status, f"{option[0]} is for pictures without poses: it goes with --turntable" in err) == (2, True)
    status, _, err = invoke("render", square, "--turntable", "--views", 3, "--out", tmp_path / "x.gif")
    assert (status, "--views is for a folder with poses" in err) == (2, True)
    status, _, err = invoke(*folder, "--distil-seconds", 5)
    assert (status, "--distil-seconds goes with --distil" in err) == (2, True)


@pytest.mark.parametrize(("command", "setting", "why"), [
    ("evaluate", "run.seed=3", "on a model that is trained"),
    ("evaluate", "batch.n_rays=8", "on a model that is trained"),
    ("render", "optimiser.learning_rate=1", "on a model that is trained"),
    ("evaluate", "sampling.depth_gradient=true", "where nothing is trained"),
    ("render", "sampling.depth_gradient=true", "without --refine"),
    ("render", "objects.prefix=gen", "where PICTURES are named"),
    ("turntable", "objects.near=0.1", "with --turntable"),
])  # fmt: skip
def test_settings_that_a_trained_model_has_no_use_for_are_refused(cpu, balls, trained, square, tmp_path, command, setting, why):
    arguments = {
        "evaluate": ("evaluate", trained, balls),
        "render": ("render", balls / "balls_test/100", "--model", trained),
        "turntable": ("render", square, "--turntable", "--model", trained),
    }[command]
    several = ("--set", "sampling.n_depth=4", "--set", setting)  # with samples whose depths could have gradients
    status, _, err = invoke(*arguments, "--out", tmp_path / "out", "--arch", "cpu", *several)
    assert (status, err.splitlines()[-1]) == (1, f"error: {setting}: has no effect {why}")
    assert not (tmp_path / "out").exists()


def test_the_density_of_a_trained_model_may_be_shifted(cpu, trained):
    """One more in its logarithm."""
    raw = torch.tensor([-1.0, 0.0, 1.0])
    here = load_prior(trained, CPU)
    more = load_prior(trained, CPU, [f"field.log_density={here.config.field.log_density + 1}"])
    assert torch.allclose(more.field._density(raw), math.e * here.field._density(raw))


def test_a_prefix_is_heeded_by_an_evaluation_of_the_models_own_set(cpu, trained, monkeypatch):
    def opened(place, split):
        raise ValueError(f"the lists {place.prefix!r} of {split}")

    monkeypatch.setattr("taichi_nerf.training.pixelnerf_objects.ObjectSet", opened)
    assert invoke("evaluate", trained, "--prefix", "gen", "--arch", "cpu")[2] == "error: the lists 'gen' of test\n"


@pytest.mark.parametrize(("setting", "beside", "why"), [
    ("sampling.depth_std=0.1", "sampling.n_depth=0", "without sampling.n_depth"),
    ("sampling.depth_gradient=true", "sampling.n_depth=0", "without sampling.n_depth"),
    ("field.log_density=2", "field.density=softplus", "without field.density=exp"),
])  # fmt: skip
def test_settings_that_have_no_use_are_refused(cpu, balls, trained, tmp_path, setting, beside, why):
    """It trains to the same bits without them."""
    config = apply_settings(load_prior(trained, CPU).config, ["sampling.n_importance=4", beside])
    losses = []
    for settings in ([], [setting]):
        trainer = PixelNerfTrainer(apply_settings(config, settings), ObjectSet(config.objects, "train"), CPU)
        losses.append([trainer.step().loss for _ in range(2)])
    assert losses[0] == losses[1]
    both = ("--set", beside, "--set", setting)
    told = f"error: {setting}: has no effect {why}"
    status, _, err = invoke("train", balls, "--out", tmp_path / "run", "--preset", "published", "--steps", 1, "--dry-run", *both)
    assert (status, err.splitlines()[-1]) == (1, told)
    status, _, err = invoke("evaluate", trained, balls, "--out", tmp_path / "eval", "--arch", "cpu", *both)
    assert (status, err.splitlines()[-1]) == (1, told)
    status, _, err = invoke("train", balls, "--out", tmp_path / "run", "--preset", "published", "--steps", 1, "--dry-run",
                            "--set", setting, "--set", "field.density=exp")  # fmt: skip
    assert status == 0, err


def test_what_cannot_be_written_is_refused_before_anything_is_asked(square, tmp_path, monkeypatch):
    monkeypatch.setattr("taichi_nerf.training.pixelnerf_model.load_prior", None)
    (tmp_path / "grid/run").mkdir(parents=True)
    (tmp_path / "grid/run/config.json").touch()
    render = ("render", square, "--turntable", "--arch", "cpu", "--out")
    for arguments, told in (
        ((*render, "x.mp5"), "x.mp5: expected a name that ends in .mp4 or .gif"),
        ((*render, tmp_path / "x.gif", "--distil", tmp_path / "grid"), "run: is there already"),
        ((*render, "x.gif", "--path", tmp_path / "absent.json"), "absent.json: no such file"),
        (("evaluate", "builtin", tmp_path, "--out", square), "figures go into a folder"),
    ):
        status, _, err = invoke(*arguments)
        assert (status, told in err) == (1, True)


def test_whoever_waits_for_the_direction_of_a_picture_is_told_how_far_it_is(cpu, square):
    told = []
    item = on_turntable([square], Turntable(size=8))
    with_best_azimuth(load_prior("builtin", CPU), item, CPU, lambda done, text: told.append(done))
    assert told == pytest.approx(np.arange(1, 15) / 14)


def test_no_object_of_a_set_is_both_trained_on_and_validated_with(cpu, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("taichi_nerf.procedural.object_set.make_object_set", lambda *arguments, **_: made.append(arguments))
    command = ("objects", tmp_path / "set", "--families", "cars, chairs,cars", "--arch", "cpu", "--count")
    assert invoke(*command, 9000)[0] == 0
    named, _, seeds = made[0]
    assert (list(named), len(seeds["train"])) == (["cars", "chairs"], 9000)
    assert not set(seeds["train"]) & set(seeds["val"])
    assert invoke(*command, 9001)[0] == 2


def test_figures_that_cannot_be_written_are_refused_before_they_are_measured(cpu, balls, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    (tmp_path / "run/eval").write_bytes(b"")  # permissions would not keep root from writing
    monkeypatch.setattr("taichi_nerf.training.pixelnerf_evaluate.evaluate", None)
    status, _, err = invoke("evaluate", tmp_path / "run", balls, "--arch", "cpu")
    assert (status, err.startswith(f"error: {tmp_path / 'run/eval/test'}: cannot be written: ")) == (1, True)


def test_mistakes_are_one_line(cpu, balls, trained, square, tmp_path):
    assert "how long" in invoke("train", balls, "--out", tmp_path / "run")[2]
    assert "--resume goes on" in invoke("train", balls, "--out", trained, "--steps", 1)[2]
    assert (
        "needs" in invoke("render", square, "--out", tmp_path / "x.gif")[2]
        or "--turntable" in invoke("render", square, "--out", "x.gif")[2]
    )
    status, _, err = invoke("evaluate", tmp_path / "nothing", balls)
    assert (status, err.count("\n")) == (1, 1)
    assert "no such model" in err
    status, _, err = invoke("evaluate", trained, "--views", "7", "--arch", "cpu")
    assert status == 1
    assert "has views 0 to 2" in err
    assert "expected some of color" in invoke("render", square, "--turntable", "--out", "x.gif", "--what", "colour")[2]


def test_the_model_that_comes_along_is_small_and_tells_its_settings():
    assert BUILTIN.stat().st_size <= 12e6
    tensors, header = read_tensors(BUILTIN)
    settings = json.loads(header["settings"])
    assert settings["run"]["preset"] == "small"
    assert settings["objects"]["path"] == ""  # nobody's folder
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_a_picture_is_cut_out_by_alpha_by_mask_or_by_its_border(square, tmp_path):
    inside = np.zeros((60, 80), np.uint8)
    inside[10:40, 50:70] = 255
    picture = imageio.imread(square)
    imageio.imwrite(tmp_path / "alpha.png", np.concatenate([picture, inside[..., None]], -1))
    imageio.imwrite(tmp_path / "mask.png", inside)
    wanted = torch.from_numpy(inside) > 0
    for file, mask in ((square, None), (tmp_path / "alpha.png", None), (square, tmp_path / "mask.png")):
        assert torch.equal(matted(file, 0.1, mask)[1] > 0.5, wanted)
    with pytest.raises(ValueError, match="nothing that differs"):
        on_turntable([square], Turntable(threshold=2))


def test_the_thing_comes_to_the_middle_and_fills_what_it_should(square):
    color, alpha = matted(square, 0.1, None)
    place = Turntable(size=40, fill=0.5)
    shown, cover = in_the_middle(color, alpha, place, square)
    assert cover.sum() == pytest.approx(20 * 20 * 2 / 3, rel=0.03)  # 30 pixels became 20, so 20 became 13.3
    rows, columns = cover.sum(1), cover.sum(0)
    even = torch.arange(40) + 0.5
    assert float((rows * even).sum() / rows.sum()) == pytest.approx(20, abs=0.1)
    assert float((columns * even).sum() / columns.sum()) == pytest.approx(20, abs=0.1)
    assert shown[cover > 0.99].mean(0).tolist() == pytest.approx([200 / 255, 20 / 255, 30 / 255], abs=0.01)


def test_several_pictures_share_a_full_turn(square):
    place = Turntable(elevation=30, distance=3, reach=1)
    item = on_turntable([square] * 4, place, azimuth=90)
    eyes = item.camera_to_worlds[:, :, 3]
    level = 3 * 3**0.5 / 2
    wanted = [[level, 0, 1.5], [0, level, 1.5], [-level, 0, 1.5], [0, -level, 1.5]]
    torch.testing.assert_close(eyes, torch.tensor(wanted), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(-eyes / 3, item.camera_to_worlds[:, :, 2], atol=1e-5, rtol=1e-5)
    assert (item.near, item.far) == (2, 4)
    again = turned(on_turntable([square] * 4, place), 90)
    torch.testing.assert_close(again.camera_to_worlds, item.camera_to_worlds, atol=1e-5, rtol=1e-5)


def test_an_orbit_begins_at_the_source_view_and_keeps_its_height(square):
    item = on_turntable([square], Turntable(), azimuth=40)
    poses = orbit_of(item, 8)
    np.testing.assert_allclose(poses[0], item.camera_to_worlds[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(poses[:, 2, 3], poses[0, 2, 3])
    np.testing.assert_allclose(np.linalg.norm(poses[:, :, 3], axis=-1), 2, atol=1e-5)


@pytest.mark.parametrize("compat", ["centres", "repo"])
def test_the_cameras_of_a_written_prediction_are_those_that_took_its_pictures(cpu, tmp_path, monkeypatch, compat):
    """A ball beside the origin lies in every picture where the scene's cameras project it, whatever lens the sources had."""
    from taichi_nerf.scenes import load_scene
    from taichi_nerf.training import pixelnerf_distil

    monkeypatch.setattr(pixelnerf_distil, "N_TRAIN", 4)
    monkeypatch.setattr(pixelnerf_distil, "N_TEST", 2)
    narrow = ("encoder.width=4", "field.n_hidden=16", "sampling.n_coarse=64", f"field.compat={compat}")
    config = apply_settings(published(ObjectSettings(""), PixelNerfRun(steps=1)), narrow)
    field, middle = make_field(config).eval(), torch.tensor([0.2, -0.1, 0.15])
    field.look = lambda encoded, at, along, fine=False: (1e3 * ((at - middle).norm(dim=-1) < 0.2).float(), torch.ones_like(at))
    cameras, pictures = ball_views(0, size=32)
    cameras = replace(cameras, intrinsics=cameras.intrinsics * [1, 1.3, 1.2, 0.9])
    pictures = torch.from_numpy(pictures)
    item = object_of("0", "balls", pictures, None, cameras, 1.25, 2.75)
    write_scene(Prior(field, config), item, [0], tmp_path / "scene", CPU, width=48)
    scene = load_scene(tmp_path / "scene")
    center = scene.scene_from_source(middle.double().numpy())
    y, x = np.mgrid[:48, :48] + 0.5
    for view in range(6):
        alpha = scene.images[view][..., 3].astype(float)
        pose, (fx, fy, cx, cy) = scene.cameras.camera_to_worlds[view], scene.cameras.intrinsics[view]
        right, down, ahead = pose[:, :3].T @ (center - pose[:, 3])
        expected = fx * right / ahead + cx, fy * down / ahead + cy
        found = (alpha * x).sum() / alpha.sum(), (alpha * y).sum() / alpha.sum()
        np.testing.assert_allclose(found, expected, atol=0.2)  # of a ball's outline the middle is nearly its middle


def test_a_prediction_is_written_as_a_scene_that_shows_it(cpu, trained, tmp_path, monkeypatch):
    """And opens as every scene: pictures with alpha, poses around the origin."""
    from taichi_nerf.scenes import load_scene
    from taichi_nerf.training import pixelnerf_distil

    monkeypatch.setattr(pixelnerf_distil, "N_TRAIN", 4)
    monkeypatch.setattr(pixelnerf_distil, "N_TEST", 2)
    cameras, pictures = ball_views(0)
    pictures = torch.from_numpy(pictures)
    item = object_of("0", "balls", pictures, (pictures != 255).any(-1), cameras, 1.25, 2.75)
    write_scene(load_prior(trained, CPU), item, [0], tmp_path / "scene", CPU)
    scene = load_scene(tmp_path / "scene")
    assert {name: len(index) for name, index in scene.splits.items()} == {"train": 4, "test": 2}
    assert scene.images[0].shape == (24, 24, 4)
    centers = scene.scene_from_source.inverse()(scene.cameras.centers)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=-1), 2, atol=1e-5)
