"""What every op owes its reference, as functions for the tests of all families."""

import importlib
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.hotswap import gradients_of, random_cotangents, relative_error
from taichi_nerf.reference import FAMILIES
from taichi_nerf.reference.example import Example
from taichi_nerf.runtime import current

# Largest relative error allowed in float32, by family; measured values stand in each family's own test file.
FORWARD_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 2e-4


def examples_of(family: str, n: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Example]:
    examples = reference_of(family).examples(n, torch.Generator().manual_seed(seed), dtype)
    return [example._replace(arguments=on_device(example.arguments)) for example in examples]


def on_device(arguments: dict[str, Any]) -> dict[str, Any]:
    device = current().torch_device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in arguments.items()}


def op_of(family: str) -> Any:
    return importlib.import_module(f"taichi_nerf.ops.{family}")


def reference_of(family: str) -> Any:
    return importlib.import_module(f"taichi_nerf.reference.{family}")


def pair(family: str, example: Example) -> tuple[Any, Any]:
    """The op and its reference."""
    return getattr(op_of(family), example.function), getattr(reference_of(family), example.function)


def flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [r for r in result if isinstance(r, Tensor)]


def assert_same_outputs(ours: Any, theirs: Any, tolerance: float) -> None:
    """Integers equal, floats within a tolerance relative to the largest entry."""
    pairs = list(zip(flat(ours), flat(theirs), strict=True))
    for position, (mine, wanted) in enumerate(pairs):
        assert mine.shape == wanted.shape, f"output {position}: shape {list(mine.shape)}, reference {list(wanted.shape)}"
        assert mine.dtype == wanted.dtype, f"output {position}: {mine.dtype}, reference {wanted.dtype}"
        if mine.is_floating_point():
            error = relative_error(mine.detach(), wanted.detach())
            assert error <= tolerance, f"output {position}: relative error {error:.1e} > {tolerance:.1e}"
        else:
            assert torch.equal(mine, wanted), f"output {position}: integers differ"


def assert_same_gradients(family: str, example: Example, tolerance: float) -> None:
    op, reference = pair(family, example)
    cotangents = random_cotangents(op, example.arguments, example.differentiable)
    ours = gradients_of(op, example.arguments, example.differentiable, cotangents)
    theirs = gradients_of(reference, example.arguments, example.differentiable, cotangents)
    for name in example.differentiable:
        error = relative_error(ours[name], theirs[name])
        assert error <= tolerance, f"gradient of {name}: relative error {error:.1e} > {tolerance:.1e}"


def strided(tensor: Tensor) -> Tensor:
    """The same values in memory with gaps."""
    wide = tensor.new_empty((*tensor.shape, 2))
    wide[..., 0] = tensor
    return wide[..., 0]


__all__ = [name for name in dir() if not name.startswith("_")] + ["FAMILIES"]
