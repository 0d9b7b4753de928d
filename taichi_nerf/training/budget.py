"""How long a training may go on, a clock that counts training and nothing else, and what follows for a trainer that has both."""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """Steps, seconds of training, or both: whichever is spent first ends it."""

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("a budget has to limit steps or seconds: give --steps or --time-budget")
        for name, value in (("steps", self.steps), ("seconds", self.seconds)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"a budget of {name} has to be more than 0 and finite, got {value}")

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent after `step` steps and `seconds` of training, from 0 to 1."""
        of_steps = step / self.steps if self.steps is not None else 0.0
        of_seconds = seconds / self.seconds if self.seconds is not None else 0.0
        return min(max(of_steps, of_seconds, 0.0), 1.0)

    def done(self, step: int, seconds: float) -> bool:
        return self.progress(step, seconds) >= 1


class Stopwatch:
    """Seconds of training. It starts stopped; `Stopwatch(seconds)` goes on from where a checkpoint left off.

    with watch.running():       # a step
        ...
    watch.seconds               # may be read at any time

    On a GPU the clock sees when work was given, not when it was done, unless one waits for the device within.
    """

    def __init__(self, seconds: float = 0.0, clock: Callable[[], float] = time.perf_counter):
        self._before = seconds  # counted up to the last start
        self._started: float | None = None
        self._clock = clock

    @property
    def seconds(self) -> float:
        return self._before + (self._clock() - self._started if self._started is not None else 0.0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens within."""
        was_on = self._started is not None
        self._switch(True)
        try:
            yield
        finally:
            self._switch(was_on)

    def _switch(self, on: bool) -> None:
        self._before = self.seconds
        self._started = self._clock() if on else None


class Course(ABC):
    """A trainer, as far as its budget and its clock tell of it."""

    budget: Budget
    stopwatch: Stopwatch
    n_steps: int

    @property
    def is_done(self) -> bool:
        return self.budget.done(self.n_steps, self.stopwatch.seconds)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.budget.progress(self.n_steps, self.stopwatch.seconds)

    @abstractmethod
    def step(self) -> Any:
        """One step of the optimiser, timed."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def warm_up(self) -> None:
        """A step on a copy of the state that is thrown away: what cannot be done fails before anything is written."""
        before = deepcopy(self.state_dict())
        self.step()
        self.load_state_dict(before)
