"""A small multilayer perceptron in plain torch: no biases, ReLU between the layers."""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform

LARGEST_EXPONENT = 12.0


def fused_mlp(
    rows: Tensor,  # [n, widths[0]]
    weights: Tensor,  # [n_weights] the layers' matrices [n_out, n_in], one after the other
    *,
    widths: tuple[int, ...],
    output: Literal["none", "sigmoid", "exp"] = "none",
    storage: Literal["float32", "float16"] = "float32",
) -> Tensor:
    """The network's outputs [n, widths[-1]]. `widths` are those of the input, of one to three hidden layers, of the output.

    "exp" is cut off at exp(12), where its gradients go on as at the border (truncated exponential). With storage "float16",
    rows and outputs have 16 bits; weights and arithmetic keep 32.
    """
    layer, first = rows.to(weights.dtype), 0
    for index, (n_in, n_out) in enumerate(pairwise(widths)):
        matrix = weights[first : first + n_in * n_out].view(n_out, n_in)
        layer = layer @ matrix.T
        layer = layer.relu() if index < len(widths) - 2 else layer
        first += n_in * n_out
    if output == "sigmoid":
        layer = layer.sigmoid()
    if output == "exp":
        layer = (layer + (layer.clamp(max=LARGEST_EXPONENT) - layer).detach()).exp()
    return layer.half() if storage == "float16" else layer


def n_weights(widths: tuple[int, ...]) -> int:
    return sum(n_in * n_out for n_in, n_out in pairwise(widths))


def initialise_weights(widths: tuple[int, ...], generator: Generator | None = None) -> Tensor:
    """New weights [n_weights], uniform as Glorot and Bengio 2010: in ±sqrt(6 / (n_in + n_out))."""
    bounds = [(n_in * n_out, (6 / (n_in + n_out)) ** 0.5) for n_in, n_out in pairwise(widths)]
    return torch.cat([(2 * torch.rand(n, generator=generator) - 1) * bound for n, bound in bounds])


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """Both networks of instant-ngp, and others with one to three hidden layers and sizes that fill no block.

    Near zero ReLU's derivative depends on how sums are rounded: of twice as many rows those are taken that stay clear of it.
    """
    like = torch.empty(0, dtype=dtype)
    small = [((5, 17, 3), "none"), ((4, 16, 16, 3), "sigmoid"), ((7, 16, 16, 16, 1), "exp")]  # for finite differences
    large = [((32, 64, 16), "none"), ((32, 64, 64, 3), "sigmoid"), ((64, 32, 64), "exp")]
    cases: list[tuple[tuple[int, ...], str]] = small if n <= 64 else large + small
    made = []
    for widths, output in cases if n <= 4096 else large[:1]:
        parts = [
            uniform(generator, (a * b,), -1, 1, like) * (6 / (a + b)) ** 0.5  # of each layer
            for a, b in pairwise(widths)
        ]
        weights, rows = torch.cat(parts), uniform(generator, (2 * n, widths[0]), -1, 1, like)
        arguments: dict[str, Any] = {
            "rows": rows[_nearest_to_zero(rows, weights, widths).topk(n).indices],
            "weights": weights,
            "widths": widths,
            "output": output,
        }
        made.append(Example("fused_mlp", arguments, ("rows", "weights"), "-".join(map(str, widths)) + f", {output}"))
    return made


def _nearest_to_zero(rows: Tensor, weights: Tensor, widths: tuple[int, ...]) -> Tensor:
    """The smallest magnitude that any hidden unit has before ReLU, for each row."""
    smallest = []
    for depth in range(2, len(widths)):
        before = fused_mlp(rows, weights, widths=widths[:depth])
        smallest.append(before.abs().amin(-1))
    return torch.stack(smallest).amin(0)
