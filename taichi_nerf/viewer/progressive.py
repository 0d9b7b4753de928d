"""What to render next: coarse at once, finer when the camera rests.

While a wish changes, every picture is a hasty one that is small enough to be there in time. Once it rests, pictures of twice the
height follow, by bands of rows of a tenth of a second each; a new wish gives up the picture that is being made.
"""

from collections.abc import Callable

import numpy as np

from taichi_nerf.viewer.eye import LEAST_HEIGHT, Wish
from taichi_nerf.viewer.looks import Part

BAND = 0.1  # seconds of rendering before somebody else may have a turn
FIRST_RATE = 2e5  # pixels a second, before any was measured
Render = Callable[[Wish, int, int, int, bool], Part]  # wish, height of the picture, first row, last row (exclusive), hasty


class Progressive:
    """The pictures of one browser, one after another."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self.rate = FIRST_RATE  # pixels a second, of late
        self._began: Wish | None = None  # the wish that the parts belong to
        self._height = 0  # of the picture that is being made; 0: none
        self._parts: list[Part] = []
        self.shown_height = 0  # of the last whole picture of the wish
        self.shown_hastily = False  # whether that was a preview
        self._previewed_at = -1e9

    def again(self) -> None:
        """What was shown is out of date: begin anew, with as fine a picture as a turn allows."""
        self._began = None

    def is_done(self, wish: Wish) -> bool:
        return wish is self._began and self.shown_height >= wish.height and not self.shown_hastily

    def is_due(self, wish: Wish) -> bool:
        """Whether there is anything to do now: a preview waits for its time, what is finished for another wish."""
        if wish is self._began:
            return not self.is_done(wish)
        return self._clock() - self._previewed_at >= 1 / wish.frames_per_second

    def preview_height(self, wish: Wish) -> int:
        """Of a picture that takes less than a frame of the time that there is."""
        fits = int(np.sqrt(self.rate / wish.frames_per_second / wish.eye.aspect))
        return max(LEAST_HEIGHT, min(fits, wish.height))

    def step(self, wish: Wish, render: Render) -> Part | None:
        """Render a piece. A picture, if it is whole now."""
        if wish is not self._began or not self.shown_height:
            self._began, self._parts, self.shown_height = wish, [], 0
            self._height, self._previewed_at = self.preview_height(wish), self._clock()
            return self._finish([self._timed(wish, render, 0, self._height, True)], hastily=True)
        if not self._parts:
            self._height = min(2 * self.shown_height, wish.height)
        first = sum(len(part.pixels) for part in self._parts)
        width = max(1.0, self._height * wish.eye.aspect)
        rows = max(1, int(BAND * self.rate / width))
        left = self._height - first
        last = self._height if left < 1.5 * rows else first + rows
        self._parts.append(self._timed(wish, render, first, last, False))
        return self._finish(self._parts, hastily=False) if last == self._height else None

    def _finish(self, parts: list[Part], hastily: bool) -> Part:
        whole = parts[0] if len(parts) == 1 else Part(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True)))
        self.shown_height, self.shown_hastily, self._parts = self._height, hastily, []
        return whole

    def _timed(self, wish: Wish, render: Render, first: int, last: int, hastily: bool) -> Part:
        began = self._clock()
        part = render(wish, self._height, first, last, hastily)
        seconds = max(self._clock() - began, 1e-4)
        measured = part.pixels.shape[0] * part.pixels.shape[1] / seconds
        self.rate = float(np.exp(0.6 * np.log(self.rate) + 0.4 * np.log(measured)))
        return part
