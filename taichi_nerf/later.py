"""Numbers of a device that the host reads when it needs them: by then they are there, and nothing given since is waited for."""

from typing import Any

import torch
from torch import Tensor


class Later:
    """A tensor's numbers. On a CPU they are there at once."""

    def __init__(self, numbers: Tensor):
        self._host, self._event = numbers.detach(), None
        if numbers.device.type == "cuda":
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> Any:
        """As `Tensor.tolist` gives them."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return self._host.tolist()

    def __int__(self) -> int:
        return int(self.read())
