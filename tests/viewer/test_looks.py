"""What each switch shows, against the model itself and against the grid read cell by cell."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small_run
import torch

from taichi_nerf.rays import Rays
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler, OccupancySettings
from taichi_nerf.settings import apply_settings
from taichi_nerf.training.methods import make_model
from taichi_nerf.training.pictures import picture_by
from taichi_nerf.training.render_path import frames
from taichi_nerf.training.resident_model import ResidentNgpModel
from taichi_nerf.training.run import load_run
from taichi_nerf.viewer.eye import WHAT, eye_of_view
from taichi_nerf.viewer.looks import FARTHEST, Looks, occupied_cells, sample_counts
from taichi_nerf.viewer.thumbnails import thumbnail


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from taichi_nerf import runtime

    backend = runtime.start("cpu")
    folder = tmp_path_factory.mktemp("looks")
    small_run.make(folder / "scene")
    config, scene = small_run.configured(folder / "scene", steps=40)
    small_run.trained(folder / "run", config, scene)
    return load_run(folder / "run", backend.torch_device)


@pytest.fixture
def looks(run):
    return Looks(run.model, 1.0, False)


@pytest.mark.parametrize("what", ["color", "opacity", "normals"])
def test_a_picture_is_the_one_that_render_makes(cpu, run, looks, what):
    camera = eye_of_view(run.scene.cameras, 2).camera(30)
    ((_, expected),) = frames(run, camera, [0], (what,))
    found = looks.rows(camera, 0, 30, what).pixels
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("what", WHAT)
def test_rows_are_rows_of_the_whole(cpu, run, looks, what):
    camera = eye_of_view(run.scene.cameras, 0).camera(24)
    whole = looks.rows(camera, 0, 24, what)
    parts = [looks.rows(camera, first, first + 8, what) for first in (0, 8, 16)]
    for k in range(2):
        np.testing.assert_allclose(np.concatenate([part[k] for part in parts]), whole[k], atol=1)


def test_at_rest_depth_is_colored_alike_wherever_one_came_from(cpu, run, looks):
    camera = eye_of_view(run.scene.cameras, 0).camera(24)
    expected = looks.rows(camera, 0, 24, "depth").pixels
    looks.limits = looks.seen = (20.0, 30.0)  # of a place far away
    preview = looks.rows(camera, 0, 24, "depth", hasty=True)
    assert np.allclose(looks.limits, 0.7 * np.array([20, 30]) + 0.3 * np.array(looks.seen))  # while it moves, it drifts
    assert np.abs(preview.pixels.astype(float) - expected).mean() > 10  # 19 measured
    parts = [looks.rows(camera, first, first + 8, "depth").pixels for first in (0, 8, 16)]
    differing = np.abs(np.concatenate(parts).astype(float) - expected)
    assert differing.mean() < 4  # 0.5 and 2.3 measured, in bfloat16 and float32: a preview's range is nearly the same


def test_depth_is_along_the_axis_and_far_where_nothing_is(cpu, run, looks):
    camera = eye_of_view(run.scene.cameras, 0).camera(20)
    part, picture = looks.rows(camera, 0, 20), picture_by(run.model, camera, 0)
    y, x = np.indices((20, 20)) + 0.5
    cosine = 1 / np.sqrt(1 + ((x - 10) ** 2 + (y - 10) ** 2) / camera.intrinsics[0, 0] ** 2)
    there = picture.opacity.numpy() > 0.5
    np.testing.assert_allclose(part.depth[there], (picture.depth.numpy() * cosine)[there], rtol=1e-4)
    assert (part.depth[picture.opacity.numpy() < 0.1] == FARTHEST).all()


def test_a_crop_shows_nothing_outside_of_the_box(cpu, run, looks):
    """A depth is a mean of places on the ray: of places in the box, which is convex, it lies in the box."""
    camera = eye_of_view(run.scene.cameras, 0).camera(24)
    low, high = (-0.4, -0.4, -1.0), (0.4, 0.4, 1.0)
    pose = camera.camera_to_worlds[0]
    y, x = np.indices((24, 24)) + 0.5
    local = np.stack([(x - 12) / camera.intrinsics[0, 0], (y - 12) / camera.intrinsics[0, 0], np.ones_like(x)], -1)
    part = looks.rows(camera, 0, 24, "opacity", (low, high))
    places = pose[:, 3] + (local * part.depth[..., None]) @ pose[:, :3].T
    seen = part.depth < FARTHEST
    assert 5 < seen.sum() < (looks.rows(camera, 0, 24).depth < FARTHEST).sum()
    assert (places[seen] > np.array(low) - 1e-3).all()
    assert (places[seen] < np.array(high) + 1e-3).all()


def test_sample_counts_and_cells_are_those_of_the_grid(cpu, run):
    """One ray at a time: the first sample of a ray lies in a cell whose bit is set."""
    model = run.model
    generator = torch.Generator().manual_seed(3)
    origins = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator), dim=-1) * 3
    directions = torch.nn.functional.normalize(1.2 * torch.randn(64, 3, generator=generator) - origins, dim=-1)
    rays = Rays(origins, directions, *[None] * (len(Rays._fields) - 2))
    pixels, distance = occupied_cells(model, rays, (8, 8))
    counts, _ = sample_counts(model, rays, (8, 8))
    n, box = model.sampler.settings.resolution, model.sampler.box
    met = 0
    for k in range(64):
        samples = model.sampler(Rays(origins[k : k + 1], directions[k : k + 1], *[None] * (len(Rays._fields) - 2)))
        hit = distance.flatten()[k] > 0
        assert bool(hit) == (len(samples.t_starts) > 0)
        if hit:
            middle = (samples.t_starts[0] + samples.t_ends[0]) / 2
            x, y, z = ((origins[k] + middle * directions[k] - box[0]) / (box[1] - box[0]) * n).long().clamp(0, n - 1).tolist()
            cell = x + n * (y + n * z)
            assert (int(model.sampler.bits[cell // 32]) >> (cell % 32)) & 1
            assert samples.t_starts[0] == distance.flatten()[k]
            met += 1
    assert 5 < met < 64
    assert ((pixels != 128).any(-1) == (counts != 128).any(-1)).all()


@pytest.mark.parametrize(("n_cascades", "contraction"), [(1, "none"), (3, "none"), (1, "sphere")])
def test_a_cell_is_drawn_as_large_as_it_is_and_lit_by_the_face_that_a_ray_meets(cpu, n_cascades, contraction):
    """Against rays that are followed in steps of a thirtieth of a cell, by the definition of cascades and contraction."""
    box, n = torch.tensor([[-1.0, -0.5, 0.0], [1.0, 1.5, 2.0]]), 32
    settings = OccupancySettings(resolution=n, n_cascades=n_cascades, step_size=0.01)
    sampler = OccupancyGridSampler(settings, box, contraction, 0.05, 12.0)
    generator = torch.Generator().manual_seed(5)
    occupied = torch.rand(n_cascades * n**3, generator=generator) < 0.03
    sampler.thickness.copy_(occupied * 1.0)
    sampler.pack()
    angles = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator), dim=-1)
    origins = torch.tensor([0.1, 0.6, 0.9]).expand(400, 3).contiguous()
    rays = Rays(origins, angles, *[None] * (len(Rays._fields) - 2))
    pixels, _ = occupied_cells(SimpleNamespace(sampler=sampler), rays, (20, 20))
    samples = sampler(rays)
    n_looked_at = n_wrong = 0
    for k in range(400):
        first, count = samples.spans[k].tolist()
        if not count:
            continue
        middle = float(samples.t_starts[first] + samples.t_ends[first]) / 2
        back = (numbers_of(origins[k] + t * angles[k], n, n_cascades, contraction) for t in middle - 2e-3 * np.arange(1000))
        cascade, *cell = met = next(back)
        assert occupied[cascade * n**3 + np.dot(cell, [1, n, n * n])]
        former, *before = next(numbers for numbers in back if numbers != met)
        axes = [axis for axis in range(3) if before[axis] != cell[axis]]
        if former == cascade and len(axes) == 1:  # not out of another cascade, whose cells count otherwise
            light = [0.65, 0.8, 1.0][axes[0]] * (0.85 + 0.15 * (sum(cell) % 2))
            n_wrong += abs(int(pixels.reshape(-1, 3)[k, 0]) - 255 * light) > 1
            n_looked_at += 1
    assert n_looked_at > 150
    assert n_wrong <= 0.01 * n_looked_at, f"{n_wrong} of {n_looked_at}"


def numbers_of(place, n, n_cascades, contraction):
    """The cascade of a place in the box that the test above has, and the numbers of its cell."""
    x = place.numpy().astype(np.float64) - [0, 0.5, 1]
    if contraction == "sphere":
        r = np.linalg.norm(x)
        x = (x if r <= 1 else (2 - 1 / r) * x / r) / 2
    cascade = next((c for c in range(n_cascades) if np.abs(x).max() < 2**c), n_cascades - 1)
    return (cascade, *np.floor((x / 2**cascade + 1) / 2 * n).astype(int).tolist())


@pytest.mark.parametrize("times", [0.45, 4.0])
def test_whoever_flies_away_or_closer_still_sees_the_whole_thing(cpu, run, looks, times):
    """The scene's near and far hold where its cameras are. With the field of view changed to match, things stay as large."""
    eye = eye_of_view(run.scene.cameras, 0)
    middle = np.asarray(run.scene.bounds.box).mean(0)
    away = np.array(eye.position) - middle
    there = replace(eye, position=tuple(middle + times * away), fov_y=2 * np.arctan(np.tan(eye.fov_y / 2) / times))
    shares = [looks.rows(at.camera(40), 0, 40, "opacity").pixels.mean() for at in (eye, there)]
    assert shares[0] > 20
    assert abs(shares[1] / shares[0] - 1) < 0.35


def test_a_count_of_samples_is_shown_on_any_device():
    """Counts have no place in space; that has to be said where the rays are, as CUDA multiplies nothing of two devices."""
    rays = Rays(torch.zeros(6, 3, device="meta"), torch.zeros(6, 3, device="meta"), *[None] * (len(Rays._fields) - 2))
    spans = torch.tensor([[0, 3]]).expand(6, 2)
    sampler = lambda *_: SimpleNamespace(spans=spans)  # noqa: E731
    sampler.settings = SimpleNamespace(max_samples_per_ray=8)
    _, distance = sample_counts(SimpleNamespace(sampler=sampler), rays, (2, 3))
    assert (distance.device.type, distance.shape) == ("meta", (2, 3))


def test_a_training_on_the_device_is_seen_as_it_stands_now(backend, small_scene, tmp_path):
    """While it trains the device has what torch has not. Against the same parameters in a model that is torch's."""
    if backend.arch == "cpu":
        pytest.skip("on processors torch's memory is the device's")
    config, scene = small_run.configured(small_scene, steps=20)
    resident, plain = (
        make_model(apply_settings(config, [f"backend.resident={where}"]), scene, backend.torch_device)
        for where in ("true", "false")
    )
    assert isinstance(resident, ResidentNgpModel)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # something to see
        plain.field.table.copy_(torch.randn(plain.field.table.shape, generator=generator))
        plain.sampler.thickness.copy_(torch.rand(plain.sampler.thickness.shape, generator=generator))
        plain.sampler.least_density.fill_(0.9)
        plain.sampler.pack()
    camera, box = eye_of_view(scene.cameras, 0).camera(20), ((-0.6,) * 3, (0.6,) * 3)
    wishes = ("sample count", None, False), ("occupancy", None, False), ("color", box, False), ("color", None, True)
    for what, crop, hasty in wishes:
        resident.load_state_dict(plain.state_dict())
        with torch.no_grad():
            resident.field.table.zero_()
            resident.sampler.bits.zero_()
        resident._is_ahead = True
        found, expected = (Looks(model, 1.0, False).rows(camera, 0, 20, what, crop, hasty).pixels for model in (resident, plain))
        assert expected.std() > 5
        most = 3.0 if hasty else 0.05  # levels; hasty ones of the device pass over samples of their own
        assert np.abs(found.astype(int) - expected).mean() < most, what


def test_thumbnails_are_small_and_over_white():
    picture = np.zeros((300, 200, 4), np.uint8)
    picture[:150, :, :] = [10, 20, 30, 255]
    small = thumbnail(picture)
    assert max(small.shape[:2]) <= 96
    assert small[0, 0].tolist() == [10, 20, 30]
    assert small[-1, 0].tolist() == [255, 255, 255]
