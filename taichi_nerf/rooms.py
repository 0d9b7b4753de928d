"""How much room a rendering on a GPU has, guessed from what the last ones took: to ask how many samples there are is to wait.

A training does without the waiting: it renders into room for half as many samples again as there last were, is told afterwards
how many there are, and leaves out the step where that was not enough.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.later import Later

MARGIN = 1.5  # over what the last rendering took
FORGOTTEN = 0.9  # what a rendering of few samples leaves of the room that others needed
LEAST, MULTIPLE = 1024, 1024  # sizes that come again are memory that comes again


class Room(NamedTuple):
    """For how much. Of a rendering that was counted: how much it took."""

    marched: int  # samples as far as the light is thought to reach
    kept: int  # of those, worth a full look
    going: int  # rays that go on
    later: int  # their samples from there on
    later_kept: int  # of those, worth a full look


class Rooms:
    def __init__(self) -> None:
        self._per_ray: list[float] | None = None
        self._told: tuple[int, Room | None, Later] | None = None  # rays, their room, and what they took

    def room(self, n_rays: int) -> Room | None:
        """For this many rays; None as long as nothing is known. Waits until the last rendering's samples are there, no more."""
        self._learn()
        if self._per_ray is None:
            return None
        marched, kept, going, later, later_kept = (_rounded(MARGIN * n_rays * x) for x in self._per_ray)
        return Room(marched, min(kept, marched), min(going, n_rays), later, min(later_kept, later))

    def tell(self, n_rays: int, room: Room | None, took: Tensor) -> Tensor:  # [5] in the order of `Room`
        """What a rendering took. Whether all of it had room [] bool: where all is taken, more may have been left out."""
        self._learn()
        self._told = n_rays, room, Later(took)
        if room is None:
            return torch.ones((), dtype=torch.bool, device=took.device)
        most = torch.tensor(room._replace(going=room.going + (room.going == n_rays)))
        return (took < most.to(took.device, non_blocking=True)).all()

    def _learn(self) -> None:
        if self._told is None:
            return
        n_rays, room, told = self._told
        took = told.read()
        if room is not None:  # what filled its room is not known to be all
            took = [2 * n if n >= most else n for n, most in zip(took, room, strict=True)]
        before = self._per_ray or [0.0] * len(took)
        self._per_ray = [max(n / n_rays, FORGOTTEN * old) for n, old in zip(took, before, strict=True)]
        self._told = None


def _rounded(n: float) -> int:
    return max(LEAST, -(-int(n) // MULTIPLE) * MULTIPLE)
