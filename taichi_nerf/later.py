"""Numbers that a GPU computes and the host reads later.

They are copied to the host as soon as they are there, so who reads them does not wait for work that the GPU was given since.
"""

from typing import Any

import torch
from torch import Tensor


class Later:
    """A tensor's numbers. On a CPU they are there at once."""

    def __init__(self, numbers: Tensor):
        self._numbers: Any = None
        self._host: Tensor | None = numbers.detach()
        self._event: torch.cuda.Event | None = None
        if numbers.device.type == "cuda":
            pinned = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host = pinned.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.current_stream(numbers.device).record_event()

    def read(self) -> Any:
        """As `Tensor.tolist` gives them. Memory that a GPU writes to is given back: there is little of it."""
        if self._host is not None:
            if self._event is not None:
                self._event.synchronize()
            self._numbers, self._host, self._event = self._host.tolist(), None, None
        return self._numbers

    def __int__(self) -> int:
        return int(self.read())
