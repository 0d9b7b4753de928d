"""A training in the browser while it runs: pictures of what was learned so far, PSNR, and buttons to pause, go on and save.

Pictures are made between steps, for a share of the time, while somebody looks on. Time that goes into pictures and pauses
does not count as training.
"""

import math
import time
from collections.abc import Callable
from threading import Event
from types import TracebackType
from typing import Any

from taichi_nerf.live_kernels import LiveKernels
from taichi_nerf.training.onlooker import Onlooker
from taichi_nerf.training.step import Step
from taichi_nerf.training.trainer import Trainer
from taichi_nerf.viewer.studio import Studio
from taichi_nerf.viewer.viewer import POLL, Place, Viewer

SHARE = 0.5  # seconds of pictures for each second of training, while somebody looks on
REFRESH = 2.0  # seconds until a picture is made anew
TELL_EVERY = 0.5  # seconds between lines about progress
SMOOTH = 0.95  # of the mean of PSNR


class TrainingView(Onlooker):
    def __init__(
        self,
        place: Place | None,
        background: float,
        stop: Callable[[], bool],
        kernels: LiveKernels | None = None,
        say: Callable[[str], None] = print,
    ):
        """`place`: None watches kernels alone, without a browser."""
        self._place, self._background, self._stop, self._kernels, self._say = place, background, stop, kernels, say
        self.viewer: Viewer | None = None
        self._trainer: Trainer | None = None
        self._status: Any = None
        self._pause: Any = None
        self.is_paused, self._wants_save = Event(), Event()
        self._psnr = math.nan  # not known yet
        self._former: Step | None = None
        self._owed = 0.0  # seconds that pictures may take
        self._seconds = 0.0  # of training, at the last step
        self._told_at = self._refreshed_at = 0.0

    def __enter__(self) -> "TrainingView":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.viewer is not None:
            self.viewer.__exit__(kind, error, trace)

    def begins(self, trainer: Trainer) -> None:
        self._trainer, self._seconds = trainer, trainer.stopwatch.seconds
        if self._place is None:
            return
        self.viewer = Viewer(trainer.scene, self._place, trainer.model, self._background)
        if self._kernels is not None:
            self.viewer.listen_to(self._kernels)
        gui = self.viewer.server.gui
        with gui.add_folder("Training", order=-1):
            self._status = gui.add_markdown("begins")
            self._pause = gui.add_button("Pause")
            gui.add_button("Save").on_click(lambda _: self._wants_save.set())
        self._pause.on_click(lambda _: self.pause(not self.is_paused.is_set()))
        self._say(self.viewer.url)

    def pause(self, paused: bool) -> None:
        """From any thread."""
        if paused:
            self.is_paused.set()
        else:
            self.is_paused.clear()
        if self._pause is not None:
            self._pause.label = "Go on" if paused else "Pause"

    def stepped(self, step: Step) -> bool:
        former, self._former = self._former, step  # a GPU may still be at this one
        if former is not None and not math.isnan(former.psnr):
            self._psnr = former.psnr if math.isnan(self._psnr) else SMOOTH * self._psnr + (1 - SMOOTH) * former.psnr
        self._follow_kernels()
        if self._studio is not None:
            self._tell(step)
            self._show(self._studio, step)
            while self._studio is not None and self.is_paused.is_set() and not self._stop() and not self._wants_save.is_set():
                self._follow_kernels()
                if not self._work() and self._studio is not None:
                    self._studio.rest(POLL)
        wanted = self._wants_save.is_set()
        self._wants_save.clear()
        if wanted:
            self._say(f"saving at step {step.step}")
        return wanted

    @property
    def _studio(self) -> Studio | None:
        return self.viewer.studio if self.viewer is not None else None

    def _work(self) -> bool:
        """One piece of a picture. One that cannot be made, for want of memory, ends the viewer and not the training."""
        assert self.viewer is not None
        try:
            return self.viewer.work(self._kernels)
        except Exception as error:
            self._say(f"warning: the viewer has ended and the training goes on: {type(error).__name__}: {error}")
            self.viewer.__exit__(type(error), error, error.__traceback__)
            self.viewer = None
            return False

    def _show(self, studio: Studio, step: Step) -> None:
        """Pictures, as long as their share lasts."""
        now = time.monotonic()
        if now - self._refreshed_at >= REFRESH and not studio.is_busy():
            self._refreshed_at = now
            studio.again()
        self._owed = min(self._owed + SHARE * (step.seconds - self._seconds), 1.0)
        self._seconds = step.seconds
        while self._owed > 0:
            began = time.monotonic()
            if not self._work():
                return
            self._owed -= time.monotonic() - began

    def _tell(self, step: Step) -> None:
        if time.monotonic() - self._told_at < TELL_EVERY and not self.is_paused.is_set():
            return
        self._told_at = time.monotonic()
        assert self._trainer is not None
        self._status.content = (
            f"step {step.step:,} · {100 * self._trainer.progress:.0f} % · **{self._psnr:.1f} dB** PSNR of batches · "
            f"{step.seconds:.0f} s of training"
        )

    def _follow_kernels(self) -> None:
        """A changed kernel is checked at once, adjoint included: the next step needs it."""
        if self._kernels is not None and self._kernels.poll():
            while self._kernels.has_to_check:
                self._kernels.check()
            if self._studio is not None:
                self._studio.again()
