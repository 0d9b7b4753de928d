"""train, evaluate, render and export, as a user meets them, on a scene that takes seconds."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
import small_run
import torch
import trimesh
from click.testing import CliRunner
from failing_starts import FAILING_STARTS, contents
from skimage.metrics import structural_similarity

from taichi_nerf.apps.main import main
from taichi_nerf.camera_path import write_camera_path
from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes import load_scene, read_source
from taichi_nerf.scenes.similarity import Similarity
from taichi_nerf.scenes.write_multiscale import write_multiscale
from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.evaluate import compare
from taichi_nerf.training.export_run import gltf_from_source
from taichi_nerf.training.folder_lock import FolderLock
from taichi_nerf.training.run import load_run
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.training.trainer import Trainer
from taichi_nerf.trajectories import orbit

# Of AlexNet's convolutions, by torchvision's number: channels out and in, and the side of the kernel.
ALEXNET = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def invoke(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def scene(small_scene):
    return small_scene


@pytest.fixture(scope="module")
def run(scene, tmp_path_factory):
    """A run by the command; tests leave it as it is but for eval/."""
    out = tmp_path_factory.mktemp("runs") / "run"
    status, said, err = invoke("train", scene, "--out", out, "--arch", "cpu", "--steps", 120, *small_run.SETTINGS)
    assert status == 0, err
    assert f"taichi-nerf evaluate {out}" in said
    return out


# --- train --------------------------------------------------------------------------------------------------------------


def test_a_box_that_the_cameras_do_not_see_is_told_or_refused(scene, tmp_path):
    training = ("train", scene, "--out", tmp_path / "run", "--arch", "cpu", "--steps", 2, *small_run.SETTINGS)
    status, _, err = invoke(*training, "--scale", 20)
    told = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert (status, len(told)) == (0, 1), err
    assert "--scale" in told[0]
    before = contents(tmp_path)
    status, _, err = invoke(*training, "--scale", 1e5, "--overwrite")
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {scene.resolve()}: no ray of the training views meets the box")
    assert contents(tmp_path) == before


def test_a_run_folder_holds_what_it_should(run, scene):
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["field"]["n_levels"] == 6
    assert config["settings"]["run"]["steps"] == 120
    assert config["scene"]["location"] == str(scene.resolve())
    assert len(config["scene"]["content_hash"]) == 32
    assert (config["arch"], bool(config["device"])) == ("cpu", True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 120
    assert set(rows[-1]) == {
        *("step", "seconds", "loss", "train_psnr", "rays_per_second", "samples_per_second", "n_samples_per_ray")
    }
    rates = rows[-1]["samples_per_second"] / rows[-1]["rays_per_second"]
    assert rates == pytest.approx(rows[-1]["n_samples_per_ray"], rel=1e-6)
    assert imageio.imread(run / "plots/training.png").shape == (450, 1500, 4)
    previews = sorted((run / "preview").iterdir())
    assert [file.name[:9] for file in previews] == ["test_0010", "test_0011", "test_0012"]
    assert imageio.imread(previews[0]).shape == (40, 4 * 40, 3)
    state, metadata = load_checkpoint(run / "checkpoint.safetensors")
    assert state["n_steps"] == 120
    assert json.loads(metadata["config"])["settings"] == config["settings"]


def test_an_existing_run_is_never_overwritten_unasked(run, scene):
    before = (run / "checkpoint.safetensors").read_bytes()
    status, _, err = invoke("train", scene, "--out", run, "--arch", "cpu", "--steps", 1)
    assert status == 1
    assert err == f"error: {run}: holds a run already; --resume goes on with it, --overwrite replaces it\n"
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_overwriting_waits_until_the_new_run_can_begin(run, scene, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    before = contents(copy)
    command = ("train", scene, "--arch", "cpu", "--steps", 1, *small_run.SETTINGS)
    for fails, status in FAILING_STARTS:
        monkeypatch.setattr(Trainer, "warm_up", fails)
        for out in (copy, tmp_path / "new"):
            assert invoke(*command, "--out", out, "--overwrite")[0] == status
    monkeypatch.undo()
    assert contents(copy) == before
    assert not (tmp_path / "new").exists()
    assert invoke(*command, "--out", copy, "--overwrite")[0] == 0
    assert [row["step"] for row in RunFolder.open(copy).read_metrics()] == [1]


def test_a_dry_run_prints_every_setting_and_writes_nothing(scene, tmp_path):
    status, out, _ = invoke("train", scene, "--out", tmp_path / "run", "--dry-run", "--set", "field.n_levels=7")
    assert status == 0
    assert "field.n_levels = 7" in out
    assert "preset default: 10000 steps" in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_training_would(scene, run, tmp_path):
    """In the same words, and leaves everything as it was."""
    held, foreign, file = tmp_path / "held", tmp_path / "foreign", tmp_path / "file"
    shutil.copytree(run, held)
    foreign.mkdir()
    (foreign / "mine.txt").write_text("")
    file.write_text("")
    resident = ("--set", "backend.resident=true")
    before = [sorted(tmp_path.rglob("*")), contents(tmp_path)]
    with FolderLock(held):
        for arguments, told in (
            ((scene, "--out", held, "--overwrite"), "is held by this process already"),
            (("--out", held, "--resume"), "is held by this process already"),
            ((scene, "--out", held), "holds a run already; --resume goes on with it, --overwrite replaces it"),
            ((scene, "--out", foreign), "is no run and not empty (it holds mine.txt)"),
            ((scene, "--out", file / "run"), ""),  # below a file no folder can be made
            ((scene, "--out", tmp_path / "new", *resident), "backend.resident=true: on processors torch's memory is"),
        ):
            answers = [invoke("train", *arguments, "--arch", "cpu", "--steps", 30, *dry) for dry in (("--dry-run",), ())]
            assert [status for status, *_ in answers] == [1, 1], arguments
            assert all(told in err.splitlines()[-1] for *_, err in answers), answers
    assert [sorted(tmp_path.rglob("*")), contents(tmp_path)] == before
    status, out, err = invoke("train", scene, "--out", held, "--overwrite", "--dry-run", "--arch", "cpu")
    assert (status, "field.n_levels" in out) == (0, True), err
    assert contents(tmp_path) == before[1]


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
def test_a_dry_run_refuses_a_folder_that_cannot_be_written(scene, tmp_path):
    tmp_path.chmod(0o500)
    try:
        status, _, err = invoke("train", scene, "--out", tmp_path / "run", "--dry-run", "--arch", "cpu")
    finally:
        tmp_path.chmod(0o700)
    assert (status, "cannot be written" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--set", "field.n_level=7"), 1, "did you mean field.n_levels?"),
        (("--set", "field.n_levels=many"), 1, "field.n_levels"),
        (("--resume", "--overwrite"), 2, "give one of them"),
        (("--method", "npg"), 2, "'npg' is not"),
        (("--preset", "slow"), 1, "--preset slow: method ngp has no such preset. There are ngp: fast, default, quality"),
        (("--steps", "0"), 2, "--steps"),
        (("--set", "batch.n_samples=-5"), 1, "error: batch: n_samples: expected 1 to 5e+07, got -5\n"),
        (("--set", "field.n_levels=-3", "--dry-run"), 1, "error: field: n_levels: expected 1 to 64, got -3\n"),
        (("--n-views", "4", "--views", "1,2"), 1, "not both"),
    ],
)
def test_wrong_options_are_told_and_leave_nothing(arguments, status, told, scene, tmp_path):
    found, _, err = invoke("train", scene, "--out", tmp_path / "run", "--arch", "cpu", *arguments)
    assert (found, told in err) == (status, True), err
    assert not (tmp_path / "run").exists()


def test_a_scene_is_needed_unless_a_run_goes_on(tmp_path):
    status, _, err = invoke("train", "--out", tmp_path / "run")
    assert (status, "Missing argument 'SCENE'" in err) == (2, True)
    status, _, err = invoke("train", "--out", tmp_path / "run", "--resume")
    assert (status, "no such run" in err) == (1, True)


def test_settings_of_a_run_cannot_change_on_resuming_but_its_budget_can(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    status, _, err = invoke("train", "--out", copy, "--resume", "--arch", "cpu", "--preset", "fast")
    assert (status, "--preset cannot change on --resume" in err) == (2, True)
    status, out, err = invoke("train", "--out", copy, "--resume", "--arch", "cpu", "--steps", 130)
    assert status == 0, err
    assert out.splitlines()[1].startswith("130 steps in ")
    assert json.loads((copy / "config.json").read_text())["settings"]["run"]["steps"] == 130
    steps = [row["step"] for row in RunFolder.open(copy).read_metrics()]
    assert steps == sorted(set(steps))
    assert (120 in steps, steps[-1]) == (True, 130)


def test_commands_that_are_printed_can_be_pasted_whatever_the_folder_is_called(run, scene, tmp_path):
    """A shell would split the name: here `shlex` reads the line as a shell does."""
    copy = shutil.copytree(run, tmp_path / "my run; it's Ä")
    status, out, err = invoke("train", "--out", copy, "--resume", "--arch", "cpu", "--steps", 121)
    assert status == 0, err
    words = [shlex.split(line) for line in out.splitlines() if "taichi-nerf" in line]
    assert ["taichi-nerf", "evaluate", str(copy)] in [line[-3:] for line in words]
    assert ["taichi-nerf", "render", str(copy), "--out", str(copy / "orbit.mp4")] in [line[-5:] for line in words]
    (copy / "checkpoint.safetensors").unlink()
    for error in (invoke("evaluate", copy, "--arch", "cpu")[2], invoke("pixelnerf", "evaluate", copy, scene, "--arch", "cpu")[2]):
        assert str(copy) in shlex.split(error.split("`")[-2])
    assert str(tmp_path / "no run") in shlex.split(invoke("evaluate", tmp_path / "no run")[2].split("`")[1])


def test_where_no_view_is_held_out_no_command_is_suggested_that_would_look_for_one(scene, tmp_path):
    every = f"0-{len(load_scene(scene).names) - 1}"
    arguments = ("train", scene, "--out", tmp_path / "run", "--views", every, "--steps", 1, "--arch", "cpu", *small_run.SETTINGS)
    status, said, err = invoke(*arguments)
    assert status == 0, err
    assert "no view was held out to tell by" in said
    assert "taichi-nerf evaluate" not in said


def test_a_budget_that_is_spent_is_told(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    for option in ((), ("--steps", 119), ("--time-budget", 0.001)):
        status, out, err = invoke("train", "--out", copy, "--resume", "--arch", "cpu", *option)
        assert (status, "nothing was trained: --steps and --time-budget count from the beginning" in out) == (0, True), err
        assert RunFolder.open(copy).read_metrics()[-1]["step"] == 120
    assert "nothing was trained" not in invoke("train", "--out", copy, "--resume", "--arch", "cpu", "--steps", 121)[1]


def test_a_training_does_not_go_on_without_one_of_its_pictures_and_says_that_the_scene_has_changed(run, scene, tmp_path):
    copy, fewer = shutil.copytree(run, tmp_path / "run"), shutil.copytree(scene, tmp_path / "fewer")
    (fewer / "train/r_3.png").unlink()
    config = json.loads((copy / "config.json").read_text())
    config["settings"]["scene"]["path"] = str(fewer)
    (copy / "config.json").write_text(json.dumps(config))
    before = (copy / "checkpoint.safetensors").read_bytes()
    status, _, err = invoke("train", "--out", copy, "--resume", "--arch", "cpu", "--steps", 130)
    warning, *_, error = [line for line in err.splitlines() if line.startswith(("warning", "error"))]
    assert (status, warning) == (1, f"warning: {fewer}: its files are not those that {copy} was trained on")
    assert error.startswith(f"error: {copy}/checkpoint.safetensors: does not fit to the settings and the scene as it is now (")
    assert (copy / "checkpoint.safetensors").read_bytes() == before


def started(scene, out):
    command = [sys.executable, "-m", "taichi_nerf", "train", str(scene), "--out", str(out), "--arch", "cpu", "--steps", "100000"]
    process = subprocess.Popen([*command, *small_run.SETTINGS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waited = time.monotonic() + 300
    while not (out / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < waited:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on_from_there(sent, status, scene, tmp_path):
    out = tmp_path / "run"
    process = started(scene, out)
    process.send_signal(sent)
    _, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert f"taichi-nerf train --out {out} --resume" in err
    n = load_run(out, torch.device("cpu")).n_steps
    assert n == RunFolder.open(out).read_metrics()[-1]["step"] > 0
    code, _, err = invoke("train", "--out", out, "--resume", "--arch", "cpu", "--steps", n + 3)
    assert code == 0, err
    assert load_run(out, torch.device("cpu")).n_steps == n + 3


# --- evaluate -----------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_saved_pictures(run, scene):
    status, out, err = invoke("evaluate", run, "--arch", "cpu", "--save-images")
    assert status == 0, err
    found = json.loads((run / "eval/test/metrics.json").read_text())
    assert (found["split"], found["background"], found["n_images"], found["ssim_variant"]) == ("test", "white", 3, "skimage")
    assert (found["lpips"], found["inside_mask"], found["step"]) == (None, False, 120)
    assert found["psnr"] == pytest.approx(np.mean([image["psnr"] for image in found["images"]]))
    assert f"PSNR  {found['psnr']:.2f} dB" in out
    assert found["psnr"] > 17
    saved = sorted((run / "eval/test").glob("*.png"))
    for image, file, view in zip(found["images"], saved, (10, 11, 12), strict=True):
        render = imageio.imread(file) / 255
        rgba = imageio.imread(scene / "test" / f"r_{view - 10}.png") / 255
        truth = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        assert image["psnr"] == pytest.approx(-10 * np.log10(((render - truth) ** 2).mean()), abs=0.02)
        assert image["ssim"] == pytest.approx(structural_similarity(render, truth, data_range=1, channel_axis=2), abs=2e-3)


@pytest.mark.parametrize("n_equal", [1, 3])
def test_pictures_that_equal_the_truth_are_told_of(run, tmp_path, monkeypatch, n_equal):
    """Their PSNR is infinite: a line says so, and the mean is that of the others."""

    def compared(*arguments):
        found = compare(*arguments)
        return found._replace(render=found.truth + 0.1 * (arguments[1] >= 10 + n_equal))

    monkeypatch.setattr("taichi_nerf.training.evaluate.compare", compared)
    status, out, err = invoke("evaluate", run, "--arch", "cpu", "--out", tmp_path)
    assert status == 0, err
    assert f"\n{n_equal} of the pictures equal the truth: infinite PSNR, which is in no mean\n" in out
    assert ("PSNR  20.00 dB" in out) == (n_equal < 3)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert [image["psnr"] is None for image in found["images"]] == [i < n_equal for i in range(3)]
    assert found["ssim"] is not None


def test_figures_of_each_size_stand_apart_and_pictures_too_small_for_lpips_cost_no_figure(scene, tmp_path):
    write_multiscale(read_source(scene), tmp_path / "scales", 2)  # 40 and 20 pixels; LPIPS needs 32
    trunk = {f"features.{number}.weight": torch.zeros(n, m, side, side) for number, (n, m, side) in ALEXNET.items()}
    trunk |= {f"features.{number}.bias": torch.zeros(n) for number, (n, _, _) in ALEXNET.items()}
    torch.save(trunk, tmp_path / "alexnet.pth")
    linear = {f"lin{i}.model.1.weight": torch.zeros(1, n, 1, 1) for i, (n, _, _) in enumerate(ALEXNET.values())}
    torch.save(linear, tmp_path / "alex.pth")
    run = tmp_path / "run"
    status, _, err = invoke("train", tmp_path / "scales", "--out", run, "--arch", "cpu", "--steps", 5, *small_run.SETTINGS)
    assert status == 0, err
    status, out, err = invoke("evaluate", run, "--arch", "cpu", "--save-images", "--lpips", tmp_path)
    assert status == 0, err
    assert "LPIPS sees nothing of pictures of less than 32 x 32 pixels" in err
    found = json.loads((run / "eval/test/metrics.json").read_text())
    assert [(row["width"], row["height"], row["n_images"]) for row in found["sizes"]] == [(40, 40, 3), (20, 20, 3)]
    assert [row["lpips"] for row in found["sizes"]] == [0, None]
    saved = [imageio.imread(file) / 255 for file in sorted((run / "eval/test").glob("*.png"))]
    for level, row in enumerate(found["sizes"]):
        errors = []
        for i in range(3):
            rgba = imageio.imread(tmp_path / f"scales/images_test/{i:03d}_d{level}.png") / 255
            truth = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
            (render,) = [picture for picture in saved[2 * i : 2 * i + 2] if picture.shape == truth.shape]
            errors.append(-10 * np.log10(((render - truth) ** 2).mean()))
        assert row["psnr"] == pytest.approx(np.mean(errors), abs=0.02)
        assert f"{row['width']} x {row['height']}: PSNR {row['psnr']:.2f} dB" in out
    assert found["average_error"] == found["sizes"][0]["average_error"] == 0  # LPIPS of zeros is zero


def test_a_split_or_view_that_is_not_there_names_those_that_are(run):
    status, _, err = invoke("evaluate", run, "--arch", "cpu", "--split", "tset")
    assert (status, "has no split 'tset'; it has train, test" in err) == (1, True), err
    status, _, err = invoke("evaluate", run, "--arch", "cpu", "--views", "3")
    assert (status, "view 3 is not of split 'test', which has 10, 11, 12" in err) == (1, True), err
    assert not (run / "eval/tset").exists()


def test_a_view_that_is_named_twice_counts_once(run):
    figures = run / "eval/test/metrics.json"
    assert invoke("evaluate", run, "--arch", "cpu", "--views", "10,12")[0] == 0
    once = json.loads(figures.read_text())
    assert invoke("evaluate", run, "--arch", "cpu", "--views", "10-10,12,10")[0] == 0
    twice = json.loads(figures.read_text())
    assert (twice["n_images"], twice["views"], twice["psnr"]) == (2, [10, 12], once["psnr"])


def test_missing_weights_are_told(run, tmp_path):
    status, _, err = invoke("evaluate", run, "--arch", "cpu", "--lpips", tmp_path / "none")
    assert (status, err.count("\n")) == (1, 1)
    assert str(tmp_path / "none") in err


def test_a_moved_scene_is_told_and_found_where_it_is_now(run, scene, tmp_path):
    copy, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["settings"]["scene"]["path"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    status, _, err = invoke("evaluate", copy, "--arch", "cpu")
    assert (status, f"{tmp_path / 'gone'} is not there any more; name its new place with --scene" in err) == (1, True)
    for given in ((), (tmp_path / "gone",)):  # `train` has no --scene
        status, _, err = invoke("train", *given, "--out", copy, "--resume", "--arch", "cpu")
        assert (status, f"{tmp_path / 'gone'}, which is not there any more; name its new place as SCENE" in err) == (1, True)
    status, _, err = invoke("evaluate", run, "--arch", "cpu", "--scene", tmp_path / "typo")
    assert (status, err) == (1, f"error: --scene {tmp_path / 'typo'}: no such file or folder\n")
    shutil.copytree(scene, moved)
    status, _, err = invoke("evaluate", copy, "--arch", "cpu", "--scene", moved, "--views", "10")
    assert (status, "warning" in err) == (0, False), err
    status, said, err = invoke("train", moved, "--out", copy, "--resume", "--arch", "cpu", "--steps", 121)
    assert (status, "121 steps in" in said) == (0, True), err
    picture = imageio.imread(moved / "test/r_0.png").copy()
    picture[:5] = 7
    imageio.imwrite(moved / "test/r_0.png", picture)
    status, _, err = invoke("evaluate", copy, "--arch", "cpu", "--scene", moved, "--views", "10")
    assert (status, "its files are not those that" in err) == (0, True)


# --- render and export --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "path", "arguments", "shape"),
    [
        ("orbit.mp4", "orbit", ("--n-frames", 4, "--fps", 12, "--what", "color,depth,opacity,normals"), (4, 40, 160, 3)),
        ("spiral.gif", "spiral", ("--n-frames", 3, "--width", 24, "--antialias", 2), (3, 24, 24, 3)),
        ("between.mp4", "interpolate", ("--n-frames", 3, "--height", 20, "--width", 30), (3, 20, 30, 3)),
    ],
)
def test_videos_have_the_frames_that_were_asked_for(name, path, arguments, shape, run, tmp_path):
    status, _, err = invoke("render", run, "--arch", "cpu", "--out", tmp_path / name, "--path", path, *arguments)
    assert status == 0, err
    plugin = "FFMPEG" if name.endswith("mp4") else "pillow"
    video = imageio.imread(tmp_path / name, plugin=plugin, **({} if plugin == "FFMPEG" else {"mode": "RGB"}))
    assert video.shape == shape
    if "--fps" in arguments:
        assert imageio.immeta(tmp_path / name, plugin=plugin)["fps"] == 12


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("name", "shape"), [("frames", (1, 9, 14, 3)), ("x.gif", (1, 9, 14, 3)), ("x.mp4", (1, 10, 14, 3))])
def test_frames_are_as_large_as_was_asked_for_and_even_only_where_video_has_to_be(name, shape, run, tmp_path):
    asked = ("--n-frames", 1, "--width", 7, "--height", 9, "--what", "color,opacity")
    status, _, err = invoke("render", run, "--arch", "cpu", "--out", tmp_path / name, *asked)
    assert status == 0, err
    if name == "frames":
        assert imageio.imread(tmp_path / "frames/00000.png").shape == shape[1:]
    elif name == "x.gif":
        assert imageio.imread(tmp_path / name, plugin="pillow", mode="RGB").reshape(-1, *shape[1:]).shape == shape
    else:
        assert imageio.imread(tmp_path / name, plugin="FFMPEG").shape == shape


def test_the_test_path_shows_what_evaluation_saw_and_a_folder_goes_on(run, tmp_path):
    out = tmp_path / "frames"
    assert invoke("render", run, "--arch", "cpu", "--out", out, "--path", "test")[0] == 0
    invoke("evaluate", run, "--arch", "cpu", "--save-images")
    saved = sorted((run / "eval/test").glob("*.png"))
    for frame, file in zip(sorted(out.glob("*.png")), saved, strict=True):
        np.testing.assert_array_equal(imageio.imread(frame), imageio.imread(file))
    (out / "00001.png").unlink()
    before = (out / "00000.png").stat().st_mtime_ns
    status, said, _ = invoke("render", run, "--arch", "cpu", "--out", out, "--path", "test")
    assert (status, "2 of them were there already" in said) == (0, True)
    assert (out / "00000.png").stat().st_mtime_ns == before
    assert (out / "00001.png").exists()


def test_a_folder_is_not_continued_with_frames_of_another_render(run, tmp_path):
    out, copy = tmp_path / "frames", shutil.copytree(run, tmp_path / "run")
    command = ("render", copy, "--arch", "cpu", "--out", out, "--n-frames", 2, "--width", 16)
    assert invoke(*command)[0] == 0
    before = {file: file.read_bytes() for file in out.iterdir()}
    for option, told in (
        (("--what", "depth"), "what: color there, depth now"),
        (("--antialias", 2), "antialias: 1 there, 2 now"),
        (("--path", "spiral"), "cameras: "),
        (("--n-frames", 3), "n_frames: 2 there, 3 now"),
        (("--height", 8), "size: 16x16 there, 16x8 now"),
    ):
        status, _, err = invoke(*command, *option)
        assert (status, told in err, err.count("\n")) == (1, True, 1), err
        assert err.endswith("remove them, or choose another --out\n")
    assert invoke("train", "--out", copy, "--resume", "--arch", "cpu", "--steps", 121)[0] == 0
    status, _, err = invoke(*command)
    assert (status, f"{out}: holds other frames (step: 120 there, 121 now; " in err) == (1, True), err
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    for file in out.glob("*.png"):
        file.unlink()
    assert invoke(*command) == (0, f"2 frames: {out}\n", "")
    assert "2 of them were there already" in invoke(*command)[1]


@pytest.mark.parametrize("option", [("--fps", 1e-9), ("--fps", 1e9), ("--n-frames", 10**12)])
def test_numbers_that_no_video_has_are_refused_by_name_before_any_work(tmp_path, option):
    status, _, err = invoke("render", tmp_path / "absent", "--out", tmp_path / "a.mp4", *option)
    assert (status, f"Invalid value for '{option[0]}'" in err) == (2, True), err


def test_frames_are_not_put_among_the_files_of_a_run(run):
    before = contents(run)
    status, _, err = invoke("render", run, "--arch", "cpu", "--n-frames", 1, "--width", 8, "--out", run)
    assert (status, err) == (1, f"error: {run}: is the folder of a run; give the frames one of their own, as {run / 'frames'}\n")
    assert contents(run) == before


def test_a_folder_of_pngs_has_no_frames_a_second(run, tmp_path):
    command = ("render", run, "--arch", "cpu", "--n-frames", 1, "--width", 8, "--out", tmp_path / "frames")
    status, _, err = invoke(*command, "--fps", 12)
    assert (status, "--fps is of a video" in err) == (2, True), err
    assert not (tmp_path / "frames").exists()
    assert invoke(*command)[0] == 0


def test_a_path_file_is_followed(run, scene, tmp_path):
    write_camera_path(tmp_path / "path.json", orbit(load_scene(scene).cameras, 2), fps=10)
    status, said, err = invoke("render", run, "--arch", "cpu", "--out", tmp_path / "f", "--path", tmp_path / "path.json")
    assert (status, said) == (0, f"2 frames: {tmp_path / 'f'}\n"), err
    for wrong, told in (("obit", "expected orbit, spiral"), (tmp_path / "no.json", "no such file")):
        status, _, err = invoke("render", run, "--arch", "cpu", "--out", tmp_path / "g", "--path", wrong)
        assert (status, told in err) == (1, True), err


@pytest.mark.parametrize("name", ["mesh.ply", "mesh.obj", "mesh.glb"])
def test_a_mesh_is_in_the_coordinates_of_the_scenes_files(name, run, scene, tmp_path):
    out = tmp_path / name
    status, said, err = invoke("export", run, "--arch", "cpu", "--out", out, "--resolution", 40)
    assert status == 0, err
    assert f"in the coordinates of {scene}" in said
    mesh = trimesh.load(out, force="mesh")
    if name == "mesh.glb":  # y is up there; in the scene's files z is
        mesh.apply_transform(np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]))
    box = np.array(json.loads((scene / "transforms_train.json").read_text())["aabb"])
    low, high = box.mean(0) - np.ptp(box, axis=0).max() / 2, box.mean(0) + np.ptp(box, axis=0).max() / 2
    assert (mesh.bounds[0] >= low - 1e-4).all()
    assert (mesh.bounds[1] <= high + 1e-4).all()
    assert np.ptp(mesh.bounds, axis=0).max() > 0.5 * np.ptp(box, axis=0).max()
    assert len(np.unique(mesh.visual.vertex_colors, axis=0)) > 100


@pytest.mark.parametrize("what", ["mesh", "points"])
def test_a_glb_stands_upright_as_gltf_has_it(what, run, tmp_path):
    for name in ("a.ply", "a.glb"):
        arguments = ("--what", what, "--resolution", 24, "--out", tmp_path / name)
        status, said, err = invoke("export", run, "--arch", "cpu", *arguments)
        assert status == 0, err
    assert "turned so that y is up" in said
    x, y, z = trimesh.load(tmp_path / "a.ply").vertices.T  # z is up in the scene's files
    (turned,) = trimesh.load(tmp_path / "a.glb").geometry.values()
    np.testing.assert_allclose(turned.vertices, np.stack([x, z, -y], -1), atol=1e-6)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (0.1, -0.99, 0.1), (0.5, 0.7, -0.5)])
def test_whatever_is_up_becomes_y_by_a_turn(up):
    """Up to 15 degrees, cameras lean and the scene does not."""
    level = np.stack(
        [np.linalg.qr(np.stack([up, way, np.roll(way, 1)], -1))[0] for way in np.eye(3)]
    )  # columns: up, across, ahead
    level *= np.sign(level[:, :, :1].swapaxes(1, 2) @ np.array(up, float)[:, None])
    poses = np.stack([level[:, :, 1], -level[:, :, 0], -np.cross(level[:, :, 1], level[:, :, 0]), 0 * level[:, :, 0]], -1)
    scene = SimpleNamespace(cameras=make_cameras(poses, [50, 50, 32, 32], [64, 64]), scene_from_source=Similarity.identity())
    turn = gltf_from_source(SimpleNamespace(scene=scene))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    straight = np.round(up) if max(np.abs(up)) > 0.9 else np.array(up) / np.linalg.norm(up)
    np.testing.assert_allclose(turn @ straight, [0, 1, 0], atol=1e-9)


def test_points_lie_near_the_surface_and_an_obj_cannot_hold_them(run, tmp_path):
    from taichi_nerf.procedural import open_made
    from taichi_nerf.scenes.procedural import signed_distance

    status, _, err = invoke("export", run, "--arch", "cpu", "--what", "points", "--out", tmp_path / "points.ply")
    assert status == 0, err
    points = trimesh.load(tmp_path / "points.ply").vertices
    made = open_made(json.loads((run / "config.json").read_text())["scene"]["location"])
    distance = np.abs(signed_distance(made.at(), np.asarray(points, np.float64)))
    assert np.median(distance) < 0.1  # 120 steps at 40 x 40 pixels, of a scene 2.4 wide
    status, _, err = invoke("export", run, "--arch", "cpu", "--what", "points", "--out", tmp_path / "points.obj")
    assert (status, "write .ply or .glb" in err) == (1, True)


def test_figures_of_a_run_that_cannot_be_written_to_go_elsewhere_and_that_is_told_before_the_work(run, tmp_path, monkeypatch):
    copy, elsewhere = tmp_path / "copy", tmp_path / "figures" / "here"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("eval"))
    (copy / "eval").write_bytes(b"")  # permissions would not keep root from writing
    before = contents(copy)
    status, said, err = invoke("evaluate", copy, "--arch", "cpu", "--views", 10, "--save-images", "--out", elsewhere)
    assert status == 0, err
    assert said.splitlines()[-1] == str(elsewhere / "metrics.json")
    assert json.loads((elsewhere / "metrics.json").read_text())["n_images"] == len(list(elsewhere.rglob("*.png"))) == 1
    assert contents(copy) == before
    monkeypatch.setattr("taichi_nerf.training.evaluate.compare", None)  # nothing is rendered
    status, _, err = invoke("evaluate", copy, "--arch", "cpu")
    assert (status, err) == (1, f"error: {copy / 'eval/test'}: cannot be written: {copy / 'eval'} is a file, not a folder\n")


@pytest.mark.filterwarnings("default")
def test_a_copy_without_its_config_is_what_its_checkpoint_says_and_is_whole_after_going_on(run, scene, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "config.json").unlink()
    known, found = (invoke("evaluate", folder, "--arch", "cpu", "--views", 10) for folder in (run, copy))
    assert found[0] == 0, found[2]
    assert found[1].splitlines()[1:3] == known[1].splitlines()[1:3]  # PSNR, SSIM
    told = f"warning: {copy / 'config.json'}: is missing; settings and scene are those that checkpoint.safetensors names"
    assert [line for line in found[2].splitlines() if "warning" in line] == [told]
    status, _, err = invoke("train", scene, "--out", copy, "--overwrite", "--steps", 1, "--arch", "cpu")
    assert (status, "is no run and not empty" in err) == (1, True)
    assert invoke("train", "--resume", "--out", copy, "--steps", 121, "--arch", "cpu")[0] == 0
    settings = [json.loads((folder / "config.json").read_text()) for folder in (run, copy)]
    settings[0]["settings"]["run"]["steps"] = 121
    assert settings[0] == settings[1]
    (copy / "config.json").write_text("{")
    status, _, err = invoke("evaluate", copy, "--arch", "cpu")
    assert status == 1
    assert "is no config.json of taichi_nerf; checkpoint.safetensors says the same, and is asked where this is missing" in err


@pytest.mark.filterwarnings("default")
def test_settings_that_a_run_lacks_are_told_in_a_line_and_unknown_ones_are_an_error(run, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(run, older, ignore=shutil.ignore_patterns("eval"))
    about = json.loads((older / "config.json").read_text())
    del about["settings"]["optimiser"]["table_decay"]
    (older / "config.json").write_text(json.dumps(about))
    status, said, err = invoke("evaluate", older, "--arch", "cpu")
    assert status == 0, err
    assert err.splitlines()[0] == (
        f"warning: {older / 'config.json'}: of an older version of taichi_nerf; "
        "what it does not say is taken as optimiser.table_decay = 0.0"
    )
    assert said.splitlines()[0].startswith("step 120, 3 test views")
    for settings, told in (
        ({"later": 1}, "unknown: later; the file is of another version of taichi_nerf; use that one"),
        (
            {"run": {**about["settings"]["run"], "method": "later"}},
            "run.method: expected one of ngp, nerf, mipnerf, mipnerf360, got",
        ),
        ({"run": {}}, "missing: run.method"),
    ):
        (older / "config.json").write_text(json.dumps({**about, "settings": {**about["settings"], **settings}}))
        for command in (("evaluate", older), ("train", "--resume", "--out", older, "--steps", 130)):
            status, _, err = invoke(*command, "--arch", "cpu")
            assert (status, err.count("\n")) == (1, 1)
            assert err.startswith(f"error: {older / 'config.json'}: {told}")


@pytest.mark.parametrize("command", [("evaluate",), ("render", "--out", "x.mp4"), ("export", "--out", "x.ply")])
def test_a_run_that_is_not_there_is_one_line(command, tmp_path):
    status, _, err = invoke(command[0], tmp_path / "none", *command[1:])
    assert status == 1
    assert err == (f"error: {tmp_path / 'none'}: no such run; `taichi-nerf train SCENE --out {tmp_path / 'none'}` makes one\n")
