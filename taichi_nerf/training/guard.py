"""Watch over a training: a step that is not a number is skipped, a training that goes bad returns to when it was good.

The error of colors is smoothed over some tens of steps. Now and then, while it is about as low as it ever was, the whole state is
remembered; when it has stayed several times higher for a hundred steps, that state is taken back.
"""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

SMOOTHING = 0.97  # about 33 steps
SETTLED = 200  # steps before anything is remembered: the first errors are no measure
EVERY = 200  # steps between memories
NEARLY_BEST, BAD = 1.3, 4.0  # times the lowest smoothed error: 4 is 6 dB
UNKNOWN = 1e30  # an error that was never seen
PATIENCE = 100  # steps that are bad in a row


class Guard:
    def __init__(self) -> None:
        self.smoothed = self.lowest = UNKNOWN
        self.n_skipped = self.n_returns = self.n_bad = self.n_seen = 0
        self._good: tuple[Any, Any] | None = None

    def accepts(self, loss: float, model: nn.Module) -> bool:
        """Whether a step may be made: loss and gradients are finite."""
        fine = math.isfinite(loss) and bool(has_finite_gradients(model))
        self.n_skipped += not fine
        return fine

    def watch(self, error: float, model: nn.Module, optimiser: torch.optim.Optimizer) -> bool:
        """Learn a step's error; remember the state, or go back to it and tell so."""
        self.n_seen += 1
        if math.isfinite(error):
            self.smoothed = error if self.smoothed == UNKNOWN else SMOOTHING * self.smoothed + (1 - SMOOTHING) * error
        if self.n_seen < SETTLED:
            return False
        self.lowest = min(self.lowest, self.smoothed)
        self.n_bad = self.n_bad + 1 if self.smoothed > BAD * self.lowest or not math.isfinite(error) else 0
        if self.n_bad >= PATIENCE and self._good is not None:
            model.load_state_dict(self._good[0])
            optimiser.load_state_dict(deepcopy(self._good[1]))  # it would step on the very tensors it is given
            self.smoothed, self.n_bad = self.lowest, 0
            self.n_returns += 1
            return True
        if self.n_seen % EVERY == 0 and not self.n_bad:
            self._remember(model, optimiser)
        return False

    def state_dict(self) -> dict[str, Any]:
        """Its counts. The state it remembers is left out: it would double a checkpoint, which is one itself."""
        return {name: value for name, value in vars(self).items() if name != "_good"}

    def load_state_dict(self, state: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """`model` and `optimiser` as they were then: what there is to go back to, if they went well."""
        vars(self).update(state, _good=None)
        if self.n_seen >= SETTLED:
            self._remember(model, optimiser)

    def _remember(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        if self.smoothed <= NEARLY_BEST * self.lowest:
            self._good = deepcopy(model.state_dict()), deepcopy(optimiser.state_dict())


def has_finite_gradients(model: nn.Module) -> Tensor:
    """[] bool, where they are."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None and p.grad.numel()]
    return torch.stack([g.sum() for g in gradients]).isfinite().all() if gradients else torch.ones((), dtype=torch.bool)
