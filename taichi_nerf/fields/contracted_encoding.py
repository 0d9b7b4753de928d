"""What mip-NeRF 360's networks see (Barron et al. 2022): pieces of cones as Gaussians in contracted space, along directions.

(x - centre) / reach → contraction → mean and variance along each direction → expected sines and cosines of 2^l of them.
The directions are those of an icosahedron rather than three axes, so that long thin Gaussians keep their shape.
`reach` is half of the box's longest side: what lies within that distance of its centre stays as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taichi_nerf.fields.ranges import check_ranges
from taichi_nerf.ops import contraction, frequency_encoding, integrated_encoding, ray_marching
from taichi_nerf.rays import Rays, Samples

N_PARTS = {6: 1, 21: 2}  # into which an icosahedron's edges are cut, by directions


@dataclass(frozen=True)
class GaussianEncodingSettings:
    n_frequencies: int = 12  # of places
    n_view_frequencies: int = 4
    n_directions: int = 21  # 3 are the axes, 6 or 21 an icosahedron's

    def __post_init__(self) -> None:
        check_ranges(
            self,
            n_frequencies=(1, integrated_encoding.MOST_FREQUENCIES),
            n_view_frequencies=(1, frequency_encoding.MOST_FREQUENCIES),
        )
        if self.n_directions not in (3, *N_PARTS):
            raise ValueError(f"n_directions: expected 3, 6 or 21, got {self.n_directions}")

    @property
    def n_place(self) -> int:
        """Numbers that encode a place."""
        return 2 * self.n_directions * self.n_frequencies

    @property
    def n_view(self) -> int:
        return 6 * self.n_view_frequencies + 3


class ContractedEncoding(nn.Module):
    basis: Tensor  # [n_directions, 3]
    center: Tensor  # [3]
    ahead: Tensor  # [1, 3]

    def __init__(self, settings: GaussianEncodingSettings, box: Tensor):
        super().__init__()
        self.settings = settings
        n = settings.n_directions
        basis = torch.eye(3) if n == 3 else contraction.icosahedron(N_PARTS[n]).float()
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("center", box.mean(0), persistent=False)
        self.register_buffer("ahead", torch.tensor([[1.0, 0, 0]]), persistent=False)
        self.reach = float((box[1] - box[0]).max() / 2)

    def forward(self, rays: Rays, samples: Samples) -> Tensor:  # [n_samples, n_place]
        """Of the pieces of cones that samples are."""
        origins = (rays.origins - self.center) / self.reach
        intervals = samples._replace(t_starts=samples.t_starts / self.reach, t_ends=samples.t_ends / self.reach)
        # In the ray's own frame the first axis is along it and the others are across.
        ahead = self.ahead.expand_as(origins)
        places, variances = integrated_encoding.cast_frustums(torch.zeros_like(origins), ahead, rays.radii, *intervals)
        middles = places[:, 0]
        means = ray_marching.sample_positions(origins, rays.directions, middles, middles, *intervals[2:])
        return self._encode(means, rays.directions.index_select(0, samples.ray_indices), variances[:, :2])

    def around(self, positions: Tensor, std: float) -> Tensor:  # [n, 3] in scene units → [n, n_place]
        """Of round Gaussians."""
        spreads = torch.full_like(positions[:, :2], (std / self.reach) ** 2)
        return self._encode((positions - self.center) / self.reach, self.ahead.expand_as(positions), spreads)

    def views(self, directions: Tensor) -> Tensor:  # [n, 3] → [n, n_view]
        n = self.settings.n_view_frequencies
        return frequency_encoding.frequency_encoding(directions, n_frequencies=n, order="per_function")

    def _encode(self, means: Tensor, directions: Tensor, spreads: Tensor) -> Tensor:
        projected = contraction.contract_gaussians(means, directions, spreads, self.basis)
        return integrated_encoding.integrated_encoding(*projected, n_frequencies=self.settings.n_frequencies)
