"""Pictures that do not fit into memory are refused before they are read, and what would fit is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball

from taichi_nerf.fields.hash_grid_field import HashGridSettings
from taichi_nerf.ops.hash_grid import level_layout
from taichi_nerf.scenes import SceneError
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training import room
from taichi_nerf.training.config import NgpConfig, SceneSettings
from taichi_nerf.training.trainer import Trainer

VIEWS = [0, 2, 3]
TABLES = len(VIEWS) * 32 * 32 * (4 + 1 + 4)  # bytes of colors, masks and depths


@pytest.fixture
def scene():
    return views_of_ball(4, 32)[0]


def leave(monkeypatch, n_bytes):
    monkeypatch.setattr(room, "available_bytes", lambda: n_bytes)


def test_what_fits_is_let_through(scene, monkeypatch):
    leave(monkeypatch, int(TABLES / room.USABLE) + 1)
    room.expect_room(scene, VIEWS, True, 1)
    leave(monkeypatch, None)  # nobody knows
    room.expect_room(scene, VIEWS, True, 1)


def test_what_does_not_fit_is_refused_with_a_remedy_that_helps(scene, monkeypatch):
    leave(monkeypatch, TABLES // 5)
    with pytest.raises(SceneError, match=r"ball: 3 training pictures of .*; give --downscale 3, or --n-views"):
        room.expect_room(scene, VIEWS, True, 1)
    with pytest.raises(SceneError, match=r"--downscale 5, or"):  # as they are they are shrunk already
        room.expect_room(scene, VIEWS, True, 2)
    smaller = replace(scene, cameras=scene.cameras.resized(scene.cameras.sizes // 3))
    room.expect_room(smaller, VIEWS, True, 3)


def test_depths_count_only_where_they_are_asked_for(scene, monkeypatch):
    leave(monkeypatch, TABLES - 1)
    room.expect_room(scene, VIEWS, False, 1)
    with pytest.raises(SceneError, match="memory"):
        room.expect_room(scene, VIEWS, True, 1)


def test_processes_of_one_machine_share_its_memory(scene, monkeypatch):
    leave(monkeypatch, 2 * TABLES)
    room.expect_room(scene, VIEWS, True, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SceneError, match="in 2 processes"):
        room.expect_room(scene, VIEWS, True, 1)


def test_one_picture_is_read_to_know(scene, monkeypatch):
    read = []
    monkeypatch.setattr(type(scene.images), "_read", lambda images, i: read.append(i) or np.zeros((32, 32, 4), np.uint8))
    leave(monkeypatch, 0)
    with pytest.raises(SceneError, match="memory"):
        room.expect_room(scene, VIEWS, True, 1)
    assert len(read) == 1


def test_a_control_group_leaves_its_limit_without_what_is_taken(tmp_path):
    own, inner = tmp_path / "own", tmp_path / "root/job/step"
    inner.mkdir(parents=True)
    own.write_text("0::/job/step\n")
    for folder, limit in ((inner.parent, 1000), (inner, "max")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("600\n")
        (folder / "memory.stat").write_text("anon 400\ninactive_file 200\n")
    assert list(room._of_control_groups(tmp_path / "root", own)) == [600]
    assert list(room._of_control_groups(tmp_path / "nowhere", tmp_path / "none")) == []


def test_a_limit_on_the_process_counts(monkeypatch):
    resource = pytest.importorskip("resource")
    told = room._table(room.Path("/proc/self/status"))
    if "VmSize:" not in told:
        pytest.skip("this system does not tell")
    taken = 1024 * told["VmSize:"]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (taken + 2**20, taken + 2**20))
    assert room.available_bytes() <= 2**20


def test_a_hash_grid_that_does_not_fit_is_refused_before_it_is_made(scene, monkeypatch):
    """The table, its gradient and Adam's two means, of 2 features of 4 bytes each."""
    config = NgpConfig(SceneSettings("ball"), field=HashGridSettings(n_levels=4, log2_table_size=30, max_resolution=512))
    last = level_layout(4, 16, 512, None, 30)[-1]
    leave(monkeypatch, int((last.offset + last.size) * 2 * 4 * 4 / room.USABLE) + 1)
    room.expect_room_for_tables(config, torch.device("cpu"))
    leave(monkeypatch, (last.offset + last.size) * 2 * 4 * 4)
    room.expect_room_for_tables(config, torch.device("cuda"))  # where it does not stay here
    monkeypatch.setattr("taichi_nerf.training.trainer.make_model", None)
    with pytest.raises(SettingsError, match=r"field: a table of n_levels=4, .* log2_table_size=30 takes 4\.4 GB of memory"):
        Trainer(config, scene, "cpu")
