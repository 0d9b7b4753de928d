"""A radiance field from pictures in one readable file: scene, field, rendering, training, and what comes out.

The scene is built in: shapes whose picture along any ray has a closed form, so the truth is exact and nothing is downloaded.
The method is instant-ngp's (Müller et al. 2022): a hash grid and two small MLPs, an occupancy grid to skip empty space,
and volume rendering. Every kernel it runs is one of `taichi_nerf.ops`.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imageio.v2 as imageio
import numpy as np
import torch
from torch import Tensor, nn

from taichi_nerf.ops import compositing, hash_grid, occupancy_grid, ray_box, ray_generation, ray_marching, spherical_harmonics
from taichi_nerf.rays import Rays, RenderedRays

SIZE, FIELD_OF_VIEW = 128, 45.0
N_TRAINING_VIEWS, N_TEST_VIEWS = 48, 8
RADIUS = 3.2  # of the cameras' sphere; the scene fills the cube [-1, 1]^3
RESOLUTION, STEP = 64, 2 / 128  # occupancy cells an axis, and the length of a ray marching step
GRID = {"n_levels": 12, "base_resolution": 8, "max_resolution": 256, "log2_table_size": 15}
SAMPLES_PER_STEP = 2**16

Report = Callable[[float, str], None]  # fraction done, what is known so far


# --- the scene -----------------------------------------------------------------------------------------------------


def trace(rays: Rays) -> tuple[Tensor, Tensor]:
    """The true picture: color [n, 3] and coverage [n] along each ray, by intersecting a slab, two spheres and a box."""
    o, d = rays.origins, rays.directions
    t_best = torch.full_like(o[:, 0], math.inf)
    normal, albedo = torch.zeros_like(o), torch.zeros_like(o)

    def nearer(t: Tensor, n: Tensor, color: Tensor) -> None:
        hit = t < t_best
        t_best[hit], normal[hit], albedo[hit] = t[hit], n[hit], color[hit]

    spheres = [((0.0, 0.12, 0.0), 0.5), ((-0.55, -0.3, 0.45), 0.22)]
    for index, (center, radius) in enumerate(spheres):
        p = o - o.new_tensor(center)
        b, c = (p * d).sum(-1), (p * p).sum(-1) - radius**2
        t = -b - (b * b - c).clamp_min(0).sqrt()
        t = torch.where((b * b > c) & (t > 0), t, math.inf)
        n = (p + t.nan_to_num(posinf=0.0)[:, None] * d) / radius
        bands = torch.sin(18 * n[:, 1] + 3 * torch.atan2(n[:, 2], n[:, 0])) > 0
        first, second = [((0.9, 0.45, 0.1), (0.1, 0.35, 0.7)), ((0.85, 0.8, 0.2), (0.55, 0.1, 0.45))][index]
        nearer(t, n, torch.where(bands[:, None], o.new_tensor(first), o.new_tensor(second)))
    boxes = [((-0.85, -0.62, -0.85), (0.85, -0.52, 0.85), 5.0), ((0.35, -0.52, -0.65), (0.72, 0.05, -0.25), 12.0)]
    for low, high, checks in boxes:
        near = (o.new_tensor(low) - o) / d
        far = (o.new_tensor(high) - o) / d
        entry, axis = torch.minimum(near, far).max(-1)
        leave = torch.maximum(near, far).amin(-1)
        t = torch.where((entry < leave) & (entry > 0), entry, math.inf)
        n = torch.zeros_like(o).scatter(1, axis[:, None], -torch.sign(d.gather(1, axis[:, None])))
        p = o + t.nan_to_num(posinf=0.0)[:, None] * d
        odd = torch.floor(checks * p + 1e-3).sum(-1) % 2 > 0.5
        nearer(t, n, torch.where(odd[:, None], o.new_tensor((0.85, 0.85, 0.82)), o.new_tensor((0.2, 0.45, 0.3))))

    light = nn.functional.normalize(o.new_tensor((0.5, 1.0, 0.6)), dim=0)
    half = nn.functional.normalize(light - d, dim=-1)
    shade = 0.35 + 0.65 * (normal @ light).clamp_min(0)
    shine = 0.4 * (normal * half).sum(-1).clamp_min(0) ** 40  # what makes color depend on the viewing direction
    return (albedo * shade[:, None] + shine[:, None]).clamp(0, 1), torch.isfinite(t_best).to(o.dtype)


def look_at_center(azimuth: float, elevation: float) -> Tensor:
    """An OpenCV camera-to-world matrix [3, 4] (x right, y down, z forward) on the sphere around the scene; y is up."""
    position = RADIUS * torch.tensor(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.sin(azimuth),
        ]
    )
    forward = -position / RADIUS
    right = nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0])), dim=0)
    return torch.stack([right, torch.linalg.cross(forward, right), forward, position], -1)


class Views(NamedTuple):
    """Cameras and the pictures they took."""

    camera_to_worlds: Tensor  # [n_views, 3, 4]
    color: Tensor  # [n_views, SIZE * SIZE, 3]
    coverage: Tensor  # [n_views, SIZE * SIZE]


def rays_of(camera_to_worlds: Tensor, cameras: Tensor, pixels: Tensor) -> Rays:
    """Rays through pixel positions [n, 2] of the cameras [n] int32, all of which share one pinhole."""
    focal = SIZE / 2 / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    intrinsics = torch.tensor([[focal, focal, SIZE / 2, SIZE / 2]]).repeat(len(camera_to_worlds), 1).to(pixels)
    return ray_generation.generate_rays(pixels, cameras, camera_to_worlds, intrinsics)


def pixel_centers(device: torch.device) -> Tensor:
    """[SIZE * SIZE, 2], row by row."""
    grid = torch.arange(SIZE, device=device) + 0.5
    return torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).reshape(-1, 2)


def take_pictures(n: int, phase: float, device: torch.device) -> Views:
    """n cameras spread over the upper part of a sphere (a Fibonacci spiral), 3 x 3 rays a pixel against aliasing."""
    heights = torch.linspace(-0.15, 1.2, n)
    poses = torch.stack([look_at_center(phase + 2.39996 * i, float(heights[i])) for i in range(n)]).to(device)
    centers = pixel_centers(device)
    pictures = []
    for i in range(n):
        camera = torch.full((len(centers),), i, dtype=torch.int32, device=device)
        color, coverage = torch.zeros(len(centers), 3, device=device), torch.zeros(len(centers), device=device)
        for shift in [(x / 3, y / 3) for x in (-1, 0, 1) for y in (-1, 0, 1)]:
            hit_color, hit = trace(rays_of(poses, camera, centers + centers.new_tensor(shift)))
            color += hit_color * hit[:, None] / 9
            coverage += hit / 9
        pictures.append((color, coverage))
    return Views(poses, torch.stack([c for c, _ in pictures]), torch.stack([a for _, a in pictures]))


# --- the field -----------------------------------------------------------------------------------------------------


class Field(nn.Module):
    """Density and color at positions in the cube [-1, 1]^3, seen along directions."""

    def __init__(self, seed: int, n_hidden: int = 64, n_geometry: int = 16):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(hash_grid.initialise_table(**GRID, n_features=2, generator=generator))
        self.density_mlp = nn.Sequential(
            nn.Linear(2 * GRID["n_levels"], n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_geometry)
        )
        self.color_mlp = nn.Sequential(
            nn.Linear(n_geometry + 16, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 3)
        )

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Density [n] and geometry features [n, 16]."""
        features = self.density_mlp(hash_grid.hash_grid((positions + 1) / 2, self.table, **GRID))
        return torch.exp(features[:, 0].clamp(max=12.0)), features

    def forward(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density [n] and color [n, 3]."""
        density, features = self.density(positions)
        seen = torch.cat([features, spherical_harmonics.spherical_harmonics(directions, degree=3)], -1)
        return density, torch.sigmoid(self.color_mlp(seen))


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
        density = torch.cat([field.density(chunk)[0] for chunk in positions.split(2**16)])
        self.density = occupancy_grid.update_density(self.density, cells, density, decay=0.8)
        self.bits = occupancy_grid.pack_occupancy(self.density, threshold=0.5 / STEP * 0.02)


# --- rendering and training ----------------------------------------------------------------------------------------


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
        lr=1e-2, eps=1e-15, betas=(0.9, 0.99),
    )  # fmt: skip
    centers = pixel_centers(device)
    n_rays, step, start = 4096, 0, time.perf_counter()
    while (done := (time.perf_counter() - start) / seconds) < 1:
        if step % 16 == 0:
            occupancy.update(field, 1.0 if step < 128 else 0.25, generator)
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * min(1.0, 0.02 ** (2 * done - 1))  # decays by 50 over the second half
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
        report(done, f"step {step}, training PSNR {psnr(float(loss)):.1f} dB")
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


# --- what comes out ------------------------------------------------------------------------------------------------


def to_bytes(color: Tensor) -> np.ndarray:
    return (color.clamp(0, 1) * 255).round().byte().cpu().numpy()


def save_comparison(file: Path, truths: list[Tensor], renders: list[Tensor], depths: list[Tensor]) -> None:
    """A row a view: truth | render | error, five times | depth, near is bright."""
    rows = []
    for truth, render, depth in zip(truths, renders, depths, strict=True):
        nearness = torch.where(depth > 0, 1 - (depth - RADIUS + 1) / 2, 0.0).clamp(0, 1)
        rows.append(torch.cat([truth, render, 5 * (truth - render).abs(), nearness[..., None].expand(-1, -1, 3)], 1))
    imageio.imwrite(file, to_bytes(torch.cat(rows)))


def save_orbit(file: Path, field: Field, occupancy: Occupancy, report: Report, n_frames: int = 60) -> None:
    device = occupancy.box.device
    with imageio.get_writer(file, fps=24, macro_block_size=2, quality=8) as video:
        for i in range(n_frames):
            pose = look_at_center(2 * math.pi * i / n_frames, 0.5).to(device)
            video.append_data(to_bytes(render_view(field, occupancy, pose)[0]))
            report((i + 1) / n_frames, "orbit")


@torch.no_grad()
def save_mesh(file: Path, field: Field, occupancy: Occupancy, resolution: int = 128) -> None:
    """Marching cubes on the density, colored by the field as seen from outside along the normals."""
    import skimage.measure
    import trimesh

    device = occupancy.box.device
    axis = torch.linspace(-1, 1, resolution, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    density = torch.cat([field.density(chunk)[0] for chunk in points.split(2**16)])
    volume = density.view(resolution, resolution, resolution).cpu().numpy()
    spacing = 2 / (resolution - 1)
    vertices, faces, normals, _ = skimage.measure.marching_cubes(volume, level=25.0, spacing=(spacing,) * 3)
    at = torch.from_numpy(np.ascontiguousarray(vertices - 1)).float().to(device)
    inward = torch.from_numpy(np.ascontiguousarray(normals)).float().to(device)
    color = torch.cat([field(p, d)[1] for p, d in zip(at.split(2**16), inward.split(2**16), strict=True)])
    trimesh.Trimesh(at.cpu().numpy(), faces, vertex_colors=to_bytes(color)).export(file)


class Outcome(NamedTuple):
    """How good it is and where it lies."""

    psnr: float  # mean over test views, which training never saw
    n_steps: int
    seconds: float  # of training
    files: list[Path]


def run(out: Path, device: torch.device, seconds: float = 60.0, seed: int = 0, report: Report = lambda done, text: None) -> Outcome:
    """Take pictures, train, compare on held-out views, render an orbit, extract a mesh; files go to `out`."""
    torch.manual_seed(seed)
    report(0.0, "taking pictures")
    training = take_pictures(N_TRAINING_VIEWS, 0.0, device)
    test = take_pictures(N_TEST_VIEWS, 1.0, device)
    field = Field(seed).to(device)
    occupancy = Occupancy(torch.tensor([[-1.0, -1, -1], [1, 1, 1]], device=device))
    n_steps = train(field, occupancy, training, seconds, seed, report)
    pictures = [render_view(field, occupancy, pose) for pose in test.camera_to_worlds]
    truths = [(c + (1 - a)[:, None]).view(SIZE, SIZE, 3) for c, a in zip(test.color, test.coverage, strict=True)]
    scores = [psnr(float(((render - truth) ** 2).mean())) for (render, _), truth in zip(pictures, truths, strict=True)]
    files = [out / "comparison.png", out / "orbit.mp4", out / "mesh.ply"]
    save_comparison(files[0], truths[::2], [render for render, _ in pictures[::2]], [depth for _, depth in pictures[::2]])
    save_orbit(files[1], field, occupancy, report)
    save_mesh(files[2], field, occupancy)
    return Outcome(sum(scores) / len(scores), n_steps, seconds, files)
