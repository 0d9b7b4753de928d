"""Figures of benchmarks come from where they say: of held-out views, of the right contender, per second of what lasted."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball

from taichi_nerf.benchmarks import few_view, kernels, methods, quality, scenes, training
from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.rendering import Picture
from taichi_nerf.runtime import Backend, current, traffic
from taichi_nerf.training.config import RunSettings

CPU = torch.device("cpu")
BACKEND = Backend("cpu", "a processor", False, 1)


def grey(size, level, opacity=1.0):
    """A picture over black."""
    width, height = (int(side) for side in size)
    return Picture(torch.full((height, width, 3), level * opacity), torch.full((height, width), opacity), torch.ones(1), None)


def test_methods_are_compared_on_test_views_alone_over_white_by_the_width_of_pictures(monkeypatch):
    sizes = np.array([[8, 4], [16, 8], [16, 8], [8, 4]])
    off = [0.9, 0.1, 0.01, 0.2]  # of each view, where it covers half of the white
    scene = SimpleNamespace(splits={"train": np.array([0]), "test": np.array([1, 2, 3])}, cameras=SimpleNamespace(sizes=sizes))
    model = SimpleNamespace(config=SimpleNamespace(batch=SimpleNamespace(masks="alpha")))
    monkeypatch.setattr(methods, "picture_of_view", lambda model, view, size: grey(size, 0.3 + off[view], 0.5))

    def truth(scene, view, masks_are_alpha):
        assert masks_are_alpha
        shape = sizes[view][::-1]
        return torch.full((*shape, 3), 0.3), torch.full((*shape,), 0.5), None

    monkeypatch.setattr(methods, "truth_of_view", truth)
    found = methods.by_width(model, scene)
    decibels = [-20 * math.log10(error / 2) for error in off]
    assert list(found) == [16, 8]
    assert found == pytest.approx({16: (decibels[1] + decibels[2]) / 2, 8: decibels[3]}, abs=1e-3)


class Turns:
    """A trainer of `n_steps` steps, each of as many seconds as its method has letters."""

    made: list["Turns"]
    order: list[str]

    def __init__(self, config, scene, device):
        self.config, self.model, self.n_steps = config, self, 0
        self.stopwatch = SimpleNamespace(seconds=0.0)
        self.made.append(self)

    def warm_up(self):
        pass

    @property
    def is_done(self):
        return self.n_steps == 4

    def step(self):
        self.n_steps += 1
        self.stopwatch.seconds += len(self.config.run.method)
        self.order.append(self.config.run.method)
        return SimpleNamespace(loss=0.0)


def test_contenders_have_their_own_settings_and_whoever_trained_less_is_next(cpu, monkeypatch):
    monkeypatch.setattr(Turns, "made", [], raising=False)
    monkeypatch.setattr(Turns, "order", [], raising=False)
    monkeypatch.setattr(methods, "Trainer", Turns)
    monkeypatch.setattr(methods, "by_width", lambda model, scene: {1: model.stopwatch.seconds})
    scene = views_of_ball()[0]
    rows = methods.compare(methods.CONTENDERS["scales"], scene, "ball", RunSettings(steps=4), CPU, lambda text: None)
    assert [(row.name, row.n_steps, row.seconds, row.psnr) for row in rows] == [
        ("nerf", 4, 16, {1: 16}),
        ("mipnerf", 4, 28, {1: 28}),
    ]
    assert Turns.order == ["nerf", "mipnerf", "nerf", "mipnerf", "nerf", "nerf", "mipnerf", "mipnerf"]
    gain = methods.table(rows, BACKEND).splitlines()[-1]
    assert gain == "| mipnerf - nerf | | | 12.00 |"
    methods.compare(methods.CONTENDERS["samplers"], scene, "ball", RunSettings(steps=4), CPU, lambda text: None)
    assert [made.config.run.method for made in Turns.made] == ["nerf", "mipnerf", "ngp", "ngp"]
    assert [made.config.sampler.kind for made in Turns.made[2:]] == ["occupancy", "proposal"]


@pytest.mark.parametrize("kind", ["z", "ray"])
def test_errors_of_depth_are_along_the_axis_in_metres_where_depth_is_known(cpu, monkeypatch, kind):
    """Rendered a tenth of a unit too far along the axis; a unit is three metres."""
    scene, taken = views_of_ball(depth_kind=kind)
    width, height = (int(side) for side in taken.sizes[2])
    y, x = np.mgrid[:height, :width] + 0.5
    cosines = (taken.rays(2, np.stack([x.ravel(), y.ravel()], -1))[1] @ taken.forwards[2]).reshape(height, width)
    measured = scene.depths.images[2][..., 0]
    along_axis = measured * cosines if kind == "ray" else measured
    rendered = torch.from_numpy((along_axis + 0.1) / cosines).float()

    def picture(model, view, size):
        assert (view, list(size)) == (2, [width, height])
        return Picture(torch.zeros(height, width, 3), torch.zeros(height, width), rendered, None)

    monkeypatch.setattr(few_view, "picture_of_view", picture)
    shown = few_view.compare(SimpleNamespace(rig=CameraRig(taken)), scene, 2, True, 3.0)
    assert shown["error"].shape == ((measured > 0).sum(),)
    torch.testing.assert_close(shown["error"], torch.full_like(shown["error"], 0.3), rtol=0, atol=1e-4)
    np.testing.assert_allclose(shown["true_depth"], 3 * along_axis, atol=1e-4)
    assert shown["render"].min() == 1  # over white, as the truth is where nothing is
    np.testing.assert_allclose(shown["truth"][measured == 0], 1)


def test_what_kernels_take_is_told_of_ours_and_of_the_reference(cpu, monkeypatch):
    class Timed:
        def __init__(self, function, arguments, differentiable):
            self.is_ours = function.__module__.startswith("taichi_nerf.ops.")
            self.times = itertools.cycle([(1.0, 2.0), (9.0, 9.0), (1.0, 2.0)] if self.is_ours else [(10.0, 30.0)])

        def run(self):
            return next(self.times)

    monkeypatch.setattr(kernels, "Call", Timed)
    monkeypatch.setattr(kernels, "peak_growth", lambda run: 5.0 if run.__self__.is_ours else 7.0)
    rows = kernels.measure("compositing", 100)
    row = next(row for row in rows if row.op.endswith("composite_rays"))
    assert row == kernels.Row("compositing.composite_rays", 100, 1.0, 10.0, 2.0, 30.0, 5.0, 7.0)
    assert (row.forward_ratio, row.backward_ratio) == (10, 15)
    assert "| 100 | 1.00 | 10.00 | 10.0x | 2.00 | 30.00 | 15.0x | 0.03 | 5 | 7 |" in kernels.table([row], BACKEND)


def test_quality_is_of_test_views_after_the_budget_with_rates_by_how_long_they_lasted(small_scene, monkeypatch):
    def trained(config, scene, folder, device, report):
        assert config.run.time_budget == 7
        assert (config.run.preset, config.batch.n_rays_most) == ("fast", 64)
        rows = [
            {"step": 1, "seconds": 1.0, "rays_per_second": 10.0, "samples_per_second": 100.0},
            {"step": 2, "seconds": 4.0, "rays_per_second": 40.0, "samples_per_second": 200.0},
        ]
        (folder.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SimpleNamespace(n_steps=2)

    def evaluated(run, split, report):
        assert split == "test"
        return {"psnr": 21.0, "ssim": 0.5, "seconds_per_image": 0.25}

    monkeypatch.setattr(quality, "train", trained)
    monkeypatch.setattr(quality, "load_run", lambda path, device: path)
    monkeypatch.setattr(quality, "evaluate", evaluated)
    row = quality.measure(small_scene, 7.0, "fast", ["batch.n_rays_most=64"], CPU, lambda done, text: None)
    assert row == quality.Row(7.0, 21.0, 0.5, 2, 32.5, 175.0, 0.25)


def test_stages_of_a_step_and_the_rest_add_up_to_it(monkeypatch):
    times = iter([0.0, 0.003, 1.0, 1.002, 2.0, 2.001])
    monkeypatch.setattr(training, "now", lambda: next(times))
    clock = training.Clock()
    march = clock.timed("march", lambda x, by=1: x * by)
    assert march(3, by=2) == 6
    march(1)
    clock.timed("Adam", lambda: None)()
    clock.end_step(10.0)
    clock.end_step(4.0)
    assert clock.steps[0] == pytest.approx({"march": 5, "Adam": 1, "the rest": 4, "step": 10})
    assert clock.steps[1] == pytest.approx({"the rest": 4, "step": 4})


def test_what_crosses_is_counted_from_where_it_was(cpu, monkeypatch):
    before = training.replace(traffic)
    monkeypatch.setattr(traffic, "uploaded", traffic.uploaded + 5)
    monkeypatch.setattr(traffic, "n_launches", traffic.n_launches + 2)
    crossed = training.since(before)
    assert (crossed.uploaded, crossed.n_launches, crossed.downloaded) == (5, 2, 0)


def test_rates_of_batches_are_medians_and_bests(cpu, monkeypatch):
    n_threads, calls = torch.get_num_threads(), []

    def seconds_of(call):
        calls.append(call())
        return [0.5, 0.25, 2.0] if len(calls) == 1 else [1.0, 0.5, 4.0]

    monkeypatch.setattr(scenes, "seconds_of", seconds_of)
    try:
        found = scenes.run(n_views=3, size=16, batch=64, n_threads=n_threads)
    finally:
        torch.set_num_threads(n_threads)
    assert (found.pixels_per_second, found.best_pixels_per_second) == (128, 256)
    assert (found.rays_per_second, found.best_rays_per_second) == (64, 128)
    assert found.table_mebibytes == 3 * 16 * 16 * 4 / 2**20
    assert calls[0].colors.shape == (64, 4)
    colors, rays = calls[1]
    assert colors.shape == (64, 4)
    torch.testing.assert_close(rays.origins.norm(dim=-1), rays.origins.new_full((64,), float(rays.origins[0].norm())))
    assert current().arch == "cpu"
