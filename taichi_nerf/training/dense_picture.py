"""Pictures of methods that look at equally many samples on every ray."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Picture

SAMPLES_AT_ONCE = 2**18


class Seen(NamedTuple):
    """What some rays see, over black."""

    color: Tensor  # [n, 3] times opacity
    opacity: Tensor  # [n]
    depth: Tensor  # [n] along the ray, of what is seen
    normals: Tensor | None  # [n, 3] times opacity


@torch.no_grad()
def in_parts(see: Callable[[Rays], Seen], rays: Rays, size: tuple[int, int], n_rays: int) -> Picture:
    """A picture of width × height, so many rays at a time."""
    parts = [see(Rays(*(part[start : start + n_rays] for part in rays))) for start in range(0, len(rays.origins), n_rays)]
    color, opacity, depth = (torch.cat([part[i] for part in parts]) for i in range(3))  # type: ignore[misc]
    normals = [part.normals for part in parts if part.normals is not None]
    width, height = size
    return Picture(
        color.clamp(0, 1).view(height, width, 3),
        opacity.clamp(0, 1).view(height, width),
        torch.where(opacity > 0.01, depth, 0.0).view(height, width),
        torch.cat(normals).view(height, width, 3) if normals else None,
    )


def normals_at(density: Callable[[Tensor], Tensor], positions: Tensor) -> Tensor:  # [n, 3] → [n, 3] unit length
    """Where density falls, at the places that rays see."""
    with torch.enable_grad():
        at = positions.detach().requires_grad_()
        (slope,) = torch.autograd.grad(density(at).sum(), at)
    return nn.functional.normalize(-slope, dim=-1)
