"""NeRF's network (Mildenhall et al. 2020, figure 7), which mip-NeRF has, too: what a place is, then how it looks from somewhere.

x → n_layers of ReLU, x once more before the layer behind `skip_after` → density; n_feature numbers
those numbers and the direction → one layer of ReLU → color

Inputs are encoded already; outputs are raw, before any activation. As in `mlp`, rows go through all layers a chunk at a time,
in bfloat16 where the processor multiplies it, with sums of gradients in float32. Against the same layers in plain torch that
saves the memory that fresh large arrays cost; `benchmarks/nerf.py` measures it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.fields.mlp import Precision
from taichi_nerf.ops.once import once_differentiable

CHUNK = 8192  # rows
OF_COLOR = frozenset({"feature", "view", "color"})  # the layers of a `ViewMlp` that density does not depend on


class ViewMlp(nn.Module):
    """`ViewMlp(63, 27)` is NeRF's, with 595,844 parameters."""

    def __init__(
        self,
        n_position: int,  # numbers that encode a place
        n_view: int,  # numbers that encode a direction
        generator: torch.Generator,
        *,
        n_layers: int = 8,
        n_hidden: int = 256,
        skip_after: int = 4,  # the layer, counted from 0, whose output the place is put before again
        n_view_hidden: int = 128,
        n_feature: int | None = None,  # numbers of a place that its color is made from; None: n_hidden
        precision: Precision = "float32",
    ):
        super().__init__()
        self.skip_after, self.dtype = skip_after, getattr(torch, precision)
        inputs = [n_position] + [n_hidden + n_position * (layer == skip_after) for layer in range(n_layers - 1)]
        self.layers = nn.ModuleList(_linear(n_in, n_hidden, generator) for n_in in inputs)
        self.density = _linear(n_hidden, 1, generator)
        n_feature = n_feature or n_hidden
        self.feature = _linear(n_hidden, n_feature, generator)
        self.view = _linear(n_feature + n_view, n_view_hidden, generator)
        self.color = _linear(n_view_hidden, 3, generator)

    def forward(self, positions: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:  # [n, n_position], [n, n_view]
        """Raw density [n] and raw color [n, 3], float32."""
        weights: list[Tensor] = []
        for layer in self.layers:
            weights += [layer.weight, layer.bias]  # type: ignore[list-item]
        weights += [torch.cat([self.feature.weight, self.density.weight]), torch.cat([self.feature.bias, self.density.bias])]
        weights += [self.view.weight, self.view.bias, self.color.weight, self.color.bias]
        dtype = self.dtype
        out = _Network.apply(positions.to(dtype), views.to(dtype), self.skip_after, *(weight.to(dtype) for weight in weights))
        out = out.float()
        return out[:, 0], out[:, 1:]

    @torch.no_grad()
    def densities(self, positions: Tensor) -> Tensor:  # [n, n_position] → [n]
        """Raw density alone."""
        out = [self._density_of(part) for part in positions.to(self.dtype).split(CHUNK)]
        return torch.cat(out).float() if out else positions.new_zeros(0)

    def _density_of(self, rows: Tensor) -> Tensor:
        hidden = rows
        for index, layer in enumerate(self.layers):
            hidden = _relu_of(hidden, layer.weight.to(self.dtype), layer.bias.to(self.dtype))  # type: ignore[arg-type]
            if index == self.skip_after and index + 1 < len(self.layers):
                hidden = torch.cat([rows, hidden], -1)
        return torch.addmm(self.density.bias.to(self.dtype), hidden, self.density.weight.to(self.dtype).t())[:, 0]


def _linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """Glorot's uniform weights, no biases at first."""
    layer, bound = nn.Linear(n_in, n_out), (6 / (n_in + n_out)) ** 0.5
    with torch.no_grad():
        layer.weight.copy_((2 * torch.rand(n_out, n_in, generator=generator) - 1) * bound)
        layer.bias.zero_()
    return layer


def _relu_of(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, rows, weight.t()).relu_()


class _Network(torch.autograd.Function):
    """weights: weight and bias of each layer, of feature and density as one, of view, of color. Out: [n, 4], density first."""

    @staticmethod
    def forward(ctx: Any, positions, views, skip_after, *weights):  # type: ignore[no-untyped-def]
        n, chunk = len(positions), CHUNK if positions.device.type == "cpu" else max(len(positions), 1)
        out = positions.new_empty(n, 4)
        kept = any(ctx.needs_input_grad)
        activations: list[Tensor] = []
        *layers, heads, view, color = list(zip(weights[::2], weights[1::2], strict=True))
        for start in range(0, n, chunk):
            rows, seen_from = positions[start : start + chunk], views[start : start + chunk]
            inputs = [rows]
            for index, layer in enumerate(layers):
                hidden = _relu_of(inputs[-1], *layer)
                skips = index == skip_after and index + 1 < len(layers)
                inputs.append(torch.cat([rows, hidden], -1) if skips else hidden)
            both = torch.addmm(heads[1], inputs[-1], heads[0].t())
            inputs.append(torch.cat([both[:, :-1], seen_from], -1))
            inputs.append(_relu_of(inputs[-1], *view))
            out[start : start + chunk, 0] = both[:, -1]
            out[start : start + chunk, 1:] = torch.addmm(color[1], inputs[-1], color[0].t())
            if kept:
                activations.extend(inputs)
        ctx.save_for_backward(*weights, *activations)
        ctx.sizes = len(layers), chunk, positions.shape[1], skip_after
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        n_layers, chunk, n_position, skip_after = ctx.sizes
        n_weights, n_inputs = 2 * (n_layers + 3), n_layers + 3
        weights, activations = ctx.saved_tensors[:n_weights], ctx.saved_tensors[n_weights:]
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        of_positions = grad.new_empty(len(grad), n_position) if ctx.needs_input_grad[0] else None
        n_feature = len(weights[-6]) - 1
        of_views = grad.new_empty(len(grad), weights[-4].shape[1] - n_feature) if ctx.needs_input_grad[1] else None

        def back(place: int, of_out: Tensor, rows: Tensor, needed: bool = True) -> Tensor:
            """Through the matrix at this place, whose input was `rows`."""
            sums[2 * place] += torch.mm(of_out.t(), rows)
            sums[2 * place + 1] += of_out.sum(0)  # summed in float32, like products: rounded once for each chunk
            return torch.mm(of_out, weights[2 * place]) if needed else of_out

        for part, start in enumerate(range(0, len(grad), chunk)):
            inputs = activations[part * n_inputs : (part + 1) * n_inputs]
            of_out = grad[start : start + chunk]
            of_view = back(n_layers + 2, of_out[:, 1:].contiguous(), inputs[-1])
            of_seen = back(n_layers + 1, _where_positive(of_view, inputs[-1]), inputs[-2])
            if of_views is not None:
                of_views[start : start + chunk] = of_seen[:, n_feature:]
            of_hidden = back(n_layers, torch.cat([of_seen[:, :n_feature], of_out[:, :1]], -1), inputs[-3])
            of_rows = None
            for index in reversed(range(n_layers)):
                hidden = inputs[index + 1]
                if index == skip_after and index + 1 < n_layers:
                    of_rows, of_hidden, hidden = of_hidden[:, :n_position], of_hidden[:, n_position:], hidden[:, n_position:]
                of_hidden = _where_positive(of_hidden, hidden)
                of_hidden = back(index, of_hidden, inputs[index], needed=index > 0 or of_positions is not None)
            if of_positions is not None:
                of_positions[start : start + chunk] = of_hidden if of_rows is None else of_hidden + of_rows
        return of_positions, of_views, None, *(g.to(w.dtype) for g, w in zip(sums, weights, strict=True))


def _where_positive(grad: Tensor, activation: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad, activation, 0)
