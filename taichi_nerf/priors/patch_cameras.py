"""Cameras that rendered patches are seen by (DiffusioNeRF): those of training, moved and turned a little, lenses of their own.

The lens of a patch is a window into a picture of 256 × 192 pixels with a focal length of 175: that wide an angle were the patches
that the published prior learnt from. A patch of other size or focal length is a window into a picture of the same angle.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

WIDTH, HEIGHT, FOCAL = 256 / 175, 192 / 175, 175.0  # the angles of the whole picture, as lengths at distance one


@dataclass(frozen=True)
class PatchLens:
    size: int = 48  # pixels a side
    focal: float = FOCAL  # pixels

    @property
    def reach(self) -> float:
        """Width of a patch at distance one."""
        return self.size / self.focal

    @property
    def margin(self) -> float:
        """How far a patch may lie outside of the whole picture: by a half of it, and no more than published."""
        return min(self.reach, PatchLens().reach) / 2


class Window(NamedTuple):
    """A part of an image, on a grid of patch pixels."""

    left: float  # image pixels
    top: float
    across: float  # image pixels of one patch pixel
    down: float


def small_turn(generator: torch.Generator, share: float = 0.1) -> Tensor:
    """A rotation [3, 3]: a uniformly random one, by a share of its angle (so up to 18 degrees)."""
    q = torch.randn(4, generator=generator, dtype=torch.float64)
    q = q / q.norm()
    if q[0] < 0:
        q = -q
    angle = 2 * math.atan2(float(q[1:].norm()), float(q[0]))
    axis = q[1:] / q[1:].norm().clamp_min(1e-12)
    x, y, z = (share * angle * axis).tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)).float()


def moved_pose(pose: Tensor, metres: float, generator: torch.Generator, reach: float = 0.2) -> Tensor:
    """A pose [3, 4] shifted by up to `reach` metres along each axis and turned a little; `metres`: of one unit of length."""
    shift = (2 * torch.rand(3, generator=generator) - 1) * (reach / metres)
    turn = small_turn(generator).to(pose)
    return torch.cat([turn @ pose[:, :3], pose[:, 3:] + shift.to(pose)[:, None]], -1)


def random_slopes(lens: PatchLens, generator: torch.Generator, compat: str = "paper") -> Tensor:
    """Where the pixels of a patch look, as x / z and y / z [size * size, 2].

    The window lies anywhere in the whole picture or up to a margin outside of it (`repo`: not below it, an oversight there).
    """
    corner = -torch.tensor([WIDTH, HEIGHT]) / 2
    room = torch.tensor([WIDTH, HEIGHT]) - lens.reach
    margin = torch.full((2,), lens.margin)
    after = margin.clone()
    if compat == "repo":
        after[1] = 0.0
    first = corner - margin + torch.rand(2, generator=generator) * (room + margin + after).clamp_min(0)
    return first + (grid(lens.size) + 0.5) / lens.focal


def random_window(lens: PatchLens, focal: tuple[float, float], size: tuple[int, int], generator: torch.Generator) -> Window:
    """A window of the patch's angle inside of an image of this focal length and size, or the widest that fits."""
    across, down = focal[0] / lens.focal, focal[1] / lens.focal
    fit = min(1.0, size[0] / (lens.size * across), size[1] / (lens.size * down))
    across, down = fit * across, fit * down
    x, y = torch.rand(2, generator=generator).tolist()
    return Window(x * (size[0] - lens.size * across), y * (size[1] - lens.size * down), across, down)


def window_pixels(lens: PatchLens, window: Window) -> Tensor:
    """The places in the image of the patch's pixels [size * size, 2], where the first pixel's centre is (0.5, 0.5)."""
    step = torch.tensor([window.across, window.down])
    return torch.tensor([window.left, window.top]) + (grid(lens.size) + 0.5) * step


def grid(size: int) -> Tensor:
    """[size * size, 2] column and row, row after row."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).float()
