"""`taichi-nerf scene`: what it prints, what it writes, and what it says of wrong input."""

import errno
import json
import os
import shutil
import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_transforms
from click.testing import CliRunner

from taichi_nerf.apps.photos import photos
from taichi_nerf.apps.scene import FAMILIES, scene
from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, OPENCV, ORTHOGRAPHIC, PINHOLE, make_cameras, opengl_to_opencv
from taichi_nerf.scenes import SceneError, load_scene, procedural, read_source
from taichi_nerf.scenes.check import Figure
from taichi_nerf.scenes.describe import as_text, describe
from taichi_nerf.scenes.images import read_image
from taichi_nerf.scenes.source import DepthFiles, Points, Source
from taichi_nerf.scenes.unfinished import hidden_place, put_in_place
from taichi_nerf.scenes.write import write_transforms

from opengl_views import ring, write_picture
from real_data import data_folder

REAL = (
    "chair_200",
    "colmap_bartoszek",
    "colmap_tiny_text",
    "dtu_scan65_400x300",
    "fern_8",
    "fox_270x480",
    "sevenscenes_100",
)


def invoke(*arguments):
    result = CliRunner().invoke(scene, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def sample(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    sample_transforms.make(folder, n=9)
    return folder


def largest_difference(a, b):
    return max(np.abs(getattr(a, name) - getattr(b, name)).max() for name in a.__dataclass_fields__)


@pytest.mark.parametrize("name", sorted(scene.commands))
def test_every_command_has_help_with_an_example_and_debug(name):
    status, out, _ = invoke(name, "--help")
    assert status == 0
    assert "Example" in out
    assert "--debug" in out


# --- info ---------------------------------------------------------------------------------------------------------------


def test_info_tells_what_was_decided(sample):
    status, out, _ = invoke("info", sample)
    assert status == 0
    for words in (
        "transforms: transforms.json",
        "9 of 12 x 8, RGB uint8",
        "opencv: fx 15.00, fy 14.00, cx 6.30, cy 3.80, k1 0.05, k2 -0.02, p1 0.001, p2 -0.002",
        "test: 2 (views 0, 8)" if "views 0, 8)" in out else "test: 2",
        "every 8th view held out",
        "masks, depth maps of 9 views (along the axis), 40 points",
        "near ",
    ):
        assert words in out


def test_info_as_json_holds_the_same_numbers_as_the_scene(sample):
    status, out, _ = invoke("info", sample, "--json", "--check")
    told, loaded = json.loads(out), load_scene(sample)
    assert status == 0
    assert (told["near"], told["far"], told["scale"]) == (
        loaded.bounds.near,
        loaded.bounds.far,
        loaded.scene_from_source.scale,
    )
    assert told["splits"]["test"] == [0, 8]
    assert told["lenses"][0]["distortion"] == {"k1": 0.05, "k2": -0.02, "p1": 0.001, "p2": -0.002}
    assert told["depths"]["n_views"] == 9
    assert told["checks"][0]["name"] == "depth disagreement"


def test_a_figure_that_cannot_be_measured_is_null_in_json_and_unknown_in_words(sample):
    told = describe(load_scene(sample), [Figure("depth disagreement", float("nan"), "%", "no two views see the same")])
    assert json.loads(json.dumps(told, allow_nan=False))["checks"][0]["value"] is None
    assert "depth disagreement unknown (no two views see the same)" in as_text(told)


def test_options_decide_views_size_place_and_bounds(sample):
    options = (
        "--views",
        "1,3-5",
        "--downscale",
        "2",
        "--center",
        "0,0,1",
        "--scale",
        "0.5",
        "--near",
        "0.1",
        "--far",
        "9",
    )
    told = json.loads(invoke("info", sample, "--json", *options)[1])
    assert told["splits"]["train"] == [1, 3, 4, 5]
    assert told["sizes"] == [{"width": 6, "height": 4, "n_views": 9}]
    assert (told["scale"], told["near"], told["far"]) == (0.5, 0.1, 9)
    assert told["center"] == pytest.approx([0, 0, 1])
    assert len(json.loads(invoke("info", sample, "--json", "--n-views", "2")[1])["splits"]["train"]) == 2


@pytest.mark.parametrize("options", [("--views", "1,x"), ("--center", "1,2"), ("--scale", "0"), ("--near", "2", "--far", "1")])
def test_a_wrong_option_is_misuse(sample, options):
    status, out, err = invoke("info", sample, *options)
    assert (status, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "options", [("--views", "99"), ("--views", "0-999999"), ("--n-views", "50"), ("--views", "1", "--n-views", "1")]
)
def test_views_that_are_not_there_are_one_line(sample, options):
    status, out, err = invoke("info", sample, *options)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 200 + len(str(sample))


def test_what_is_no_scene_is_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        status, _, err = invoke("info", folder)
        assert status == 1
        assert err.count("\n") == 1


def test_many_lenses_are_told_as_ranges():
    out = invoke("info", data_folder("colmap_bartoszek"))[1]
    assert "pinhole: 23 different, fx 2003" in out


# --- convert ------------------------------------------------------------------------------------------------------------


def test_a_converted_scene_is_read_back_the_same(sample, tmp_path):
    status, out, err = invoke("convert", sample, tmp_path / "out")
    assert status == 0, err
    assert out.strip() == str(tmp_path / "out" / "transforms.json")
    before, after = read_source(sample), read_source(tmp_path / "out")
    assert largest_difference(before.cameras, after.cameras) < 1e-9
    assert [name.rsplit("/")[-1] for name in after.names] == [name.rsplit("/")[-1] for name in before.names]
    for old, new in zip(before.image_files, after.image_files, strict=True):
        assert old.read_bytes() == new.read_bytes()
    for old, new in zip(before.mask_files, after.mask_files, strict=True):
        assert old.read_bytes() == new.read_bytes()
    assert (after.depth.unit, after.depth.kind) == (before.depth.unit, before.depth.kind)
    assert np.array_equal(before.points.positions, after.points.positions)
    assert np.array_equal(before.points.colors, after.points.colors)
    assert load_scene(sample).scene_from_source.scale == pytest.approx(load_scene(tmp_path / "out").scene_from_source.scale)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", REAL)
def test_real_scenes_are_read_back_the_same(name, tmp_path):
    before = read_source(data_folder(name))
    write_transforms(before, tmp_path / "out", link=False)
    after = read_source(tmp_path / "out")
    assert largest_difference(before.cameras, after.cameras) < 1e-9
    assert {k: v.tolist() for k, v in before.splits.items()} == {k: v.tolist() for k, v in after.splits.items()}
    assert (before.unbounded, before.forward_facing) == (after.unbounded, after.forward_facing)
    there, back = load_scene(data_folder(name)), load_scene(tmp_path / "out")
    assert largest_difference(there.cameras, back.cameras) < 1e-9
    assert vars(there.bounds).keys() == vars(back.bounds).keys()
    for field, value in vars(there.bounds).items():
        assert np.array_equal(value, getattr(back.bounds, field)), field
    assert (there.ndc is None) == (back.ndc is None)
    assert np.array_equal(read_image(before.image_files[-1]), read_image(after.image_files[-1]))


def made(tmp_path, cameras, **fields):
    files = []
    for i, (width, height) in enumerate(cameras.sizes):
        files.append(tmp_path / f"v{i}.png")
        write_picture(files[-1], int(width), int(height), 3, seed=i)
    return Source("made", tmp_path, [file.name for file in files], cameras, files, **fields)


def test_pictures_that_differ_in_their_endings_keep_their_own_masks_and_depth_maps(sample, tmp_path):
    text = (sample / "transforms.json").read_text()
    imageio.imwrite(sample / "images/001.jpg", imageio.imread(sample / "images/000.png"))
    (sample / "images/000.png").unlink()
    (sample / "transforms.json").write_text(text.replace("images/000.png", "images/001.jpg"))
    before = read_source(sample)
    write_transforms(before, tmp_path / "out")
    after = read_source(tmp_path / "out")
    for old, new in zip((*before.mask_files, *before.depth.files), (*after.mask_files, *after.depth.files), strict=True):
        assert old.read_bytes() == new.read_bytes()


def test_every_lens_keeps_its_coefficients(tmp_path):
    k = np.array([0.1, -0.02, 0.003, 0, 0, 0, 0.001, -0.002])
    rational = np.array([0.1, -0.02, 0.003, 0.05, 0.01, -0.004, 0.001, -0.002])
    fisheye = np.array([0.1, -0.02, 0.003, 0.0004, 0, 0, 0, 0])
    lenses = [(PINHOLE, 0 * k), (OPENCV, k), (OPENCV, rational), (FISHEYE, fisheye), (EQUIRECTANGULAR, 0 * k)]
    intrinsics = [(20.1, 19.7, 8.3, 3.9)] * 4 + [(16 / (2 * np.pi), 8 / np.pi, 8, 4)]
    poses = opengl_to_opencv(np.stack(ring(5)))
    cameras = make_cameras(poses, intrinsics, (16, 8), [m for m, _ in lenses], np.stack([d for _, d in lenses]))
    source = made(tmp_path, cameras)
    write_transforms(source, tmp_path / "out")
    assert largest_difference(cameras, read_source(tmp_path / "out").cameras) < 1e-9


def test_a_lens_that_the_form_has_not_is_an_error_and_leaves_nothing(tmp_path):
    source = made(tmp_path, make_cameras(np.stack(ring(3)), (20, 20, 8, 4), (16, 8), ORTHOGRAPHIC))
    with pytest.raises(SceneError, match="parallel"):
        write_transforms(source, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_splits_of_its_own_and_chosen_ones_are_kept(sample, tmp_path):
    assert invoke("convert", sample, tmp_path / "out", "--views", "1,2")[0] == 0
    found = load_scene(tmp_path / "out")
    assert found.split_rule == "the scene's own"
    assert {name: index.tolist() for name, index in found.splits.items()} == {"train": [1, 2], "test": [0, 8]}


def test_center_and_scale_are_written_as_the_box(sample, tmp_path):
    invoke("convert", sample, tmp_path / "out", "--center", "0.1,0.2,0.3", "--scale", "0.25")
    mapping = load_scene(tmp_path / "out").scene_from_source
    assert mapping.scale == pytest.approx(0.25)
    assert mapping.inverse()(np.zeros((1, 3)))[0] == pytest.approx([0.1, 0.2, 0.3])


def test_the_reach_of_the_surrounding_stays(tmp_path):
    (tmp_path / "in").mkdir()
    sample_transforms.make(tmp_path / "in", aabb_scale=4)
    write_transforms(read_source(tmp_path / "in"), tmp_path / "out")
    assert json.loads((tmp_path / "out/transforms.json").read_text())["aabb_scale"] == 4


def test_axes_are_kept_and_can_be_chosen(sample, tmp_path):
    assert invoke("convert", sample, tmp_path / "out", "--axes", "spherified")[0] == 0
    before = json.loads(invoke("info", sample, "--axes", "spherified", "--json")[1])
    after = json.loads(invoke("info", tmp_path / "out", "--json")[1])
    assert {name: before[name] for name in ("rotation", "scale", "near", "far")} == {
        name: after[name] for name in ("rotation", "scale", "near", "far")
    }
    file = json.loads(invoke("info", tmp_path / "out", "--axes", "file", "--json")[1])
    assert file["rotation"] == np.eye(3).tolist()


def test_links_share_the_file(sample, tmp_path):
    assert invoke("convert", sample, tmp_path / "out", "--link")[0] == 0
    assert os.path.samefile(sample / "images/003.png", tmp_path / "out/images/003.png")
    assert len(read_source(tmp_path / "out").names) == 9


def test_order_is_kept_where_names_alone_would_change_it(tmp_path):
    cameras = make_cameras(opengl_to_opencv(np.stack(ring(3))), (20, 20, 8, 4), (16, 8))
    source = made(tmp_path, cameras)
    order = [2, 0, 1]
    turned = Source("made", tmp_path, [source.names[i] for i in order], cameras, [source.image_files[i] for i in order])
    write_transforms(turned, tmp_path / "out")
    after = read_source(tmp_path / "out")
    assert [name.split("_")[-1] for name in after.names] == ["v2.png", "v0.png", "v1.png"]
    assert largest_difference(cameras, after.cameras) < 1e-9


@pytest.mark.parametrize("kind", ["ray", "inverse"])
def test_depths_of_other_kinds_become_depths_along_the_axis(tmp_path, kind):
    cameras = make_cameras(opengl_to_opencv(np.stack(ring(2))), (10, 10, 8, 4), (16, 8))
    raw = np.random.default_rng(0).integers(100, 200, (8, 16)).astype(np.float32)
    raw[0, 0] = 7
    np.save(tmp_path / "d.npy", raw)
    source = made(tmp_path, cameras, depth=DepthFiles([tmp_path / "d.npy", None], 0.5, kind, invalid=7))
    write_transforms(source, tmp_path / "out")
    depth = read_source(tmp_path / "out").depth
    assert (depth.kind, depth.unit, depth.files[1]) == ("z", 1.0, None)
    x, y = np.meshgrid(np.arange(16) + 0.5, np.arange(8) + 0.5)
    cosine = 1 / np.sqrt(1 + ((x - 8) / 10) ** 2 + ((y - 4) / 10) ** 2)
    expected = 0.5 * raw * cosine if kind == "ray" else 2 / raw
    expected[0, 0] = 0
    assert np.allclose(np.load(depth.files[0]), expected, rtol=1e-6)


def test_what_is_not_kept_is_said(tmp_path):
    cameras = make_cameras(opengl_to_opencv(np.stack(ring(2))), (10, 10, 8, 4), (16, 8))
    seen = Points(np.zeros((1, 3)), np.zeros((1, 3), np.uint8), np.zeros(1, int), np.zeros(1, int), np.zeros((1, 2)))
    source = made(tmp_path, cameras, near_far=(1.0, 2.0), forward_facing=True, weights=np.ones(2), points=seen)
    lost = write_transforms(source, tmp_path / "out")
    assert lost == [
        "the weights of its views",
        "which view saw which point where",
    ]


def test_a_folder_with_files_is_not_touched(sample, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    status, _, err = invoke("convert", sample, out)
    assert status == 1
    assert "is there already" in err
    assert [file.name for file in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("out", [".", "OUT"])
def test_an_empty_folder_that_is_there_is_filled_and_stays_the_one_that_it_is(out, sample, tmp_path, monkeypatch):
    """It may be the current one, or a disk of its own, neither of which can be replaced."""
    there = tmp_path / "out"
    there.mkdir()
    monkeypatch.chdir(there)
    was = there.stat().st_ino
    status, _, err = invoke("convert", sample, out.replace("OUT", str(there)))
    assert status == 0, err
    assert there.stat().st_ino == was
    assert not [path for path in there.iterdir() if path.name.startswith(".")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "sample"]
    assert invoke("info", ".")[0] == 0


def test_what_somebody_else_writes_into_an_empty_folder_meanwhile_is_kept(tmp_path):
    ours = hidden_place(tmp_path)
    for folder, text in ((ours, "ours"), (tmp_path, "theirs")):
        folder.mkdir(exist_ok=True)
        (folder / "a.txt").write_text(text)
    with pytest.raises(SceneError, match="is there already"):
        put_in_place(ours, tmp_path)
    shutil.rmtree(ours)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "theirs"}


def test_a_picture_that_vanished_leaves_nothing_half_written(sample, tmp_path):
    source = read_source(sample)
    source.image_files[-1].unlink()
    with pytest.raises(SceneError, match="no such file"):
        write_transforms(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


# --- preview and make ---------------------------------------------------------------------------------------------------


def test_preview_writes_a_picture_of_1600_by_1000(sample, tmp_path):
    status, out, err = invoke("preview", sample, "--out", tmp_path / "x.png")
    assert status == 0, err
    assert out.strip() == str(tmp_path / "x.png")
    assert imageio.imread(tmp_path / "x.png").shape[:2] == (1000, 1600)


def test_preview_refuses_other_formats(sample, tmp_path):
    status, _, err = invoke("preview", sample, "--out", tmp_path / "x.jpg")
    assert status == 2
    assert ".png" in err


def test_make_makes_a_scene_that_info_opens(tmp_path):
    pytest.importorskip("taichi_nerf.procedural.make", reason="procedural scenes are not there")
    out = tmp_path / "made"
    status, _, err = invoke("make", "objects", "--out", out, "--n-views", "3", "--size", "16", "--arch", "cpu")
    assert status == 0, err
    told = json.loads(invoke("info", out, "--json")[1])
    assert len(told["splits"]["train"]) == 3
    shutil.rmtree(out)


def test_make_does_not_write_into_a_folder_in_use(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = invoke("make", "objects", "--out", tmp_path)
    assert status == 1
    assert "is there already" in err


def test_the_families_that_can_be_made_are_all_there_are():
    assert tuple(procedural.FAMILIES) == FAMILIES


# --- what cannot be written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("convert", "SAMPLE", "OUT"), ("make", "thin", "--size", "8", "--n-views", "1", "--out", "OUT")]
)
def test_a_disk_that_is_full_is_an_error_of_what_is_written(sample, tmp_path, monkeypatch, arguments):
    """And nothing temporary is named or left."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.setattr(imageio, "imwrite", full)
    out = tmp_path / "out"
    status, _, err = invoke(*({"SAMPLE": sample, "OUT": out}.get(word, word) for word in arguments))
    assert (status, err.splitlines()[-1]) == (1, f"error: {out}: cannot be written: No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
def test_a_disk_that_fills_up_within_a_picture_is_told_and_nothing_else(tmp_path):
    """In a process of its own: what Python says when it forgets a file goes past every handler."""
    program = (
        "import gc, resource, sys; from pathlib import Path; from taichi_nerf import procedural, start\n"
        "start('cpu'); resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))\n"
        "try:\n    procedural.make_scene('thin', Path(sys.argv[1]), n_views=1, n_val=0, n_test=0, size=8)\n"
        "except ValueError as error:\n    print(error)\n"
        "gc.collect()"
    )
    done = subprocess.run([sys.executable, "-B", "-c", program, tmp_path / "out"], capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == (f"{tmp_path}/out: cannot be written: File too large", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("convert", "SAMPLE", "OUT"), ("preview", "SAMPLE", "--out", "OUT.png"), ("make", "thin", "--out", "OUT")]
)
def test_a_place_that_is_no_folder_is_an_error_of_what_is_written(sample, tmp_path, arguments):
    (tmp_path / "file").write_text("mine")
    out = str(tmp_path / "file/out")
    status, _, err = invoke(*(sample if word == "SAMPLE" else word.replace("OUT", out) for word in arguments))
    assert status == 1
    assert err.count("\n") == 1
    assert f"{out}" in err
    assert "Not a directory" in err or "is a file, not a folder" in err
    assert f".{os.getpid()}" not in err


def test_a_range_of_views_that_goes_backwards_is_told_how_to_go(sample):
    status, _, err = invoke("info", sample, "--views", "9-0")
    assert status == 2
    assert "9-0 goes backwards: write 0-9" in err


def test_photos_that_are_missing_are_missed_before_a_place_is_found_taken(sample):
    result = CliRunner().invoke(photos, [str(sample / "absent"), "--out", str(sample)])
    assert (result.exit_code, result.stderr) == (1, f"error: {sample / 'absent'}: no such file or folder\n")
    result = CliRunner().invoke(photos, [str(sample / "images"), "--out", str(sample)])
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {sample}: is there already: choose another folder, or remove it first\n",
    )


def test_all_photos_of_a_folder_are_taken_so_a_number_of_frames_is_refused(sample, tmp_path):
    result = CliRunner().invoke(photos, [str(sample / "images"), "--out", str(tmp_path / "scene"), "--n-frames", "50"])
    assert (result.exit_code, "--n-frames is of a video" in result.stderr) == (2, True)
