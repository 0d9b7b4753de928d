"""Budgets of steps and seconds, and the clock that counts training only."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taichi_nerf.training.budget import Budget, Stopwatch


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@given(
    steps=st.none() | st.integers(1, 1000),
    seconds=st.none() | st.floats(1e-3, 1e3),
    step=st.integers(0, 2000),
    at=st.floats(0, 2e3),
)
def test_whichever_is_spent_first_ends_a_training(steps, seconds, step, at):
    if steps is None and seconds is None:
        return
    budget = Budget(steps, seconds)
    spent = (steps is not None and step >= steps) or (seconds is not None and at >= seconds)
    assert budget.done(step, at) == spent
    assert 0 <= budget.progress(step, at) <= 1
    assert budget.progress(0, 0.0) == 0


def test_progress_is_the_larger_share():
    assert Budget(100, 60).progress(50, 15) == 0.5
    assert Budget(100, 60).progress(10, 45) == 0.75
    assert Budget(None, 60).progress(10**9, 15) == 0.25
    assert Budget(100, None).progress(25, 1e9) == 0.25


@pytest.mark.parametrize("limits", [(None, None), (0, None), (-1, None), (None, 0.0), (None, math.nan), (None, math.inf)])
def test_a_budget_that_limits_nothing_is_refused(limits):
    with pytest.raises(ValueError, match="budget"):
        Budget(*limits)


def test_only_what_runs_is_counted():
    clock = Clock()
    watch = Stopwatch(clock=clock)
    clock.wait(3)
    assert watch.seconds == 0
    with watch.running():
        clock.wait(5)
        assert watch.seconds == 5
        with watch.running():  # what runs already is counted once
            clock.wait(1)
        clock.wait(2)
    clock.wait(11)
    assert watch.seconds == 8


def test_an_error_does_not_leave_the_clock_running():
    clock = Clock()
    watch = Stopwatch(clock=clock)
    with contextlib.suppress(OSError), watch.running():
        clock.wait(2)
        raise OSError
    clock.wait(3)
    assert watch.seconds == 2


def test_a_clock_goes_on_from_a_checkpoint():
    clock = Clock()
    first = Stopwatch(clock=clock)
    with first.running():
        clock.wait(10)
    second = Stopwatch(first.seconds, Clock())
    assert second.seconds == 10
    third = Stopwatch(first.seconds, clock)
    with third.running():
        clock.wait(1)
    assert third.seconds == 11
