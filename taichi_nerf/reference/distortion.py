"""The distortion loss of mip-NeRF 360, in plain torch and as the paper defines it: over all pairs of a ray's samples.

loss = Σ_ij w_i w_j |m_i - m_j| + 1/3 Σ_i w_i² δ_i  (Barron et al. 2022, equation 15), m the midpoints and δ the widths.
"""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def distortion_loss(
    weights: Tensor,  # [n_samples]
    t_starts: Tensor,  # [n_samples]
    t_ends: Tensor,  # [n_samples]
    spans: Tensor,  # [n_rays, 2] int32: first, count
) -> Tensor:  # [n_rays]
    """How far apart the weights of each ray lie. The op asks for ascending midpoints, this definition does not."""
    n_rays = len(spans)
    first, count = spans.long().unbind(-1)
    rows = torch.repeat_interleave(torch.arange(n_rays, device=spans.device), count)  # ray of each covered sample
    columns = torch.arange(len(rows), device=spans.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
    covered = first[rows] + columns

    # Rays side by side, padded with samples of weight zero: [n_rays, longest].
    empty = weights.new_zeros(n_rays, int(count.max()) if n_rays else 0)
    weight = empty.index_put((rows, columns), weights[covered])
    midpoint = empty.index_put((rows, columns), ((t_starts + t_ends) / 2)[covered])
    width = empty.index_put((rows, columns), (t_ends - t_starts)[covered])

    distance = (midpoint[:, :, None] - midpoint[:, None, :]).abs()
    between = torch.einsum("ri, rij, rj -> r", weight, distance, weight)
    within = (weight**2 * width).sum(-1) / 3
    return between + within


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """About n samples, sorted and with gaps, on n / 16 rays of uneven lengths, some of them empty."""
    like = torch.empty(0, dtype=dtype)
    n_rays = (n + 15) // 16
    count = torch.randint(0, 33, (n_rays,), generator=generator)
    spans = torch.stack([count.cumsum(0) - count, count], -1).int()
    n_samples = int(count.sum())
    steps = uniform(generator, (n_samples,), 0.05, 0.2, like.double())
    along = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    t_starts = 0.5 + along[:-1] - torch.repeat_interleave(along[spans[:, 0].long()], count)  # from 0.5 on, on every ray
    t_ends = t_starts + steps * uniform(generator, (n_samples,), 0.5, 1, like.double())
    arguments = {
        "weights": uniform(generator, (n_samples,), 0, 0.2, like),
        "t_starts": t_starts.to(dtype),
        "t_ends": t_ends.to(dtype),
        "spans": spans,
    }
    gradients = ("weights", "t_starts", "t_ends")
    sparse = {**arguments, "spans": spans[::2].flip(0).contiguous()}
    return [
        Example("distortion_loss", arguments, gradients, "packed rays"),
        Example("distortion_loss", sparse, gradients, "every other ray, in reverse"),
    ]
