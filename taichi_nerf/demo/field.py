"""A radiance field with a hash grid (instant-ngp; Müller et al. 2022): the field, its occupancy grid, rendering, training."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.demo.pictures import SIZE, Views, pixel_centers, rays_of
from taichi_nerf.ops import compositing, hash_grid, occupancy_grid, ray_box, ray_marching, spherical_harmonics
from taichi_nerf.rays import Rays, RenderedRays

RESOLUTION, STEP = 64, 2 / 128  # occupancy cells an axis, and the length of a ray marching step
GRID: dict[str, Any] = {"n_levels": 12, "base_resolution": 8, "max_resolution": 256, "log2_table_size": 15}
SAMPLES_PER_STEP, LEARNING_RATE = 2**14, 2e-2

Report = Callable[[float, str], None]  # fraction done, what is known so far


class Field(nn.Module):
    """Density and color at positions in the cube [-1, 1]^3, seen along directions."""

    def __init__(self, seed: int, n_hidden: int = 64, n_geometry: int = 16):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(hash_grid.initialise_table(**GRID, n_features=2, generator=generator))
        self.density_mlp = nn.Sequential(nn.Linear(2 * GRID["n_levels"], n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_geometry))
        self.color_mlp = nn.Sequential(
            nn.Linear(n_geometry + 16, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, 3),
        )

    def density(self, positions: Tensor) -> Tensor:
        """Density [n]."""
        return in_chunks(lambda x: density_of(self.density_mlp(x)), self.encode(positions))

    def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density [n] and color [n, 3]."""
        seen_from = spherical_harmonics.spherical_harmonics(directions, degree=3)
        both = in_chunks(self.decode, torch.cat([self.encode(positions), seen_from], -1))
        return both[:, 0], both[:, 1:]

    def encode(self, positions: Tensor) -> Tensor:
        return hash_grid.hash_grid((positions + 1) / 2, self.table, **GRID)

    def decode(self, encoded: Tensor) -> Tensor:
        """Density and color [n, 4] from encoded positions and directions."""
        geometry = self.density_mlp(encoded[:, :-16])
        color = torch.sigmoid(self.color_mlp(torch.cat([geometry, encoded[:, -16:]], -1)))
        return torch.cat([density_of(geometry)[:, None], color], -1)


def density_of(geometry: Tensor) -> Tensor:
    """The first feature is the logarithm of density."""
    return torch.exp(geometry[:, 0].clamp(max=12.0))


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 8192) -> Tensor:
    """Apply an MLP to a few thousand rows at a time, always as many: on a CPU they stay in its cache, 3 times as fast."""
    padded = nn.functional.pad(rows, (0, 0, 0, -len(rows) % size))
    return torch.cat([function(chunk) for chunk in padded.split(size)])[: len(rows)] if len(rows) else function(rows)


class Occupancy:
    """Which cells hold anything: a decaying maximum of the density seen there, packed into bits."""

    def __init__(self, box: Tensor):
        self.box = box
        self.density = torch.zeros(RESOLUTION**3, device=box.device)
        self.bits = torch.full((RESOLUTION**3 // 32,), -1, dtype=torch.int32, device=box.device)

    @torch.no_grad()
    def update(self, field: Field, share: float, generator: torch.Generator) -> None:
        """Look at a share of all cells, each at a random place, and pack what is known."""
        n = int(share * len(self.density))
        cells = torch.randperm(len(self.density), generator=generator)[:n].int().to(self.box.device)
        jitter = torch.rand(n, 3, generator=generator).to(self.box.device)
        positions = occupancy_grid.cell_positions(cells, jitter, self.box, resolution=RESOLUTION)
        density = field.density(positions)
        self.density = occupancy_grid.update_density(self.density, cells, density, decay=0.8)
        self.bits = occupancy_grid.pack_occupancy(self.density, threshold=0.5 / STEP * 0.02)


def render_rays(
    field: Field, occupancy: Occupancy, rays: Rays, background: Tensor, jitter: Tensor | None = None
) -> tuple[RenderedRays, int]:
    """Render rays over a background [n, 3]; also how many samples that took."""
    t_near, t_far = ray_box.intersect_boxes(rays.origins, rays.directions, occupancy.box)
    samples = ray_marching.march_rays(
        rays.origins, rays.directions, t_near, t_far, occupancy.bits, occupancy.box,
        resolution=RESOLUTION, step_size=STEP, jitter=jitter,
    )  # fmt: skip
    of_sample = samples.ray_indices.long()
    middle = (samples.t_starts + samples.t_ends) / 2
    directions = rays.directions[of_sample]
    positions = rays.origins[of_sample] + middle[:, None] * directions
    density, color = field(positions, directions)
    rendered = compositing.composite_rays(density, color, samples.t_starts, samples.t_ends, samples.spans, background)
    return rendered, len(middle)


def train(field: Field, occupancy: Occupancy, views: Views, seconds: float, seed: int, report: Report) -> int:
    """Adam on random pixels for a given time; returns the number of steps.

    Each ray is composited over its own random color, picture and render alike, so that empty space cannot be explained by
    painting the background. The number of rays follows the number of samples, which keeps the work of a step constant.
    """
    device = views.color.device
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(
        [{"params": [field.table]}, {"params": [*field.density_mlp.parameters(), *field.color_mlp.parameters()]}],
        lr=LEARNING_RATE, eps=1e-15, betas=(0.9, 0.99),
    )  # fmt: skip
    centers = pixel_centers(device)
    n_rays, step, start = 512, 0, time.perf_counter()  # few at first, when every cell is still taken for occupied
    while (done := (time.perf_counter() - start) / seconds) < 1:
        if step % 16 == 0:
            occupancy.update(field, 1.0 if step < 128 else 0.25, generator)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, 0.02 ** (2 * done - 1))  # decays by 50 over the second half
        view = torch.randint(len(views.color), (n_rays,), generator=generator).to(device)
        pixel = torch.randint(len(centers), (n_rays,), generator=generator).to(device)
        background = torch.rand(n_rays, 3, generator=generator).to(device)
        jitter = torch.rand(n_rays, generator=generator).to(device)
        truth = views.color[view, pixel] + (1 - views.coverage[view, pixel])[:, None] * background
        rays = rays_of(views.camera_to_worlds, view.int(), centers[pixel])
        rendered, n_samples = render_rays(field, occupancy, rays, background, jitter)
        loss = nn.functional.mse_loss(rendered.color, truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        n_rays = int(min(max(n_rays * SAMPLES_PER_STEP / max(n_samples, 1), 256), 2 * n_rays, 32768))
        step += 1
        report(done, f"step {step}, training PSNR {psnr(loss.item()):.1f} dB")
    return step


@torch.no_grad()
def render_view(field: Field, occupancy: Occupancy, camera_to_world: Tensor) -> tuple[Tensor, Tensor]:
    """A picture on white [SIZE, SIZE, 3] and the depth where there is something [SIZE, SIZE]."""
    centers = pixel_centers(camera_to_world.device)
    rays = rays_of(camera_to_world[None], torch.zeros(len(centers), dtype=torch.int32, device=centers.device), centers)
    parts = []
    for chunk in torch.arange(len(centers), device=centers.device).split(8192):
        white = torch.ones(len(chunk), 3, device=centers.device)
        parts.append(render_rays(field, occupancy, Rays(*(x[chunk] for x in rays)), white)[0])
    color = torch.cat([part.color for part in parts]).clamp(0, 1)
    depth = torch.cat([part.depth / part.opacity.clamp_min(1e-4) * (part.opacity > 0.5) for part in parts])
    return color.view(SIZE, SIZE, 3), depth.view(SIZE, SIZE)


def psnr(mean_squared_error: float) -> float:
    return -10 * math.log10(max(mean_squared_error, 1e-10))
