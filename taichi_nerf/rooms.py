"""How much memory a rendering on a GPU sets aside for samples, guessed from what the last ones took.

How many samples there are only the device knows, and to ask it is to wait for it. So a rendering gets room for half as many
samples again as the last one had, and is told afterwards how many there were. Where the room was too small, a training through
torch leaves out the step (`Rooms`); the pipeline that stays on the device (`resident`) learns the exact number and renders again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.later import Later

MARGIN = 1.5  # over what the last rendering took
FORGOTTEN = 0.9  # share of the last room that is kept where fewer samples came
LEAST, MULTIPLE = 1024, 1024  # sizes are rounded up: of the same size, torch takes the same memory again


def guess(n_rays: int, n_before: int, took: Sequence[int], room: Sequence[int] | None) -> list[int]:
    """How much so many rays need, by what the last rendering, of `n_before`, took and the room that was guessed for it.

    A room shrinks slowly, since samples come and go. It shrinks with the number of rays at once, but does not grow with it.
    """
    share = n_rays / n_before
    needed = [MARGIN * share * n for n in took]
    kept = [FORGOTTEN * min(share, 1) * n for n in room or [0] * len(needed)]
    return [int(max(pair)) for pair in zip(needed, kept, strict=True)]


class Room(NamedTuple):
    """For how much there is room, or how much a rendering took."""

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
        self._room: Room | None = None  # guessed for the last rendering
        self._told: tuple[int, Later] | None = None  # its rays, and what it wanted

    def room(self, n_rays: int) -> Room | None:
        """For this many rays; None as long as nothing is known. Waits until the last rendering's samples are there, no more."""
        if self._told is None:
            return None
        n_before, wanted = self._told
        marched, kept, going, later, later_kept = guess(n_rays, n_before, wanted.read(), self._room)
        self._room = Room(marched, min(kept, marched), min(going, n_rays), later, min(later_kept, later))
        rounded = Room(*map(_rounded, self._room))
        return rounded._replace(going=min(rounded.going, n_rays))

    def tell(self, n_rays: int, room: Room | None, took: Tensor) -> tuple[Tensor, Tensor]:  # [5] in the order of `Room`
        """Note what a rendering took. Returns what it wanted [5], twice that where its room is full, and whether none is full."""
        if room is None:
            wanted, is_whole = took, torch.ones((), dtype=torch.bool, device=took.device)
        else:
            most = torch.tensor(room._replace(going=room.going + (room.going == n_rays)))
            full = took >= most.to(took.device, non_blocking=True)
            wanted, is_whole = took * (1 + full.long()), ~full.any()
        self._told = n_rays, Later(wanted)
        return wanted, is_whole


def _rounded(n: int) -> int:
    return max(LEAST, -(-n // MULTIPLE) * MULTIPLE)
