"""The vocabulary: what flows between samplers, fields, ops and rendering.

Everything is a named tuple of tensors, so it unpacks, prints and passes through functions without ceremony.
Index tensors are int32: that is what every backend can index with.
"""

from typing import NamedTuple

from torch import Tensor


class Rays(NamedTuple):
    """Half lines, one a row. A point on ray r is `origins[r] + t * directions[r]`, so t is a distance (kind: ray)."""

    origins: Tensor  # [n_rays, 3]
    directions: Tensor  # [n_rays, 3] unit length
    radii: Tensor  # [n_rays] mip-NeRF's cone radius at t = 1 (for orthographic cameras: the cylinder's radius)


class Samples(NamedTuple):
    """Intervals along rays, packed ray after ray: ray r owns `count` samples from `first` on."""

    t_starts: Tensor  # [n_samples]
    t_ends: Tensor  # [n_samples]
    ray_indices: Tensor  # [n_samples] int32
    spans: Tensor  # [n_rays, 2] int32: first, count


class RenderedRays(NamedTuple):
    """What compositing gives. `depth` is the sum of weight * interval midpoint, not divided by opacity (kind: ray)."""

    color: Tensor  # [n_rays, n_channels]
    opacity: Tensor  # [n_rays]
    depth: Tensor  # [n_rays]
    weights: Tensor  # [n_samples]
