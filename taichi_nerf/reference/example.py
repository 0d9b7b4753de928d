"""What an example of a call is."""

from typing import Any, NamedTuple

from torch import Generator, Tensor, rand


class Example(NamedTuple):
    """A call of `function` with `arguments`; `differentiable` names the tensors among them that have a gradient."""

    function: str
    arguments: dict[str, Any]
    differentiable: tuple[str, ...] = ()
    label: str = ""  # tells several examples of one function apart


def uniform(generator: Generator, shape: tuple[int, ...], low: float, high: float, like: Tensor) -> Tensor:
    """Uniform numbers in [low, high) of `like`'s precision: drawn in 64 bits, so both precisions see the same scene."""
    from torch import float64

    return (low + (high - low) * rand(shape, generator=generator, dtype=float64)).to(like.dtype)
