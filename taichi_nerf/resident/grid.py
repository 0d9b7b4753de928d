"""The occupancy grid of a sampler on the device, and how it is kept up to date there."""

import math

import torch

from taichi_nerf.kernels import empty_space, hash_grid, occupancy_grid, resident_field
from taichi_nerf.launch import launch
from taichi_nerf.ops.fused_mlp import fused_mlp_
from taichi_nerf.resident.arrays import floats, whole
from taichi_nerf.resident.field import ResidentField
from taichi_nerf.runtime import DeviceArray
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler

AT_ONCE = 2**16  # cells that are looked at


class ResidentGrid:
    def __init__(self, sampler: OccupancyGridSampler, field: ResidentField):
        self.sampler, self.field = sampler, field
        self.thickness = DeviceArray(sampler.thickness)
        self.least_density = DeviceArray(sampler.least_density)
        self.bits = DeviceArray(sampler.bits)
        self.spread, self._scratch = whole(len(sampler.bits), len(empty_space.REACHES)), whole(len(sampler.bits))
        n = min(len(sampler.thickness), AT_ONCE)
        self._positions = floats(n, 3)
        self._features, self._geometry = floats(n, field.widths.encoded), floats(n, field.widths.geometry)
        parts = occupancy_grid.N_PARTS
        self._parts = floats(parts), whole(parts), floats(parts)
        self._limit = floats(1)
        self._spread_bits()

    @property
    def contracted(self) -> bool:
        return self.sampler.contraction == "sphere"

    def push(self) -> None:
        sampler = self.sampler
        self.thickness.copy_(sampler.thickness)
        self.least_density.copy_(sampler.least_density)
        self.bits.copy_(sampler.bits)
        self._spread_bits()

    def pull(self) -> None:
        sampler = self.sampler
        sampler.thickness.copy_(self.thickness.to_torch())
        sampler.least_density.copy_(self.least_density.to_torch())
        sampler.bits.copy_(self.bits.to_torch())
        sampler.survey()

    def update(self, share: float, generator: torch.Generator) -> None:
        """`OccupancyGridSampler.update`, with random numbers of the device's own."""
        settings, field, n_cells = self.sampler.settings, self.field, self.thickness.shape[0]
        run_length = max(1, round(1 / share))
        n, seed = -(-n_cells // run_length), draw_seed(generator)
        grid = (settings.resolution, self.contracted, field.box.data)
        for first in range(0, n, AT_ONCE):
            some = min(AT_ONCE, n - first)
            launch(
                resident_field.visit_cells, first, some, run_length, seed, n_cells, *grid, self._positions.data
            )  # fmt: skip
            levels = (field.levels.data, field.scales.data, field.n_features)
            launch(hash_grid.encode_by_points, self._positions.data, field.table.data, *levels, self._features.data)
            workspace = field.density.workspace(some)
            fused_mlp_(
                self._features, field.density.weights, self._geometry, n_rows=some, workspace=workspace, **field.density.options
            )
            launch(
                resident_field.learn_cells, first, some, run_length, seed, self._geometry.data, field.log_density,
                self.sampler.step_length, settings.decay, settings.rise, self.thickness.data, self.least_density.data,
            )  # fmt: skip
        self.pack()

    def pack(self) -> None:
        sums, counts, largest = (part.data for part in self._parts)
        launch(occupancy_grid.visible_statistics, self.thickness.data, sums, counts, largest)
        threshold = -math.log1p(-self.sampler.settings.least_alpha)
        launch(resident_field.occupancy_limit, sums, counts, largest, threshold, self._limit.data)
        launch(occupancy_grid.pack_occupancy, self.thickness.data, self._limit.data, self.bits.data)
        self._spread_bits()

    def _spread_bits(self) -> None:
        launch(
            empty_space.spread_bits, self.bits.data, self.sampler.settings.resolution, self._scratch.data, self.spread.data
        )  # fmt: skip


def draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (1,), generator=generator))
