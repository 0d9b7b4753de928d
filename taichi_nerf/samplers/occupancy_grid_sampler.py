"""Samples in the cells of a grid that hold something (Müller et al. 2022, appendix C and E).

The grid keeps, for every cell, a decaying maximum of the optical thickness of one step there: the density that was seen times the
step's length. A cell is occupied if a step would dim light noticeably; empty cells are skipped without looking at the field.

It also keeps a slowly rising minimum of the density of each cell, what light meets there wherever it passes: a ray ends where
such minima have taken its light, instead of going through the inside of things, where four of five occupied cells are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.fields.ranges import AT_LEAST_ONE, POSITIVE, SHARE, SHARE_BELOW_ONE, check_ranges
from taichi_nerf.fields.space import Contraction
from taichi_nerf.ops import occupancy_grid, ray_box, ray_marching
from taichi_nerf.rays import Rays, Samples

MARGIN = 0.01  # of a cell, around those that are occupied: more than rounding moves a point


@dataclass(frozen=True)
class OccupancySettings:
    resolution: int = 64  # cells along an axis
    n_cascades: int = 1  # the box, and around it boxes of 2, 4, … times its size
    step_size: float = 0.01  # scene units
    cone_angle: float = 0.0  # steps grow with distance: to this share of it
    max_step: float = 1e10
    least_alpha: float = 0.01  # of a cell that counts as occupied, over a step
    decay: float = 0.95  # of the remembered density at each visit
    max_samples_per_ray: int = 1024
    most_thickness: float = 10.0  # of what lies on a ray for certain, before it ends
    rise: float = 1.5  # by which the least density of a cell grows at most, from visit to visit

    def __post_init__(self) -> None:
        check_ranges(
            self, resolution=(32, 1280), n_cascades=(1, 16), step_size=POSITIVE, cone_angle=SHARE_BELOW_ONE,
            max_step=(self.step_size, 1e10), least_alpha=SHARE_BELOW_ONE, decay=SHARE, max_samples_per_ray=(1, 2**24),
            most_thickness=POSITIVE, rise=AT_LEAST_ONE,
        )  # fmt: skip
        if self.resolution % 32:
            raise ValueError(f"resolution: expected a multiple of 32, got {self.resolution}")

    @property
    def without_effect(self) -> dict[str, str]:
        return {} if self.cone_angle else {"max_step": "without occupancy.cone_angle"}


class OccupancyGridSampler(nn.Module):
    box: Tensor  # [2, 3]
    thickness: Tensor  # [n_cells] remembered; -1 where no camera sees
    least_density: Tensor  # [n_cells] that is met everywhere in a cell
    bits: Tensor  # [n_cells / 32] int32
    reach: Tensor  # [2, 3] box around all occupied cells, of one cascade; rays that miss it have no samples
    _spread: Tensor | None  # how far it is empty around cells; None: not known yet

    def __init__(self, settings: OccupancySettings, box: Tensor, contraction: Contraction, near: float, far: float):
        super().__init__()
        self.settings, self.contraction = settings, contraction
        self.near, self.far = near, far
        self.roams = False  # outside of training: near and far give way to eyes that are closer or farther than cameras were
        self.stretch = 1.0  # of all steps, while the grid does not know yet what is empty
        n_cells = settings.n_cascades * settings.resolution**3
        self.register_buffer("box", box)
        self.register_buffer("thickness", torch.zeros(n_cells, device=box.device))
        self.register_buffer("least_density", torch.zeros(n_cells, device=box.device))
        self.register_buffer("bits", torch.full((n_cells // 32,), -1, dtype=torch.int32, device=box.device))
        self.register_buffer("reach", box.clone(), persistent=False)
        self.register_buffer("_spread", None, persistent=False)
        self.register_load_state_dict_post_hook(_survey)

    def get_extra_state(self) -> dict[str, float]:
        return {"stretch": self.stretch}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.stretch = state["stretch"]

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        state.setdefault(f"{prefix}least_density", torch.zeros_like(self.least_density))  # older than this: nothing is certain
        super()._load_from_state_dict(state, prefix, *others)

    @torch.no_grad()
    def forward(
        self,
        rays: Rays,
        jitter: Tensor | None = None,
        begin: Tensor | None = None,
        until_dark: bool = False,
        max_samples: int | None = None,
    ) -> Samples:
        """The samples of rays: `jitter` [n_rays] in [0, 1) shifts them, None leaves them where they are.

        `until_dark` ends rays where, as far as the grid knows, no light is left; `begin` [n_rays] leaves out what lies before:
        where a ray's last sample ended, it can go on. `max_samples`, of all rays together, is how many there is room for
        (`ops.ray_marching.march_rays`).
        """
        origins, directions = rays.origins.detach(), rays.directions.detach()
        if self.contraction == "none":
            t_near, t_far = self._between(origins, directions)
        else:
            t_near = torch.full_like(origins[:, 0], self.near)
            t_far = torch.full_like(t_near, self.far)
        if begin is not None:
            t_near = torch.maximum(t_near, begin)
        if self._spread is None:
            self._spread = ray_marching.spread_bits(self.bits, self.settings.resolution)
        return ray_marching.march_rays(
            origins, directions, t_near, t_far, self.bits, self.box,
            step_size=self.step_size, cone_angle=self.cone_angle,
            max_step=self.settings.max_step,
            jitter=jitter, resolution=self.settings.resolution, n_cascades=self.settings.n_cascades,
            contraction=self.contraction, max_samples_per_ray=self.settings.max_samples_per_ray,
            least_density=self.least_density if until_dark else None, most_thickness=self.settings.most_thickness,
            spread=self._spread, max_samples=max_samples,
        )  # fmt: skip

    def _between(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        if not self.is_roaming:
            return ray_box.intersect_boxes(origins, directions, self.reach, near=self.near, far=self.far)
        t_near, t_far = ray_box.intersect_boxes(origins, directions, self.reach)
        center, radius = self.ball()
        distance = (origins - center).norm(dim=-1)
        near = (distance - radius).clamp(0, self.near)
        return torch.maximum(t_near, near), torch.minimum(t_far, (distance + radius).clamp_min(self.far))

    @property
    def is_roaming(self) -> bool:
        return self.roams and not self.training

    def ball(self) -> tuple[Tensor, Tensor]:
        """Centre and radius of a ball as large as the outermost box; published bounds of objects leave out its corners."""
        low, high = self.box[0], self.box[1]
        return (low + high) / 2, 2 ** (self.settings.n_cascades - 1) * (high - low).max() / 2

    def sees_whole_box_from(self, centers: Tensor) -> bool:
        """Whether near and far cut nothing from that ball for eyes at [n, 3]."""
        center, radius = self.ball()
        distances = (centers - center).norm(dim=-1)
        return bool(self.near <= distances.min() - radius) and bool(self.far >= distances.max() + radius)

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], share: float, generator: torch.Generator) -> None:
        """Look at a share of all cells, each at a random place inside it, and remember what is there."""
        n_cells = len(self.thickness)
        n = max(1, int(share * n_cells))
        if n == n_cells:
            cells = torch.arange(n_cells, dtype=torch.int32)
        else:  # one of each run of neighbours, which spreads the visits evenly and keeps them in memory order
            runs = torch.arange(n, dtype=torch.float64) + torch.rand(n, generator=generator)
            cells = (runs * (n_cells / n)).int().clamp_(max=n_cells - 1)
        jitter = torch.rand(n, 3, generator=generator)
        for part in torch.arange(n).split(2**18):
            chosen, shift = (random_numbers.sent(x[part[0] : part[-1] + 1], self.box.device) for x in (cells, jitter))
            positions = self._positions(chosen, shift)
            met = density(positions).nan_to_num(0.0)
            occupancy_grid.update_density_(self.thickness, chosen, met * self.step_length, decay=self.settings.decay)
            least = self.least_density.index_select(0, chosen)
            self.least_density.index_copy_(0, chosen.long(), torch.minimum(met, self.settings.rise * least + 0.5))
        self.pack()

    @torch.no_grad()
    def leave_out_unseen(self, poses: Tensor, intrinsics: Tensor, sizes: Tensor) -> None:
        """Cells that none of these cameras sees are empty for good: nothing would ever tell what is there."""
        corners = torch.maximum(intrinsics[:, 2:], sizes - intrinsics[:, 2:]) / intrinsics[:, :2]
        depth = self.near / float((1 + corners.square().sum(-1)).max().sqrt())  # of what is `near` away in a picture's corner
        self.thickness.copy_(
            occupancy_grid.mark_invisible_cells(
                self.thickness, poses, intrinsics, sizes, self.box, near=depth,
                resolution=self.settings.resolution, contraction=self.contraction,
            )
        )  # fmt: skip
        self.pack()

    def pack(self) -> None:
        threshold = -math.log1p(-self.settings.least_alpha)
        self.bits.copy_(occupancy_grid.pack_occupancy(self.thickness, threshold=threshold))
        self.survey()

    def survey(self) -> None:
        """After a change of the bits: find the box around them, of several cascades the outermost one."""
        self._spread = None
        low, high = self.box[0], self.box[1]
        n, n_cascades = self.settings.resolution, self.settings.n_cascades
        if n_cascades > 1 or self.contraction != "none":
            center, half = (low + high) / 2, (high - low) / 2 * 2 ** (n_cascades - 1)
            self.reach.copy_(torch.stack([center - half, center + half]))
            return
        words = self.bits.view(n, n, n // 32)  # z, y, x
        bit = torch.arange(32, dtype=torch.int32, device=words.device)
        some = words != 0
        along = ((words.view(-1, n // 32, 1) >> bit & 1).bool().any(0).flatten(), some.any(2).any(0), some.any(2).any(1))
        there = torch.stack(along).int()  # the first of the largest is the first occupied: told without waiting for a GPU
        first, last = there.argmax(-1), n - 1 - there.flip(-1).argmax(-1)
        edges = torch.stack([first - MARGIN, last + 1 + MARGIN])
        nothing = torch.stack([high, low])  # which no ray meets
        self.reach.copy_(torch.where(there.any(), low + (high - low) / n * edges, nothing))

    @property
    def step_size(self) -> float:
        return self.stretch * self.settings.step_size

    @property
    def cone_angle(self) -> float:
        return min(self.stretch * self.settings.cone_angle, 0.5)

    @property
    def step_length(self) -> float:
        """How long a step is in the middle of the scene, which cameras of unbounded scenes see from distance one."""
        return self.stretch * max(self.settings.step_size, self.settings.cone_angle)

    def _positions(self, cells: Tensor, jitter: Tensor) -> Tensor:
        return occupancy_grid.cell_positions(
            cells, jitter, self.box, resolution=self.settings.resolution, contraction=self.contraction
        )


def _survey(sampler: OccupancyGridSampler, _: Any) -> None:
    """By name, for pickle: samplers are saved and sent to other processes."""
    sampler.survey()
