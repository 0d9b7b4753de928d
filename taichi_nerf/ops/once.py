"""Backward passes that cannot be differentiated again: a kernel's adjoint has no adjoint."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """For the backward of an autograd.Function: to go back through what it gives is an error.

    torch's decorator of this name is silent where the gradient that comes in has no history, as that of a sum: a loss of the
    slopes of density (`torch.autograd.grad(density.sum(), positions, create_graph=True)`) would then teach nothing.
    """

    @wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        with torch.no_grad():
            found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():  # it is, with create_graph=True
            return found
        told = b"gradients of kernels cannot be differentiated again; take finite differences, or the op's plain-torch reference"
        parts = found if isinstance(found, tuple) else (found,)
        barred: Any = torch._C._functions.DelayedError(told, len(parts))(*map(_with_history, parts))  # type: ignore[arg-type]
        return barred if isinstance(found, tuple) else barred[0] if isinstance(barred, tuple) else barred

    return wrapped


def _with_history(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.detach().requires_grad_()
