"""Projection into views, bilinear lookup in their feature images, and the inverse warp by depth, in plain torch."""

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from taichi_nerf.reference.example import Example, uniform

NEAREST = 1e-6
BEHIND = -1e4


def project_points(
    points: Tensor,  # [n_points, 3]
    world_to_cameras: Tensor,  # [n_views, 3, 4] OpenCV: x right, y down, z forward
    intrinsics: Tensor,  # [n_views, 4] fx, fy, cx, cy in pixels
) -> tuple[Tensor, Tensor]:
    """Where views see points: pixels [n_views, n_points, 2], centres at +0.5, and z depths [n_views, n_points]."""
    return _project(points @ world_to_cameras[:, :, :3].mT + world_to_cameras[:, None, :, 3], intrinsics)


def _project(in_cameras: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    seen = in_cameras[..., 2] > NEAREST
    z = torch.where(seen, in_cameras[..., 2], 1.0)
    pixels = in_cameras[..., :2] / z[..., None] * intrinsics[:, None, :2] + intrinsics[:, None, 2:]
    return torch.where(seen[..., None], pixels, BEHIND), torch.where(seen, z, 0.0)


def gather_features(
    features: Tensor,  # [n_views, height, width, n_channels]
    pixels: Tensor,  # [n_views, n_points, 2]
    *,
    padding: Literal["border", "zeros"] = "border",
    align: Literal["pixel_centers", "corners"] = "pixel_centers",
) -> Tensor:
    """Bilinear lookup: [n_views, n_points, n_channels]. The first feature lies at (0.5, 0.5), with corners at (0, 0)."""
    size = pixels.new_tensor([features.shape[2], features.shape[1]])
    extent = (size - 1).clamp_min(1) if align == "corners" else size  # what [-1, 1] spans, in pixels
    on_grid = pixels * (2 / extent) - 1
    images = features.permute(0, 3, 1, 2)
    sampled = grid_sample(images, on_grid[:, None], "bilinear", padding, align_corners=align == "corners")
    return sampled[:, :, 0].permute(0, 2, 1)


def inverse_warp(
    source: Tensor,  # [n_views, height, width, n_channels]
    depth: Tensor,  # [n_views, height, width] z depth of the target view
    source_from_target: Tensor,  # [n_views, 3, 4] target camera -> source camera
    intrinsics: Tensor,  # [n_views, 4] fx, fy, cx, cy of both cameras
) -> tuple[Tensor, Tensor]:
    """The source image as the target camera sees it [n_views, height, width, n_channels], and where that is valid."""
    height, width = depth.shape[1:]
    across = torch.arange(width, device=depth.device, dtype=depth.dtype) + 0.5
    down = torch.arange(height, device=depth.device, dtype=depth.dtype) + 0.5
    fx, fy, cx, cy = (k[:, None, None] for k in intrinsics.unbind(-1))
    in_target = torch.stack([(across - cx) / fx * depth, (down[:, None] - cy) / fy * depth, depth], -1).flatten(1, 2)
    in_source = in_target @ source_from_target[:, :, :3].mT + source_from_target[:, None, :, 3]
    pixels, depths = _project(in_source, intrinsics)
    warped = gather_features(source, pixels).unflatten(1, (height, width))
    x, y = pixels.unbind(-1)
    valid = (depths > 0) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return warped, valid.unflatten(1, (height, width))


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n points seen by two cameras around them; n lookups in features; a warp of images with n pixels together."""
    like = torch.empty(0, dtype=dtype)
    n_points = n // 2
    size = max(round((n / 4) ** 0.5), 3)

    skew = uniform(generator, (2, 3, 3), -0.2, 0.2, like)
    turn = torch.linalg.matrix_exp(skew - skew.mT)
    away = torch.tensor([[[0.1], [-0.2], [4.0]]], dtype=dtype).expand(2, 3, 1)
    intrinsics = uniform(generator, (2, 4), 0.9, 1.1, like) * torch.tensor([size, size, size / 2, size / 2], dtype=dtype)
    cameras = {
        "points": uniform(generator, (n_points, 3), -1, 1, like),
        "world_to_cameras": torch.cat([turn, away], -1),
        "intrinsics": intrinsics,
    }
    found = [Example("project_points", cameras, ("points", "world_to_cameras", "intrinsics"), "two views")]

    size = max(size // 4, 3)  # as in pixelNeRF: many more lookups than features
    for n_channels, padding, align in ((64, "border", "pixel_centers"), (5, "zeros", "pixel_centers"), (1, "border", "corners")):
        lookups = {
            "features": uniform(generator, (2, size, size + 1, n_channels), -1, 1, like),
            "pixels": uniform(generator, (2, n_points, 2), -2, size + 3, like),
            "padding": padding,
            "align": align,
        }
        label = f"{n_channels} channels, {padding}, {align}"
        found.append(Example("gather_features", lookups, ("features", "pixels"), label))

    n_images = min(n, 2)
    height, width = max(round((n / 4) ** 0.5), 1), max(round(n**0.5), 2)
    skew, shift = skew[:n_images] / 10, uniform(generator, (n_images, 3, 1), 0.02, 0.1, like)
    middle = torch.tensor([width, width, width / 2, height / 2], dtype=dtype)
    warp = {
        "source": uniform(generator, (n_images, height, width, 3), 0, 1, like),
        "depth": uniform(generator, (n_images, height, width), 1, 3, like),
        "source_from_target": torch.cat([torch.linalg.matrix_exp(skew - skew.mT), shift], -1),
        "intrinsics": uniform(generator, (n_images, 4), 0.9, 1.1, like) * middle,
    }
    found.append(Example("inverse_warp", warp, ("source", "depth", "source_from_target", "intrinsics"), "three channels"))
    return found
