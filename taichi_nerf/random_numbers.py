"""Random numbers of a generator on the host, for tensors anywhere: every backend draws the same, and none is waited for."""

import torch
from torch import Tensor


def uniform(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """From 0 to 1."""
    return torch.rand(shape, generator=generator).to(device, non_blocking=True)


def normal(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator).to(device, non_blocking=True)


def below(end: int, *shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Integers from 0, int64."""
    return torch.randint(end, shape, generator=generator).to(device, non_blocking=True)
