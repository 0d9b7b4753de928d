"""The one place where pictures are made, for all browsers, on the thread that started Taichi.

    studio.open(key, send, tell)        from any thread: a browser came
    studio.wish(key, wish)              from any thread: it wishes to see this now
    studio.close(key)                   from any thread: it went away, and its work with it
    studio.work()                       on Taichi's thread: one piece of work for one browser; False if there is none

Browsers take turns, by pieces of about a tenth of a second.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from taichi_nerf.viewer.eye import Wish
from taichi_nerf.viewer.looks import Looks, Part
from taichi_nerf.viewer.progressive import Progressive

Send = Callable[[Part, Wish, bool], None]  # a picture, the wish that it grants, whether it is the finished one
Tell = Callable[[str], None]  # a line about what cannot be shown; an empty one takes it back


@dataclass
class Sitter:
    """A browser, and what it sees."""

    send: Send
    tell: Tell
    looks: Looks
    pictures: Progressive
    wish: Wish | None = None
    told: str = ""
    served_at: float = 0.0


class Studio:
    def __init__(self, looks: Callable[[], Looks], clock: Callable[[], float] = time.monotonic):
        """`looks` makes the looks of a new browser."""
        self._looks, self._clock = looks, clock
        self._sitters: dict[int, Sitter] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()

    def open(self, key: int, send: Send, tell: Tell) -> None:
        with self._lock:
            self._sitters[key] = Sitter(send, tell, self._looks(), Progressive(self._clock))

    def close(self, key: int) -> None:
        with self._lock:
            self._sitters.pop(key, None)

    def wish(self, key: int, wish: Wish) -> None:
        """A wish that is equal to the last one changes nothing."""
        with self._lock:
            sitter = self._sitters.get(key)
            if sitter is None or sitter.wish == wish:
                return
            sitter.wish = wish
        self._woken.set()

    def again(self) -> None:
        """Every picture is out of date: the model or a kernel has changed."""
        with self._lock:
            for sitter in self._sitters.values():
                sitter.pictures.again()
        self._woken.set()

    def is_busy(self) -> bool:
        """Whether there is anything to render now."""
        return self._next() is not None

    def rest(self, seconds: float) -> None:
        """Until somebody wishes something, at most so long."""
        self._woken.wait(seconds)
        self._woken.clear()

    def work(self) -> bool:
        """One piece for whoever waits longest. An exception of a kernel passes through; the browser keeps its last picture."""
        sitter = self._next()
        if sitter is None:
            return False
        wish = sitter.wish
        assert wish is not None
        sitter.served_at = self._clock()
        refusal = sitter.looks.refusal(wish.what, wish.crop) or ""
        if refusal != sitter.told:
            sitter.told = refusal
            sitter.tell(refusal)

        def render(wish: Wish, height: int, first: int, last: int, hasty: bool) -> Part:
            what, crop = (wish.what, wish.crop) if not refusal else ("color", None)
            return sitter.looks.rows(wish.eye.camera(height), first, last, what, crop, hasty)

        part = sitter.pictures.step(wish, render)
        if part is not None:
            sitter.send(part, wish, sitter.pictures.is_done(wish))
        return True

    def _next(self) -> Sitter | None:
        with self._lock:
            due = [s for s in self._sitters.values() if s.wish is not None and s.pictures.is_due(s.wish)]
        return min(due, key=lambda sitter: sitter.served_at, default=None)
