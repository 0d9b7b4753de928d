"""Scenes written at several sizes: read back, they are the same cameras, and every pixel is the mean of those it stands for."""

import json
from dataclasses import replace
from functools import partial

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_blender
import sample_multiscale
from click.testing import CliRunner

from taichi_nerf.apps.scene import scene
from taichi_nerf.cameras import OPENCV
from taichi_nerf.scenes import SceneError, load_scene, read_source
from taichi_nerf.scenes.write import write_transforms
from taichi_nerf.scenes.write_multiscale import write_multiscale


@pytest.fixture
def source(tmp_path):
    sample_blender.make(tmp_path / "scene")
    return read_source(tmp_path / "scene")


def test_cameras_look_as_before_and_pixels_are_half_as_many_a_level(source, tmp_path):
    write_multiscale(source, tmp_path / "out", 2)
    found = read_source(tmp_path / "out")
    assert found.kind == "multiscale"
    assert len(found.names) == 2 * len(source.names)
    for split, index in source.splits.items():
        for i, view in enumerate(index):
            for level in range(2):
                got = found.splits[split][2 * i + level]
                np.testing.assert_allclose(found.cameras.camera_to_worlds[got], source.cameras.camera_to_worlds[view], atol=1e-12)
                np.testing.assert_allclose(found.cameras.intrinsics[got] * 2**level, source.cameras.intrinsics[view], rtol=1e-12)
                assert (found.cameras.sizes[got] << level == source.cameras.sizes[view]).all()
                assert found.weights[got] == 4**level


@pytest.mark.parametrize("write", [partial(write_multiscale, n_scales=2), write_transforms])
def test_writing_tells_how_far_it_is_and_can_be_given_up(write, source, tmp_path):
    told = []
    write(source, tmp_path / "out", report=lambda done, text: told.append((done, text)))
    n = len(source.names)
    assert [text for _, text in told] == [f"picture {i + 1} of {n}" for i in range(n)]
    assert told[-1][0] == 1

    def give_up(done, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "other", report=give_up)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "scene"]


def test_a_pixel_is_the_mean_by_alpha_of_four(source, tmp_path):
    write_multiscale(source, tmp_path / "out", 2)
    view = int(source.splits["train"][0])
    whole = np.asarray(imageio.imread(source.image_files[view])).astype(np.float64)
    small = np.asarray(imageio.imread(tmp_path / "out/images_train/000_d1.png")).astype(np.float64)
    h, w = small.shape[:2]
    blocks = whole.reshape(h, 2, w, 2, -1)
    if whole.shape[2] == 4:
        alpha = blocks[..., 3:]
        color = (blocks[..., :3] * alpha).sum((1, 3)) / np.maximum(alpha.sum((1, 3)), 1e-9)
        filled = alpha.mean((1, 3))[..., 0] > 1
        assert np.abs(small[..., 3] - alpha.mean((1, 3))[..., 0]).max() <= 0.5
        assert np.abs(small[..., :3] - color)[filled].max() <= 0.51
    else:
        assert np.abs(small - blocks.mean((1, 3))).max() <= 0.51


def test_it_opens_as_a_scene_with_the_splits_it_had(source, tmp_path):
    write_multiscale(source, tmp_path / "out", 3)
    scene = load_scene(tmp_path / "out")
    assert {name: len(index) for name, index in scene.splits.items()} == {
        name: 3 * len(index) for name, index in source.splits.items()
    }


@pytest.mark.parametrize("channels", [4, 3])  # with the published near and far, and with none
def test_every_picture_has_the_near_and_far_that_the_published_reader_wants(channels, tmp_path):
    sample_blender.make(tmp_path / "scene", channels=channels)
    source = read_source(tmp_path / "scene")
    assert (source.near_far is None) == (channels == 3)
    write_multiscale(source, tmp_path / "out", 2)
    box = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T
    corners = load_scene(tmp_path / "scene").scene_from_source.inverse()(box)
    for table in json.loads((tmp_path / "out/metadata.json").read_text()).values():
        assert len(table["near"]) == len(table["far"]) == len(table["file_path"])
        for near, far, pose in zip(table["near"], table["far"], table["cam2world"], strict=True):
            distances = np.linalg.norm(corners - np.array(pose)[:3, 3], axis=-1)
            assert (near, far) == (2, 6) if channels == 4 else near <= distances.min() < distances.max() <= far


@pytest.mark.parametrize("write", [partial(write_multiscale, n_scales=2), write_transforms], ids=["multiscale", "transforms"])
def test_every_picture_is_reported_when_it_is_written(source, tmp_path, write):
    told, n = [], len(source.names)
    write(source, tmp_path / "out", report=lambda done, text: told.append((done, text)))
    assert told == [(pytest.approx(i / n), f"picture {i} of {n}") for i in range(1, n + 1)]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_published_reader_sees_the_pictures_over_white(tmp_path, channels):
    """It takes the last channel for alpha, also of a picture that has none."""
    sample_blender.make(tmp_path / "scene", channels=channels)
    source = read_source(tmp_path / "scene")
    write_multiscale(source, tmp_path / "out", 1)
    for view, name in zip(source.splits["test"], sorted((tmp_path / "out/images_test").iterdir()), strict=True):
        written = np.asarray(imageio.imread(name)) / 255
        seen = written[..., :3] * written[..., -1:] + 1 - written[..., -1:]
        own = np.atleast_3d(np.asarray(imageio.imread(source.image_files[view])) / 255)
        wanted = own if channels < 4 else own[..., :3] * own[..., 3:] + 1 - own[..., 3:]
        np.testing.assert_allclose(seen, np.broadcast_to(wanted, seen.shape), atol=1e-12)


def test_what_a_capture_loses_is_told(source, tmp_path):
    capture = replace(source, unbounded=True)
    assert write_multiscale(capture, tmp_path / "out", 2) == ["that it goes on behind its box"]


def test_what_has_odd_sides_is_refused_and_nothing_is_left(tmp_path):
    sample_multiscale.make(tmp_path / "scene")  # its smallest pictures are 4 x 2
    with pytest.raises(SceneError, match="4 x 2 cannot be halved 2 times"):
        write_multiscale(read_source(tmp_path / "scene"), tmp_path / "out", 3)
    assert not (tmp_path / "out").exists()


def test_a_lens_that_distorts_is_refused(source, tmp_path):
    bent = replace(source, cameras=replace(source.cameras, models=np.full(len(source.names), OPENCV)))
    with pytest.raises(SceneError, match="pinhole"):
        write_multiscale(bent, tmp_path / "out", 1)


def test_the_command_writes_it_and_takes_nothing_that_it_would_ignore(tmp_path):
    sample_blender.make(tmp_path / "scene")
    wanted = ["convert", str(tmp_path / "scene"), str(tmp_path / "out"), "--scales", "2"]
    for ignored in (["--link"], ["--n-views", "2"], ["--scale", "2"]):
        assert CliRunner().invoke(scene, [*wanted, *ignored]).exit_code == 2
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(scene, wanted)
    assert done.exit_code == 0, done.output
    assert read_source(tmp_path / "out").kind == "multiscale"
