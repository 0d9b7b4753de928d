"""What training adds to the comparison of pixels: terms of the loss, each of which may render more through the model."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.training.model import Model, Shown


class Moment(NamedTuple):
    """A step of the training, as a term sees it."""

    model: Model
    shown: Shown  # the pixels of the step
    seen: RenderedBatch | None  # what the model made of them
    n_steps: int  # before this one
    progress: float  # 0 to 1
    generator: torch.Generator


class Term(ABC):
    @abstractmethod
    def __call__(self, moment: Moment) -> Tensor:
        """A scalar to add to the loss."""


def scalar_of(term: Term, moment: Moment) -> Tensor:  # → []
    """What a term adds to the loss. What is no scalar would fail in autograd's words, which name no term."""
    added = term(moment)
    if isinstance(added, Tensor) and added.numel() == 1:
        return added.reshape(())
    got = f"a tensor of shape {list(added.shape)}" if isinstance(added, Tensor) else type(added).__name__
    raise TypeError(f"{name_of(term)}: a term of the loss has to be a scalar tensor, got {got}")


def name_of(term: Term) -> str:
    """Of its class, or of a function that stands for one."""
    return str(getattr(term, "__name__", type(term).__name__))
