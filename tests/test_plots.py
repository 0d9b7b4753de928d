"""The preview of a scene."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest
import sample_transforms

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, MODELS, ORTHOGRAPHIC, make_cameras
from taichi_nerf.export import plots, scene_geometry
from taichi_nerf.scenes import Overrides, load_scene
from taichi_nerf.scenes.images import Images
from taichi_nerf.trajectories import look_at


@pytest.fixture
def sample(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    sample_transforms.make(folder, n=20)
    return load_scene(folder)


def one_camera(model=0):
    pose = look_at(np.array([[0.0, -4, 1]]), np.zeros(3), np.array([0.0, 0, 1]))
    return make_cameras(pose, (40, 40, 20, 15), (40, 30), model)


def test_a_preview_is_the_same_bytes_every_time(sample, tmp_path):
    for name in ("a.png", "b.png"):
        plots.save_scene_preview(sample, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = imageio.imread(tmp_path / "a.png")[..., :3]
    assert picture.shape == (1000, 1600, 3)
    for color in (plots.SPLIT_COLORS["train"], plots.SPLIT_COLORS["test"], plots.BOX):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - wanted).max(-1) < 3).sum() > 200, color


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_views_are_no_trouble(n, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    sample_transforms.make(folder, n=n)
    plots.save_scene_preview(load_scene(folder, overrides=Overrides(near=1.0, far=1.1)), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_names_of_any_letters_are_no_trouble(tmp_path):
    folder = tmp_path / "写真 $1_$"
    sample_transforms.make(folder, n=3)
    (folder / "images/001.png").rename(folder / "images/$a_$ 二.png")
    text = (folder / "transforms.json").read_text()
    (folder / "transforms.json").write_text(text.replace("images/001.png", "images/$a_$ 二.png"))
    plots.save_scene_preview(load_scene(folder), tmp_path / "x.png")


def test_the_sheet_shows_every_split_and_no_view_twice(sample):
    views = scene_geometry.spread_views(sample)
    assert len(views) == len(set(views)) == 16
    for index in sample.splits.values():
        assert set(views) & set(index.tolist())


def test_a_split_of_one_view_among_many_is_on_the_sheet(sample):
    sample.splits.clear()
    sample.splits.update(train=np.array([i for i in range(20) if i != 7]), test=np.array([7]))
    views = scene_geometry.spread_views(sample)
    assert 7 in views
    assert len(views) == 16


def test_views_have_the_color_of_their_split(sample):
    sample.splits.clear()
    sample.splits.update(train=np.arange(5), test=np.array([5]), extra=np.array([6]))
    colors = plots.view_colors(sample)
    assert colors[0] == plots.SPLIT_COLORS["train"]
    assert colors[5] == plots.SPLIT_COLORS["test"]
    assert colors[6] == plots.OTHER_COLOR
    assert colors[7] == plots.NO_SPLIT


@pytest.mark.parametrize("model", range(5), ids=MODELS)
def test_a_frustum_starts_at_its_camera_and_opens_ahead(model):
    cameras = one_camera(model)
    edges = scene_geometry.frustum(cameras, 0, 0.5)
    assert edges.shape == (8, 2, 3)
    assert np.isfinite(edges).all()
    assert np.allclose(edges[:4, 0], cameras.centers[0])
    assert np.allclose((edges[:4, 1] - cameras.centers[0]) @ cameras.forwards[0], 0.5 if model != EQUIRECTANGULAR else 0.25)


def test_a_frustums_corners_project_to_the_pictures_corners():
    for model in set(range(5)) - {EQUIRECTANGULAR, ORTHOGRAPHIC, FISHEYE}:
        cameras = one_camera(model)
        pixels, _ = cameras.project(0, scene_geometry.frustum(cameras, 0, 0.5)[:4, 1])
        assert np.allclose(pixels, [[0, 0], [40, 0], [40, 30], [0, 30]])


def test_up_is_drawn_up():
    turn = scene_geometry.level(one_camera().moved(1.0, np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), np.zeros(3)))
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(turn[2], [0, -1, 0], atol=0.3)  # its own up leans


def test_thumbnails_show_alpha_over_white_and_grey_as_grey(sample, tmp_path):
    assert scene_geometry.thumbnail(sample, 0).shape == (8, 12, 3)
    clear = np.zeros((4, 4, 4), np.uint8)
    sample.images._kept[0] = clear
    assert (scene_geometry.thumbnail(sample, 0) == 1).all()
    sample.images._kept[0] = np.full((4, 4, 1), 51, np.uint8)
    assert np.allclose(scene_geometry.thumbnail(sample, 0), 0.2)


def test_a_thumbnail_of_a_large_photo_never_holds_the_photo(sample, tmp_path):
    photo = tmp_path / "photo.jpg"
    imageio.imwrite(photo, np.full((1200, 1600, 3), 200, np.uint8))
    n = len(sample.names)
    scene = replace(sample, images=Images([photo] * n), cameras=sample.cameras.resized(np.full((n, 2), (1600, 1200))))
    tracemalloc.start()
    shown = scene_geometry.thumbnail(scene, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shown.shape == (300, 400, 3)
    assert abs(shown - 200 / 255).max() < 0.01
    assert peak < 1600 * 1200 * 3
    assert not scene.images._kept


def test_depths_seen_are_those_of_the_points(sample):
    depths = scene_geometry.seen_depths(sample)
    distances = np.linalg.norm(sample.points.positions[None] - sample.cameras.centers[:, None], axis=-1)
    assert distances.min() * 0.8 < depths.min()
    assert depths.max() < distances.max()


def test_matplotlib_is_loaded_by_nothing_else_and_opens_no_window():
    code = (
        "import sys; import taichi_nerf.scenes, taichi_nerf.export; assert 'matplotlib' not in sys.modules;"
        "import taichi_nerf.export.plots; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
