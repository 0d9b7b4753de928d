"""Data-parallel training in several processes: a thin layer over torch.distributed.

    torchrun --nproc-per-node 2 -m taichi_nerf train …

    with world("cuda") as ranks:                    # before anything uses the GPU
        ranks.broadcast(model)                      # all begin alike
        …; loss.backward()
        ranks.average_gradients(model.parameters()) # all step alike
        if ranks.any_rank(stop.requested): …        # all stop alike

Without torchrun the world has one rank, no process group is made, and each of these does nothing.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from taichi_nerf.training.interrupt import SIGNALS


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    def own_seed(self, seed: int) -> int:
        """One for each rank, of the seed that all have."""
        return seed + 7919 * self.rank

    def share(self, n: int) -> range:
        """Which of n items are this rank's: each item is one rank's, and no rank has two more than another."""
        return range(self.rank, n, self.size)

    def barrier(self) -> None:
        """Wait for all."""
        self.sum_over_ranks(torch.zeros(1, device=self.device))

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, as a new tensor, the same on all."""
        if self.size == 1:  # and no message is worth waiting for a GPU
            return tensor.detach().clone()
        total = tensor.detach().to(self.device, copy=True).contiguous()
        dist.all_reduce(total)
        return total.to(tensor.device)

    def mean(self, *values: float) -> list[float]:
        """Of numbers over the ranks, the same on all: who judges a step by them judges as all others do."""
        return self.mean_of(torch.tensor(values, dtype=torch.float64)).tolist()

    def mean_of(self, numbers: Tensor) -> Tensor:
        """As `mean`, of numbers that stay where they are."""
        return self.sum_over_ranks(numbers.double()) / self.size

    def any_rank(self, wish: bool) -> bool:
        """Whether any rank wishes it: the same answer on all, so that all leave a loop at the same step."""
        return bool(self.sum_over_ranks(torch.tensor([float(wish)], device=self.device)).item())

    def broadcast(self, module: nn.Module) -> None:
        """Give the main process's parameters and buffers to all, bit for bit."""
        if self.size == 1:
            return
        for tensor in (*module.parameters(), *module.buffers()):
            values = tensor.detach().contiguous()
            if values.numel():  # as bytes: the backends lack some types
                dist.broadcast(values.as_strided((values.numel(),), (1,)).view(torch.uint8), src=0)
                tensor.detach().copy_(values)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the ranks, in one message for each type of number.

        A rank without a gradient for a parameter counts as zero; where no rank has one it stays None, so that an optimiser
        leaves that parameter alone, as it would in one process.
        """
        if self.size == 1:
            return
        of_type: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                of_type.setdefault(parameter.dtype, []).append(parameter)
        for members in of_type.values():
            self._average(members)

    def _average(self, members: list[Tensor]) -> None:
        """One message: all gradients behind each other, then for each how many ranks have one."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
        having = members[0].new_tensor([float(p.grad is not None) for p in members])
        message = torch.cat([*(part.reshape(-1) for part in parts), having])
        dist.all_reduce(message)
        *sums, counts = message.split([*(p.numel() for p in members), len(members)])
        for parameter, total, count in zip(members, sums, counts.tolist(), strict=True):
            if count > 0:
                mean = total.view(parameter.shape) / self.size
                parameter.grad = mean if parameter.grad is None else parameter.grad.copy_(mean)


@contextlib.contextmanager
def world(device: str | torch.device = "cpu", environment: Mapping[str, str] | None = None) -> Iterator[World]:
    """The world that torchrun's variables in the environment tell of: nccl between GPUs, gloo between processes on a CPU."""
    device = torch.device(device)
    given = os.environ if environment is None else environment
    rank, size, local_rank = (_number(given, name, default) for name, default in VARIABLES)
    if size == 1:
        yield World(device=device)
        return
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} does not fit WORLD_SIZE={size}; torchrun sets both")
    if device.type == "cuda":
        device = own_gpu(local_rank)
    with _ended_by_signals():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Signals end the process at once. Torch waits for the others in C++, for half an hour if one of them never comes, and
    Python's handlers would run only after that."""
    former: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        former = {number: signal.getsignal(number) for number in SIGNALS if callable(signal.getsignal(number))}
    for number in former:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, act in former.items():
            signal.signal(number, act)


VARIABLES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environment.get(name, default))
    except ValueError:
        raise ValueError(f"{name}={environment[name]}: expected a whole number; torchrun sets it") from None


def own_gpu(local_rank: int) -> torch.device:
    """Show this process one GPU only. Taichi computes on the first that it sees, which so is the one that torch has."""
    if torch.cuda.is_initialized():
        raise RuntimeError("world() has to be entered before anything uses the GPU")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(torch.cuda.device_count())] if shown is None else [name for name in shown.split(",") if name]
    if local_rank >= len(names):
        raise ValueError(f"rank {local_rank} has no GPU: there are {len(names)}; give --nproc-per-node no more than that")
    os.environ["CUDA_VISIBLE_DEVICES"] = names[local_rank]
    return torch.device("cuda", 0)
