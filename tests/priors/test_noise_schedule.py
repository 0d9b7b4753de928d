"""Noise schedules against their formulas."""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.priors.noise_schedule import NoiseSchedule


def test_cosine_keeps_the_published_share_of_the_signal():
    kept = NoiseSchedule.of("cosine").kept
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    for t in (0, 3, 99, 500, 990):
        assert kept[t].item() == pytest.approx(f[t + 1] / f[0], rel=1e-10)
    assert 1 - kept[999] / kept[998] == pytest.approx(0.999)  # cut off


def test_linear_is_that_of_ho_et_al():
    kept = NoiseSchedule.of("linear").kept
    assert kept[0].item() == pytest.approx(1 - 1e-4, rel=1e-12)
    assert (1 - kept[999] / kept[998]).item() == pytest.approx(0.02, rel=1e-9)
    assert_close(NoiseSchedule.of("linear", 100).kept[-1].log(), kept[-1].log(), rtol=0.1, atol=0)


@pytest.mark.parametrize("n_times", [1, 5, 19])
def test_few_times_have_a_schedule_too(n_times):
    schedule = NoiseSchedule.of("linear", n_times)
    assert schedule.signal.isfinite().all()
    assert (schedule.kept > 0).all()


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_noise_grows_and_variance_is_kept(kind):
    schedule = NoiseSchedule.of(kind)
    assert (schedule.noise.diff() > 0).all()
    assert_close(schedule.signal**2 + schedule.noise**2, torch.ones(1000, dtype=torch.float64))


@pytest.mark.parametrize(("tau", "t", "inverse"), [(0.1, 99, 5.99), (0.05, 47, 11.6), (0.0, 3, 71.7), (1.0, 999, 1.0)])
def test_tau_is_the_published_time(tau, t, inverse):
    schedule = NoiseSchedule.of("cosine")
    assert schedule.time_at(tau) == t
    assert 1 / schedule.noise[t].item() == pytest.approx(inverse, rel=2e-3)


def test_noisy_patches_have_the_stated_mean_and_variance():
    schedule, n = NoiseSchedule.of("cosine"), 200_000
    x = torch.full((n, 1, 1, 1), 0.5)
    noisy = schedule.noisy(x, torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(0)), torch.full((n,), 200))
    assert noisy.mean().item() == pytest.approx(0.5 * schedule.signal[200].item(), abs=3e-3)
    assert noisy.std().item() == pytest.approx(schedule.noise[200].item(), rel=1e-2)


def test_times_of_sampling_are_even_and_end_above_the_first():
    schedule = NoiseSchedule.of("cosine")
    times = schedule.strided(250)
    assert (times[0], times[-1], len(times)) == (999, 3, 250)
    assert set(torch.tensor(times).diff().tolist()) == {-4}
    assert schedule.strided(1000) == list(range(999, -1, -1))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="cosine or linear"):
        NoiseSchedule.of("square")
    with pytest.raises(ValueError, match="tau"):
        NoiseSchedule.of().time_at(1.5)
    with pytest.raises(ValueError, match="1 to 1000"):
        NoiseSchedule.of().strided(0)
