"""Cameras that training corrects: when they move, what follows them, and how the benchmark lays them over the true ones."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball
from torch.testing import assert_close

from taichi_nerf.benchmarks.poses import by_sight, disturb, errors
from taichi_nerf.fields.hash_grid_field import HashGridSettings
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancySettings
from taichi_nerf.training.config import BatchSettings, NgpConfig, PoseSettings, RunSettings, SceneSettings
from taichi_nerf.training.trainer import Trainer
from taichi_nerf.trajectories import look_at

CPU = torch.device("cpu")
CONFIG = NgpConfig(
    SceneSettings("ball"),
    RunSettings(steps=40),
    field=HashGridSettings(n_levels=4, log2_table_size=10, base_resolution=8, max_resolution=32, n_hidden=16),
    occupancy=OccupancySettings(resolution=32, step_size=0.05, decay=0.7),
    batch=BatchSettings(n_samples=2**11, masks="alpha"),
)


def trainer(scene, **poses):
    return Trainer(replace(CONFIG, poses=PoseSettings(refine=True, **poses)), scene, CPU)


def corrections(made):
    return torch.cat([made.model.rig.turns, made.model.rig.shifts], -1).detach().clone()


def test_cameras_move_from_the_first_step_that_is_asked_for_until_the_last_and_the_field_learns_on(cpu):
    made = trainer(views_of_ball()[0], from_step=10, until=0.5)
    states = []
    for _ in range(40):
        made.step()
        states.append((corrections(made), made.model.field.table.detach().clone()))
    poses, tables = zip(*states, strict=True)
    is_still = [bool(torch.equal(a, b)) for a, b in pairwise(poses)]
    assert is_still == [True] * 9 + [False] * 10 + [True] * 20
    assert not poses[9].any()
    assert not torch.equal(tables[-2], tables[-1])


def test_their_rate_falls_evenly_on_paper_of_logarithms(cpu):
    made = trainer(views_of_ball()[0], until=0.5)
    rates = []
    for _ in range(20):
        made.step()
        rates.append(next(group["lr"] for group in made.optimiser.param_groups if group["name"] == "poses"))
    expected = made.config.poses.learning_rate * 0.004 ** (np.arange(20) / 20)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_views_that_training_does_not_see_follow_at_the_end(cpu):
    scene = views_of_ball()[0]
    views = np.arange(8)
    scene = replace(scene, splits={"train": views[:6], "test": views[6:]})
    made = trainer(scene)
    while not made.is_done:
        made.step()
    found = corrections(made)
    assert found[6:].any()
    again = made.model.rig
    with torch.no_grad():
        again.turns[6:] = 0
        again.shifts[6:] = 0
    again.carry_along(torch.arange(6))
    assert_close(corrections(made), found)


@pytest.mark.parametrize("poses", [False, True])
def test_the_focal_length_is_corrected_with_poses_or_by_itself(cpu, poses):
    made = Trainer(replace(CONFIG, poses=PoseSettings(refine=poses, intrinsics=True)), views_of_ball()[0], CPU)
    for _ in range(3):
        made.step()
    rig = made.model.rig
    assert rig.log_focal.item() != 0
    assert bool(rig.turns.any()) == poses


def on_a_sphere(n, radius=2.0):
    random = np.random.default_rng(2)
    positions = random.normal(size=(n, 3))
    return radius * positions / np.linalg.norm(positions, axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_motion_of_all_cameras_as_one_body_is_found_by_sight(seed):
    random = np.random.default_rng(seed)
    found = look_at(on_a_sphere(12), random.normal(size=(12, 3)) / 5, np.array([0.0, 0, 1]))
    axis = random.normal(size=3)
    scale, turn, shift = (
        random.uniform(0.5, 2),
        torch.linalg.matrix_exp(torch.tensor(np.cross(np.eye(3), axis))).numpy(),
        axis[::-1],
    )
    truth = np.concatenate([turn @ found[:, :, :3], (scale * found[:, :, 3] @ turn.T + shift)[:, :, None]], -1)
    similarity, left = errors(found, truth)
    by_centers_and_by_sight = similarity, by_sight(similarity, found, truth)
    assert max(left) < 1e-4
    for got in by_centers_and_by_sight:
        for value, wanted in zip(got, (scale, turn, shift), strict=True):
            np.testing.assert_allclose(value, wanted, atol=1e-9)


def test_cameras_that_turned_to_a_scene_in_another_place_are_laid_by_what_they_see_there():
    """Centres agree as they are; the scene does not."""
    positions, place, up = on_a_sphere(200), np.array([0.02, -0.03, 0.01]), np.array([0.0, 0, 1])
    truth, found = look_at(positions, np.zeros(3), up), look_at(positions, place, up)
    by_centers, _ = errors(found, truth)
    misses = []
    for scale, rotation, shift in (by_centers, by_sight(by_centers, found, truth)):
        misses.append(np.linalg.norm(scale * rotation @ place + shift))  # the middle of the scene is to come to the origin
    assert misses[0] > 0.5 * np.linalg.norm(place)
    assert misses[1] < 0.1 * np.linalg.norm(place)


def test_disturbed_cameras_are_as_far_off_as_was_asked():
    truth = look_at(on_a_sphere(500), np.zeros(3), np.array([0.0, 0, 1]))
    _, (degrees, percent) = errors(disturb(truth, list(range(500)), np.radians(2), 0.02), truth)
    assert degrees == pytest.approx(2, rel=0.01)
    assert percent == pytest.approx(2, rel=0.01)
