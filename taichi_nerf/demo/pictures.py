"""The built-in scene: shapes whose picture along any ray has a closed form, so the truth is exact and nothing is downloaded."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf.ops import ray_generation
from taichi_nerf.rays import Rays

SIZE, FIELD_OF_VIEW = 128, 45.0
RADIUS = 3.2  # of the cameras' sphere; the scene fills the cube [-1, 1]^3


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
        bands = torch.sin(12 * n[:, 1] + 3 * torch.atan2(n[:, 2], n[:, 0])) > 0
        first, second = [((0.9, 0.45, 0.1), (0.1, 0.35, 0.7)), ((0.85, 0.8, 0.2), (0.55, 0.1, 0.45))][index]
        nearer(t, n, torch.where(bands[:, None], o.new_tensor(first), o.new_tensor(second)))
    boxes = [((-0.85, -0.62, -0.85), (0.85, -0.52, 0.85), 3.5), ((0.35, -0.52, -0.65), (0.72, 0.05, -0.25), 8.0)]
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
    """n cameras spread over the upper part of a sphere (a Fibonacci spiral), 2 x 2 rays a pixel against aliasing."""
    heights = torch.linspace(0.05, 1.2, n)
    poses = torch.stack([look_at_center(phase + 2.39996 * i, float(heights[i])) for i in range(n)]).to(device)
    centers = pixel_centers(device)
    pictures = []
    for i in range(n):
        camera = torch.full((len(centers),), i, dtype=torch.int32, device=device)
        color, coverage = torch.zeros(len(centers), 3, device=device), torch.zeros(len(centers), device=device)
        for shift in [(x / 4, y / 4) for x in (-1, 1) for y in (-1, 1)]:
            hit_color, hit = trace(rays_of(poses, camera, centers + centers.new_tensor(shift)))
            color += hit_color * hit[:, None] / 4
            coverage += hit / 4
        pictures.append((color, coverage))
    return Views(poses, torch.stack([c for c, _ in pictures]), torch.stack([a for _, a in pictures]))
