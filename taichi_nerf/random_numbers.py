"""Random numbers that the host draws and sends to any device: every backend gets the same, and the host waits for none."""

import torch
from torch import Tensor


def uniform(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """From 0 to 1."""
    return sent(torch.rand(shape, generator=generator), device)


def normal(*shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return sent(torch.randn(shape, generator=generator), device)


def below(end: int, *shape: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Integers from 0, int64."""
    return sent(torch.randint(end, shape, generator=generator), device)


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """The host's numbers there. CUDA fetches what is in pinned memory; for more than 64 KiB of other memory the host waits."""
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)
