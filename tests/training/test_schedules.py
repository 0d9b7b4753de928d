"""Learning rates, in closed form."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taichi_nerf.training.schedules import cosine, grown, late_decay, log_linear, ramp

PROGRESS = st.floats(0, 1)


@given(p=PROGRESS)
def test_late_decay_is_flat_and_then_straight_in_the_logarithm(p):
    expected = 1.0 if p <= 0.4 else math.exp((p - 0.4) / 0.6 * math.log(0.05))
    assert late_decay(p, 0.4, 0.05) == pytest.approx(expected, rel=1e-12)


def test_late_decay_ends_where_it_is_told():
    assert [late_decay(p, 0.5, 0.02) for p in (0, 0.5, 0.75, 1, 1.5)] == pytest.approx([1, 1, math.sqrt(0.02), 0.02, 0.02])


@given(p=PROGRESS)
def test_log_linear_is_jaxnerfs_learning_rate(p):
    """Their formula in steps, for 1000 of them, of which 100 are delay."""
    step, delay_rate = 1000 * p, 0.01
    delay_rate = delay_rate + (1 - delay_rate) * math.sin(0.5 * math.pi * min(max(step / 100, 0), 1))
    expected = delay_rate * math.exp(math.log(5e-4) * (1 - step / 1000) + math.log(5e-6) * step / 1000)
    assert log_linear(p, 5e-4, 5e-6, 0.1, 0.01) == pytest.approx(expected, rel=1e-9)


def test_log_linear_without_delay_meets_its_ends():
    assert [log_linear(p, 1e-2, 1e-4) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-4])


def test_cosine_meets_its_ends_and_middle():
    assert [cosine(p, 0.2) for p in (0, 0.5, 1, 2)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert [cosine(p, 0.0, 0.1) for p in (0, 0.05, 0.1, 0.55, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@given(p=PROGRESS, q=PROGRESS)
def test_no_schedule_rises_after_its_beginning(p, q):
    low, high = min(p, q), max(p, q)
    for schedule in (late_decay, cosine, lambda x: log_linear(x, 1e-2, 1e-4)):
        assert schedule(high) <= schedule(low) * (1 + 1e-12)


def test_schedules_without_meaning_are_refused():
    for wrong in (lambda: late_decay(0.5, 1.0), lambda: late_decay(0.5, 0.5, 0.0), lambda: cosine(0.5, 0, 1)):
        with pytest.raises(ValueError, match="expected"):
            wrong()
    with pytest.raises(ValueError, match="expected positive rates"):
        log_linear(0.5, 0.0, 1.0)


def test_what_grows_late_is_nothing_then_a_straight_line_and_then_flat():
    assert [grown(p, 0.3, 0.8) for p in (0.0, 0.3, 0.55, 0.8, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [grown(p, 0.0, 0.0) for p in (0.0, 0.5)] == [1, 1]
    assert [grown(p, 0.5, 0.5) for p in (0.4, 0.5)] == [0, 1]


def test_a_ramp_is_a_straight_line_and_then_flat():
    assert [ramp(p, 0.2) for p in (0.0, 0.05, 0.2, 0.7)] == pytest.approx([0, 0.25, 1, 1])
    assert ramp(0.0, 0.0) == 1
