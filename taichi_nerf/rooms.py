"""How much room a rendering on a GPU has, guessed from what the last ones took: to ask how many samples there are is to wait.

A training does without the waiting: it renders into room for half as many samples again as there last were, is told afterwards
how many there are, and leaves out the step where that was not enough.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.later import Later

MARGIN = 1.5  # over what the last rendering took
FORGOTTEN = 0.9  # of the last room, what a rendering of fewer samples leaves
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
        self.forget()

    def forget(self) -> None:
        """What was learned of another state of the model: the next rendering counts."""
        self._room: Room | None = None  # of the last rendering, as far as it was not too much
        self._told: tuple[int, Later] | None = None  # its rays, and what it wanted

    def room(self, n_rays: int) -> Room | None:
        """For this many rays; None as long as nothing is known. Waits until the last rendering's samples are there, no more.

        It shrinks slowly, since samples come and go, but never grows by having been large when there were fewer rays.
        """
        if self._told is None:
            return None
        n_before, wanted = self._told
        sizes = [MARGIN * n_rays / n_before * n for n in wanted.read()]
        if self._room is not None:
            sizes = [max(size, FORGOTTEN * former) for size, former in zip(sizes, self._room, strict=True)]
        marched, kept, going, later, later_kept = map(_rounded, sizes)
        self._room = Room(marched, min(kept, marched), min(going, n_rays), later, min(later_kept, later))
        return self._room

    def tell(self, n_rays: int, room: Room | None, took: Tensor) -> tuple[Tensor, Tensor]:  # [5] in the order of `Room`
        """What a rendering took. Gives what it wanted [5], where its room is full twice as much; and whether nothing is full."""
        if room is None:
            wanted, is_whole = took, torch.ones((), dtype=torch.bool, device=took.device)
        else:
            most = torch.tensor(room._replace(going=room.going + (room.going == n_rays)))
            full = took >= most.to(took.device, non_blocking=True)
            wanted, is_whole = took * (1 + full.long()), ~full.any()
        self._told = n_rays, Later(wanted)
        return wanted, is_whole


def _rounded(n: float) -> int:
    return max(LEAST, -(-int(n) // MULTIPLE) * MULTIPLE)
