"""mip-NeRF's integrated positional encoding in plain torch (Barron et al. 2021, equations 7, 8 and 14)."""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def cast_frustums(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    radii: Tensor,  # [n_rays]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    ray_indices: Tensor,  # [n_samples] int32
    spans: Tensor,  # [n_rays, 2] int32: first, count
    *,
    shape: str = "cone",
) -> tuple[Tensor, Tensor]:
    """Means [n_samples, 3] and variances [n_samples, 3] of the piece of cone or cylinder that each sample covers.

    `spans` say once more which samples belong to which ray; only the adjoint of the op reads them.
    """
    ray = ray_indices.long()
    o, d, r = origins[ray], directions[ray], radii[ray]
    mu, h = (t_starts + t_ends) / 2, (t_ends - t_starts) / 2
    if shape == "cone":
        denominator = (3 * mu**2 + h**2).clamp_min(1e-30)
        t_mean = mu + 2 * mu * h**2 / denominator
        t_var = h**2 / 3 - 4 / 15 * (h**2 / denominator) ** 2 * (12 * mu**2 - h**2)
        r_var = r**2 * (mu**2 / 4 + 5 / 12 * h**2 - 4 / 15 * h**4 / denominator)
    else:
        t_mean, t_var, r_var = mu, h**2 / 3, r**2 / 4
    squared_length = (d**2).sum(-1, keepdim=True)
    outer_diagonal = (squared_length - d**2) / squared_length.clamp_min(1e-30)  # of I - d dᵀ / |d|²
    return o + t_mean[:, None] * d, t_var[:, None] * d**2 + r_var[:, None] * outer_diagonal


def integrated_encoding(
    means: Tensor,  # [n_points, n_coordinates]
    variances: Tensor,  # [n_points, n_coordinates]
    *,
    n_frequencies: int = 16,
) -> Tensor:  # [n_points, 2 * n_coordinates * n_frequencies]
    """Expected [sin(2^l x), cos(2^l x)] of x ~ N(means, variances): all sines, then all cosines, coordinates innermost."""
    octaves = 2.0 ** torch.arange(n_frequencies, dtype=means.dtype, device=means.device)[:, None]
    angles = (means[:, None, :] * octaves).flatten(1)
    damping = torch.exp(-(variances[:, None, :] * octaves**2).flatten(1) / 2)
    return torch.cat([torch.sin(angles) * damping, torch.cos(angles) * damping], dim=-1)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n points; frustums on n / 64 rays of uneven lengths, some empty, whose directions are not unit."""
    like = torch.empty(0, dtype=dtype)
    # Wide enough that finite differences resolve the highest octave that is left.
    points = {"means": uniform(generator, (n, 3), -2, 2, like), "variances": uniform(generator, (n, 3), 2e-4, 2e-2, like)}
    wide = {"means": uniform(generator, (n, 7), -2, 2, like), "variances": uniform(generator, (n, 7), 2e-4, 2e-2, like)}
    n_rays = (n + 63) // 64
    count = torch.randint(0, 129, (n_rays,), generator=generator)
    spans = torch.stack([count.cumsum(0) - count, count], -1).int()
    ray_indices = torch.repeat_interleave(torch.arange(n_rays), count).int()
    t_starts = uniform(generator, (len(ray_indices),), 0.1, 6, like)
    frustums = {
        "origins": uniform(generator, (n_rays, 3), -3, 3, like),
        "directions": uniform(generator, (n_rays, 3), -1, 1, like),
        "radii": uniform(generator, (n_rays,), 0.02, 0.3, like),
        "t_starts": t_starts,
        "t_ends": t_starts + uniform(generator, (len(ray_indices),), 0.05, 1, like),
        "ray_indices": ray_indices,
        "spans": spans,
    }
    of_frustums = ("origins", "directions", "radii", "t_starts", "t_ends")
    return [
        Example("integrated_encoding", points, ("means", "variances"), "16 frequencies"),
        Example("integrated_encoding", {**points, "n_frequencies": 5}, ("means", "variances"), "5 frequencies"),
        Example("integrated_encoding", {**wide, "n_frequencies": 3}, ("means", "variances"), "7 coordinates"),
        Example("cast_frustums", frustums, of_frustums, "cones"),
        Example("cast_frustums", {**frustums, "shape": "cylinder"}, of_frustums, "cylinders"),
    ]
