"""A file of labels: a seed and a number a line."""

from pathlib import Path

import torch
from torch import Tensor


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
