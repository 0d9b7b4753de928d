"""A picture of a procedural scene by any camera, with depth, normals and object numbers.

Color and coverage are means over a grid of n_samples² rays a pixel; depth, normal and object are those of the ray through the
pixel's centre, for a mean over an edge is true of neither side.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.bands import bands
from taichi_nerf.cameras import Array, Cameras
from taichi_nerf.ops import procedural, ray_generation
from taichi_nerf.ops.procedural import Solids
from taichi_nerf.rays import Rays
from taichi_nerf.runtime import current
from taichi_nerf.scenes.procedural import Description

MOST_RAYS = 2**19  # at once


class Picture(NamedTuple):
    """What one camera sees."""

    color: Array  # [height, width, 3] 0 to 1 as displayed, not multiplied by opacity
    opacity: Array  # [height, width] share of the pixel that is covered; 1 everywhere in opaque scenes
    depth: Array  # [height, width] along the optical axis, float32; 0 where nothing is hit
    ray_depth: Array  # [height, width] along the ray; 0 where nothing is hit
    normals: Array  # [height, width, 3] of the world, outward; 0 where nothing is hit
    objects: Array  # [height, width] int32 number of the shape; -1 where nothing is hit


def solids_of(scene: Description) -> Solids:
    """The arrays of a scene, on the device of the running backend."""
    names = ("primitives", "kinds", "shapes", "spans", "materials", "lights", "surrounding")
    return Solids(*(torch.from_numpy(getattr(scene, name)).to(current().torch_device) for name in names))


def take_picture(scene: Description, cameras: Cameras, camera: int = 0, n_samples: int = 3) -> Picture:
    """The picture that one of the cameras takes, through its lens."""
    solids = solids_of(scene)
    width, height = (int(size) for size in cameras.sizes[camera])
    rays_of = _Lens(cameras, camera)
    strips = [
        _strip(scene, solids, rays_of, rows, width, n_samples) for rows in bands(height, width * n_samples * n_samples, MOST_RAYS)
    ]
    return Picture(*(np.concatenate([strip[k] for strip in strips]) for k in range(len(Picture._fields))))


def take_color(scene: Description, cameras: Cameras, camera: int = 0, n_samples: int = 3) -> tuple[Array, Array]:
    """Color and opacity of `take_picture` alone, in two thirds of its time."""
    solids = solids_of(scene)
    width, height = (int(size) for size in cameras.sizes[camera])
    rays_of = _Lens(cameras, camera)
    strips = [
        _colors(scene, solids, rays_of, _corners(rows, width), n_samples)
        for rows in bands(height, width * n_samples * n_samples, MOST_RAYS)
    ]
    color, opacity = (torch.cat(parts).cpu().numpy() for parts in zip(*strips, strict=True))
    return color.reshape(height, width, 3), opacity.reshape(height, width)


class _Lens:
    """Rays through pixels of one camera."""

    def __init__(self, cameras: Cameras, camera: int):
        device = current().torch_device
        self.pose = torch.from_numpy(cameras.camera_to_worlds[[camera]]).float().to(device)
        self.intrinsics = torch.from_numpy(cameras.intrinsics[[camera]]).float().to(device)
        self.distortion = torch.from_numpy(cameras.distortion[[camera]]).float().to(device)
        self.model = torch.from_numpy(cameras.models[[camera]]).to(device)
        self.forward = self.pose[0, :, 2]

    def __call__(self, pixels: Tensor) -> Rays:
        index = torch.zeros(len(pixels), dtype=torch.int32, device=pixels.device)
        return ray_generation.generate_rays(pixels, index, self.pose, self.intrinsics, self.distortion, self.model)


def _corners(rows: slice, width: int) -> Tensor:
    """[n_rows * width, 2] of pixels, row by row."""
    device = current().torch_device
    row, column = torch.arange(rows.start, rows.stop, device=device), torch.arange(width, device=device)
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), -1).reshape(-1, 2).float()


def _colors(scene: Description, solids: Solids, rays_of: _Lens, corners: Tensor, n_samples: int) -> tuple[Tensor, Tensor]:
    """Color [n, 3] and opacity [n] of pixels."""
    shift = (torch.arange(n_samples, device=corners.device) + 0.5) / n_samples
    shifts = torch.stack(torch.meshgrid(shift, shift, indexing="xy"), -1).reshape(-1, 2)
    rays = rays_of((corners[:, None] + shifts).reshape(-1, 2))
    # radii are 2/√12 of a pixel's width at distance one; a sample stands for 1/n_samples of the pixel
    seen = procedural.see(solids, rays.origins, rays.directions, rays.radii * (12**0.5 / 2 / n_samples))
    covered = (seen.shape >= 0).float().reshape(-1, n_samples**2)
    color = seen.color.reshape(-1, n_samples**2, 3)
    if scene.opaque:
        return color.mean(1), torch.ones(len(color), device=corners.device)
    color = (color * covered[..., None]).sum(1) / covered.sum(1).clamp_min(1)[:, None]
    return color, covered.mean(1)


def _strip(scene: Description, solids: Solids, rays_of: _Lens, rows: slice, width: int, n_samples: int) -> Picture:
    corners, n_rows = _corners(rows, width), rows.stop - rows.start
    return Picture(
        *(
            array.reshape(n_rows, width, *array.shape[1:]).cpu().numpy()
            for array in _colors(scene, solids, rays_of, corners, n_samples)
        ),
        *_centre(solids, rays_of, corners + 0.5, (n_rows, width)),
    )


def _centre(solids: Solids, rays_of: _Lens, pixels: Tensor, shape: tuple[int, int]) -> list[Array]:
    """Depth along the axis and along the ray, normals and objects of the rays through the pixels' centres."""
    rays = rays_of(pixels)
    hits = procedural.trace_rays(solids, rays.origins, rays.directions)
    hit = hits.shape >= 0
    depth = torch.where(hit, hits.depth, 0.0)
    along_axis = depth * (rays.directions @ rays_of.forward)
    normals = procedural.find_normals(solids, rays.origins, rays.directions, hits)
    found = (along_axis, depth, normals, hits.shape)
    return [array.reshape(*shape, *array.shape[1:]).cpu().numpy() for array in found]
