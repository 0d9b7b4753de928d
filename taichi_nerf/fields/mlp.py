"""Small multilayer perceptrons, fast on processors: ReLU between layers, none after the last; biases where they are asked for.

On a CPU the time of a 64-wide network is memory, not arithmetic. So rows go through all layers a chunk at a time, whose
activations stay in cache; and where the processor multiplies bfloat16, that is what it multiplies (weights and sums stay
float32). Two cores of a Zen 5: 60 million rows/s forward through 32-64-16, 20 million there and back; in float32 26 and 7.5.

Each new shape costs oneDNN, which multiplies bfloat16, tens of microseconds: there chunks have few shapes, the last is padded to
a power of two. Others multiply float32, at no such price: there chunks are all of the same size, and nothing is padded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from taichi_nerf.ops.fused_mlp import fused_mlp
from taichi_nerf.ops.once import once_differentiable

Precision = Literal["float32", "bfloat16"]
Implementation = Literal["auto", "torch", "taichi"]
PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch's own: 2.4 has none of them yet
CHUNK, LEAST = 8192, 256  # rows of a chunk at most; of a padded one at least


@dataclass(frozen=True)
class MlpSettings:
    # torch's matrix products, or the fused kernel, which computes in float32; auto: the faster (`mlp_choice`).
    implementation: Implementation = "auto"


def best_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it, float32 elsewhere."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    asked = (getattr(torch.cpu, name, None) for name in PROBES)
    return "bfloat16" if any(has is not None and has() for has in asked) else "float32"


class Mlp(nn.Module):
    """Layers of the given widths, the input's first: `Mlp((32, 64, 16))`."""

    def __init__(
        self, widths: tuple[int, ...], generator: torch.Generator, precision: Precision = "float32", biases: bool = False,
        implementation: Implementation = "torch",
    ):  # fmt: skip
        super().__init__()
        self.widths, self.is_fused = widths, implementation == "taichi"
        if self.is_fused and biases:
            raise ValueError("the fused kernel takes no biases")
        self.dtype = getattr(torch, precision)
        bounds = [(6 / (n_in + n_out)) ** 0.5 for n_in, n_out in pairwise(widths)]  # Glorot
        self.weights = nn.ParameterList(
            nn.Parameter((2 * torch.rand(n_out, n_in, generator=generator) - 1) * bound)
            for (n_in, n_out), bound in zip(pairwise(widths), bounds, strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in widths[1:] if biases)

    def forward(self, rows: Tensor) -> Tensor:  # [n, widths[0]] → [n, widths[-1]], of the network's precision
        if self.is_fused:
            flat = torch.cat([weight.reshape(-1) for weight in self.weights])
            return fused_mlp(rows.float(), flat, widths=self.widths)
        weights = [weight.to(self.dtype) for weight in (*self.weights, *self.biases)]
        return _Layers.apply(rows.to(self.dtype), len(self.weights), *weights)


def _in_their_own_types(pass_: Callable[..., Any]) -> Callable[..., Any]:
    """Whatever a caller's autocast would have products be, which go into memory of their own."""

    @wraps(pass_)
    def call(ctx: Any, rows: Tensor, *others: Any) -> Any:
        with torch.autocast(rows.device.type, enabled=False):
            return pass_(ctx, rows, *others)

    return call


class _Layers(torch.autograd.Function):
    """weights: the matrices of all layers, then their biases or none."""

    @staticmethod
    @_in_their_own_types
    def forward(ctx: Any, rows, n_layers, *weights):  # type: ignore[no-untyped-def]
        n, chunk = len(rows), _chunk(rows)
        matrices, biases = [weight.t() for weight in weights[:n_layers]], weights[n_layers:] or (None,) * n_layers
        out = rows.new_empty(n, len(weights[n_layers - 1]))
        kept = any(ctx.needs_input_grad)
        activations = []
        for start in range(0, n, chunk):
            layer, inputs = _padded(rows[start : start + chunk]), []
            for matrix, bias in zip(matrices[:-1], biases[:-1], strict=True):
                inputs.append(layer)
                layer = _linear(layer, matrix, bias).relu_()
            inputs.append(layer)
            _into(out[start : start + chunk], layer, matrices[-1], biases[-1])
            if kept:
                activations.extend(inputs)
        ctx.save_for_backward(*weights, *activations)
        ctx.n_layers, ctx.n_weights, ctx.chunk = n_layers, len(weights), chunk
        return out

    @staticmethod
    @once_differentiable
    @_in_their_own_types
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        n_layers, chunk, n = ctx.n_layers, ctx.chunk, len(grad)
        weights, activations = ctx.saved_tensors[: ctx.n_weights], ctx.saved_tensors[ctx.n_weights :]
        of_weights = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        of_rows = grad.new_empty(n, weights[0].shape[1]) if ctx.needs_input_grad[0] else None
        for place, start in enumerate(range(0, n, chunk)):
            inputs = activations[place * n_layers : (place + 1) * n_layers]
            layer = _padded(grad[start : start + chunk])
            for index in reversed(range(n_layers)):
                _add_product(of_weights[index], layer, inputs[index])
                if len(weights) > n_layers:
                    of_weights[n_layers + index] += layer.sum(0)
                if index:
                    layer = torch.mm(layer, weights[index])
                    torch.ops.aten.threshold_backward.grad_input(layer, inputs[index], 0, grad_input=layer)
            if of_rows is not None:
                _into(of_rows[start : start + chunk], layer, weights[0])
        return of_rows, None, *(g.to(w.dtype) for g, w in zip(of_weights, weights, strict=True))


def _chunk(rows: Tensor) -> int:
    """How many rows go through all layers at a time."""
    n = max(len(rows), 1)
    if rows.device.type != "cpu":
        return n
    return CHUNK if rows.dtype == torch.bfloat16 else -(-n // -(-n // CHUNK))


def _linear(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(rows, matrix) if bias is None else torch.addmm(bias, rows, matrix)


def _into(out: Tensor, rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> None:
    """The product, without what rows were padded with."""
    if len(rows) > len(out):
        out.copy_(_linear(rows, matrix, bias)[: len(out)])
    elif bias is None:
        torch.mm(rows, matrix, out=out)
    else:
        torch.addmm(bias, rows, matrix, out=out)


def _add_product(of_matrix: Tensor, grad: Tensor, inputs: Tensor) -> None:
    """Sums of chunks are float32, whatever is multiplied."""
    if grad.dtype == of_matrix.dtype:
        of_matrix.addmm_(grad.t(), inputs)
    else:
        of_matrix += torch.mm(grad.t(), inputs)


def _padded(rows: Tensor) -> Tensor:
    """bfloat16 on a CPU: as many rows as a power of two, of which there are few."""
    if rows.device.type != "cpu" or rows.dtype != torch.bfloat16:
        return rows
    size = max(1 << (len(rows) - 1).bit_length(), LEAST)
    return rows if len(rows) == size else nn.functional.pad(rows, (0, 0, 0, size - len(rows)))
