"""Labels of codes: from a file, a seed and a number a line; or as a network that knows yaws tells them of generated images."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from taichi_nerf.generator.stylegan2.generator import Generator, latents_of_seeds
from taichi_nerf.report import Report, silent

FIRST_SEED, N_SEEDS, AT_ONCE = 10_000, 3000, 100


def read_labels(file: Path) -> tuple[list[int], Tensor]:
    """Seeds, and their labels."""
    seeds, values = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.replace(",", " ").split()
        try:
            seed, value = parts
            seeds.append(int(seed))
            values.append(float(value))
        except ValueError:
            raise ValueError(f"{file}: line {number}: expected a seed and a number, got {line.strip()[:40]!r}") from None
    if len(seeds) < 10:
        raise ValueError(f"{file}: holds {len(seeds)} labels; expected ten or more")
    return seeds, torch.tensor(values)


@torch.no_grad()
def told_labels(generator: Generator, tell: Callable[[Tensor], Tensor], report: Report = silent) -> tuple[Tensor, Tensor]:
    """Codes w [n, w_dim] of N_SEEDS seeds, untruncated, and what `tell` says of their images [n]."""
    z = latents_of_seeds(list(range(FIRST_SEED, FIRST_SEED + N_SEEDS)), generator.settings.z_dim)
    codes = generator.mapping.w(z.to(generator.mapping.w_avg.device))
    told: list[Tensor] = []
    for part in codes.split(AT_ONCE):
        told.append(tell(generator.synthesis(part[:, None].expand(-1, generator.settings.n_layers, -1)).clamp(-1, 1)).cpu())
        report(len(told) * AT_ONCE / N_SEEDS, f"{len(told) * AT_ONCE} images")
    return codes.cpu(), torch.cat(told)
