"""Arrays on the device: those that a rendering fills, and those that last as long as the training.

A rendering needs as much room as it has rays and samples, which its kernels tell only the device. So arrays are larger than what
they hold, in powers of two, and are used again by the next rendering once the backward pass is through.
"""

from typing import NamedTuple

import torch

from taichi_nerf.kernels import resident_rays
from taichi_nerf.runtime import DeviceArray


class Size(NamedTuple):
    """How much a rendering has room for."""

    rays: int
    first: int  # samples of the first march
    later: int  # of the second
    kept: int  # that are looked at in full


class Widths(NamedTuple):
    """Numbers of a sample."""

    encoded: int  # features of the hash grid
    geometry: int  # outputs of the density network
    inputs: int  # of the color network


def floats(*shape: int, requires_grad: bool = False) -> DeviceArray:
    return DeviceArray.empty(*shape, dtype=torch.float32, requires_grad=requires_grad)


def whole(*shape: int) -> DeviceArray:
    return DeviceArray.empty(*shape, dtype=torch.int32)


def room_for(n: int, least: int = 512) -> int:
    """The next power of two."""
    return max(1 << (max(n, 1) - 1).bit_length(), least)


class RayArrays:
    """Rays [room, …], of which the first n are there."""

    def __init__(self, room: int):
        self.origins, self.directions, self.radii = floats(room, 3), floats(room, 3), floats(room)


class March:
    """The samples of one march, and what a glance at them tells."""

    def __init__(self, n_rays: int, room: int, widths: Widths):
        self.room = room
        self.t_starts, self.t_ends, self.ray_indices = floats(room), floats(room), whole(room)
        self.beginnings, self.spans, self.total = whole(n_rays), whole(n_rays, 2), whole(2)
        self.features, self.geometry = floats(room, widths.encoded), floats(room, widths.geometry)
        self.is_visible = whole(room)


class Rendering:
    """All that one rendering fills."""

    def __init__(self, size: Size, widths: Widths):
        self.size, n_rays, kept = size, size.rays, size.kept
        self.near, self.far, self.jitter = floats(n_rays), floats(n_rays), floats(n_rays)
        self.further = floats(n_rays)  # where the second march begins
        self.nowhere = floats(n_rays)  # where a third one would
        self.sums = whole(resident_rays.N_PARTS)
        self.march, self.later = March(n_rays, size.first, widths), March(n_rays, size.later, widths)
        self.spans, self.total = whole(n_rays, 2), whole(2)
        self.t_starts, self.t_ends, self.ray_indices = floats(kept), floats(kept), whole(kept)
        self.sources = whole(kept)
        self.features = floats(kept, widths.encoded, requires_grad=True)
        self.geometry = floats(kept, widths.geometry, requires_grad=True)
        self.inputs = floats(kept, widths.inputs, requires_grad=True)
        self.density, self.color = floats(kept), floats(kept, 3, requires_grad=True)
        self.weights, self.grad_weights = floats(kept), floats(kept)
        self.of_density, self.unused = floats(kept), [floats(kept), floats(kept)]
        self.out_color, self.opacity, self.depth, self.spread = floats(n_rays, 3), floats(n_rays), floats(n_rays), floats(n_rays)
        self.grad_rays = [floats(n_rays, 3), floats(n_rays), floats(n_rays), floats(n_rays)]
        self.black = floats(n_rays, 3)
        self.black.data.fill(0)
        self.of_background = floats(n_rays, 3)
        self.intervals: list[DeviceArray] | None = None  # in which the spread of weights is measured

    def measured(self) -> list[DeviceArray]:
        if self.intervals is None:
            self.intervals = [floats(self.size.kept), floats(self.size.kept)]
        return self.intervals
