"""A small multilayer perceptron in one kernel. See `kernels/fused_mlp.py` for the formulas and how it is computed.

`fused_mlp` is the network in torch's autograd. `fused_mlp_` and `fused_mlp_backward_` are its two passes in place, for data
that stays on the device: every array may be a Tensor or a DeviceArray.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from taichi_nerf.kernels import activations
from taichi_nerf.kernels import fused_mlp as by_lanes
from taichi_nerf.kernels import fused_mlp_by_rows as by_rows
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.reference.fused_mlp import initialise_weights, n_weights
from taichi_nerf.runtime import DeviceArray, current

__all__ = ["Workspace", "fused_mlp", "fused_mlp_", "fused_mlp_backward_", "initialise_weights", "n_weights"]

Output = Literal["none", "sigmoid", "exp"]
Storage = Literal["float32", "float16"]
# Threads of a GPU at a time, 8 rows each, and the shares in which they add up the weights' gradients.
MOST_THREADS, MOST_SHARES = {"cuda": 2**14}, 256
MOST_THREADS_ELSEWHERE = 2**12


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
    rows and outputs have 16 bits; weights and arithmetic keep 32. Gradients flow to rows and weights; the latter may be a
    DeviceArray, whose gradient is then added to `weights.grad`. `initialise_weights(widths)` makes some.
    """
    n = _check("fused_mlp", widths, output, storage, {"rows": (rows, widths[:1])}, weights, lasting=False)
    on_device = weights if isinstance(weights, DeviceArray) else None
    return _FusedMlp.apply(rows, weights if on_device is None else on_device.anchor, on_device, tuple(widths), output, n)


class Workspace:
    """What the passes of one network keep between layers, to be made once and used call after call."""

    def __init__(self, widths: tuple[int, ...], n: int, dtype: torch.dtype = torch.float32):
        backend = current()
        self.n_layers, n_matrices = len(widths) - 1, n_weights(widths)
        self.is_by_lanes = backend.arch == "cpu"
        if self.is_by_lanes:
            self.n_slices, self.n_work = backend.n_threads, (4 * self.n_layers + 2) * by_lanes.SQUARE
            self.work = _room(self.n_slices * self.n_work, dtype=dtype)
            return
        wanted = min(max(-(-n // by_rows.BLOCK), 1), MOST_THREADS.get(backend.arch, MOST_THREADS_ELSEWHERE))
        self.n_shares = min(-(-wanted // by_rows.GROUP) * by_rows.GROUP, MOST_SHARES)
        self.n_threads = -(-wanted // self.n_shares) * self.n_shares
        n_values = self.n_threads * by_rows.BLOCK * by_rows.SIDE * max(self.n_layers, 2)
        self.hidden = _room(n_values, dtype=dtype)
        self.deltas = _room(n_values, dtype=dtype)
        self.partial = _room(n_matrices, self.n_shares, dtype=dtype)
        blocks = [(-(-a // by_rows.BLOCK), -(-b // by_rows.BLOCK)) for a, b in pairwise(widths)]
        self.n_blocks = sum(a * b for a, b in blocks)

    def starts(self, n: int) -> range:
        return range(0, n, self.n_threads * by_rows.BLOCK)


def fused_mlp_(
    rows: Tensor | DeviceArray,  # [n, widths[0]]
    weights: Tensor | DeviceArray,  # [n_weights]
    out: Tensor | DeviceArray,  # [n, widths[-1]], overwritten
    *,
    widths: tuple[int, ...],
    output: Output = "none",
    storage: Storage = "float32",
    n_rows: int | None = None,
    workspace: Workspace | None = None,
    counted: DeviceArray | None = None,  # [>= 1] int32
) -> None:
    """`fused_mlp` into `out`, of the first `n_rows` rows (all by default). Keeps nothing for the backward pass.

    `counted`, on GPUs, holds first of all how many of those rows there really are: a number that the host need not know.
    """
    arrays = {"rows": (rows, widths[:1]), "out": (out, widths[-1:])}
    n = _check("fused_mlp_", widths, output, storage, arrays, weights, n_rows=n_rows)
    workspace = workspace or Workspace(widths, n, weights.dtype)
    count = _on_device("fused_mlp_", counted)
    _forward(n, plain(rows), plain(weights), widths, output, workspace, _in_place("fused_mlp_", "out", out), count)


def fused_mlp_backward_(
    rows: Tensor | DeviceArray,  # [n, widths[0]]
    weights: Tensor | DeviceArray,  # [n_weights]
    out: Tensor | DeviceArray,  # [n, widths[-1]] from `fused_mlp_`; out.grad holds its cotangents
    *,
    widths: tuple[int, ...],
    output: Output = "none",
    storage: Storage = "float32",
    n_rows: int | None = None,
    workspace: Workspace | None = None,
    counted: DeviceArray | None = None,  # [>= 1] int32
) -> None:
    """Adds to `weights.grad` and overwrites `rows.grad`, each where that array requires a gradient, from `out.grad`."""
    name = "fused_mlp_backward_"
    arrays = {"rows": (rows, widths[:1]), "out": (out, widths[-1:])}
    n = _check(name, widths, output, storage, arrays, weights, n_rows=n_rows)
    workspace = workspace or Workspace(widths, n, weights.dtype)
    of_rows, of_weights, grad = (_grad_of(name, *pair) for pair in (("rows", rows), ("weights", weights), ("out", out)))
    if grad is None:
        raise ValueError(f"{name}: out.grad has to hold the cotangents of out")
    count = _on_device(name, counted)
    _backward(n, plain(rows), plain(weights), plain(out), grad, widths, output, workspace, of_rows, of_weights, count)


def _on_device(op: str, counted: Any) -> Any:
    if counted is None:
        return None
    if current().arch == "cpu":
        raise ValueError(f"{op}: counted is for GPUs; on the cpu backend give n_rows")
    check(op, lasting=("counted",), counted=(counted, "n_counts", torch.int32))
    return plain(counted)


def _check(
    op: str, widths: tuple[int, ...], output: str, storage: str, arrays: dict[str, Any], weights: Any,
    n_rows: int | None = None, lasting: bool = True,
) -> int:  # fmt: skip
    if not 3 <= len(widths) <= 5 or not all(1 <= width <= by_lanes.SIDE for width in widths):
        raise ValueError(f"{op}: widths has to hold 3 to 5 sizes from 1 to {by_lanes.SIDE}, got {tuple(widths)}")
    if output not in activations.OUTPUT:
        raise ValueError(f"{op}: output has to be one of {', '.join(activations.OUTPUT)}, got {output!r}")
    if storage not in ("float32", "float16"):
        raise ValueError(f"{op}: storage has to be float32 or float16, got {storage!r}")
    stored = (torch.float16,) if storage == "float16" else ()
    shapes = {name: (array, f"n {width[0]}", *stored) for name, (array, width) in arrays.items()}
    names = (*arrays, "weights") if lasting else ("weights",)
    sizes = check(op, lasting=names, **shapes, weights=(weights, str(n_weights(widths))))
    if n_rows is not None and not 0 <= n_rows <= sizes["n"]:
        raise ValueError(f"{op}: n_rows has to be in 0 to {sizes['n']}, got {n_rows}")
    return sizes["n"] if n_rows is None else n_rows


def _in_place(op: str, name: str, array: Any) -> Any:
    if isinstance(array, Tensor) and not array.is_contiguous():
        raise ValueError(f"{op}: {name} has to be contiguous to be changed in place")
    return plain(array)


def _grad_of(op: str, name: str, array: Any) -> Any:
    if not array.requires_grad or (isinstance(array, Tensor) and array.grad is None):
        return None
    return array.grad if isinstance(array, DeviceArray) else _in_place(op, f"{name}.grad", array.grad)


def _room(*shape: int, dtype: torch.dtype) -> Any:
    """Memory of the backend's own: a torch tensor would be copied at every launch where the backend copies."""
    backend = current()
    if backend.copies:
        return DeviceArray.empty(*shape, dtype=dtype).data
    return fresh(torch.empty(0, dtype=dtype, device=backend.torch_device), *shape)


@lru_cache(maxsize=64)
def _uploaded(widths: tuple[int, ...], device: torch.device) -> Tensor:
    """The layers as kernels take them, [n_layers, 3]: first weight, n_in, n_out."""
    rows = [[n_weights(widths[: index + 1]), *pair] for index, pair in enumerate(pairwise(widths))]
    return torch.tensor(rows, dtype=torch.int32, device=device)


def _forward(
    n: int, rows: Any, weights: Any, widths: Any, output: str, room: Workspace, out: Any,
    count: Any = None,
) -> None:  # fmt: skip
    layers, kind = _uploaded(tuple(widths), current().torch_device), activations.OUTPUT[output]
    if not n:
        return
    if room.is_by_lanes:
        launch(by_lanes.forward_by_lanes, n, rows, weights, layers, kind, room.n_slices, room.n_work, room.work, out)
        return
    if current().copies and isinstance(out, Tensor) and len(room.starts(n)) > 1:
        for part in _pieces(n, room):  # a launch brings the whole of what it writes back, so each has to write all of it
            _forward(len(out[part]), rows[part], weights, widths, output, room, out[part])
        return
    count = _counted(n) if count is None else count
    for start in room.starts(n):
        launch(by_rows.forward_by_rows, count, rows, weights, layers, kind, start, room.n_threads, room.hidden, out)


def _backward(
    n: int, rows: Any, weights: Any, out: Any, grad: Any, widths: Any, output: str, room: Workspace,
    of_rows: Any, of_weights: Any, count: Any = None,
) -> None:  # fmt: skip
    layers, kind = _uploaded(tuple(widths), current().torch_device), activations.OUTPUT[output]
    if not n:
        return
    asked = (of_rows is not None, of_weights is not None)
    given = (rows, weights, layers, out, grad, kind)
    target = rows if of_rows is None else of_rows  # kernels need an array, also to leave alone
    if room.is_by_lanes:
        launch(by_lanes.forward_by_lanes_adjoint, n, *given, *map(int, asked), room.n_slices, room.n_work, room.work, target)
        if of_weights is not None:
            launch(by_lanes.weights_adjoint, layers, room.n_slices, room.n_work, room.work, of_weights)
        return
    if current().copies and isinstance(of_rows, Tensor) and len(room.starts(n)) > 1:
        for part in _pieces(n, room):
            arrays = (rows[part], weights, out[part], grad[part])
            _backward(len(rows[part]), *arrays, widths, output, room, of_rows[part], of_weights)
        return
    kept, count = (room.hidden, room.deltas), _counted(n) if count is None else count
    for start in room.starts(n):
        launch(by_rows.forward_by_rows_adjoint, count, *given, asked[0], start, room.n_threads, *kept, target)
        if of_weights is not None:
            shares = (start, room.n_threads, room.n_blocks, room.n_shares, room.partial)
            launch(by_rows.weights_by_blocks_adjoint, count, layers, *kept, *shares)
    if of_weights is not None:
        launch(by_rows.weights_adjoint, room.partial, of_weights)


def _pieces(n: int, room: Workspace) -> list[slice]:
    """The rows of each launch."""
    starts = room.starts(n)
    return [slice(start, min(start + starts.step, n)) for start in starts]


def _counted(n: int) -> Tensor:
    return torch.full((1,), n, dtype=torch.int32, device=current().torch_device)


class _FusedMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows, weights, on_device, widths, output, n):  # type: ignore[no-untyped-def]
        rows, values = plain(rows), plain(weights) if on_device is None else on_device.data
        dtype = weights.dtype if on_device is None else on_device.dtype
        ctx.workspace = Workspace(widths, n, dtype)
        out = fresh(rows, n, widths[-1])
        _forward(n, rows, values, widths, output, ctx.workspace, out)
        ctx.on_device, ctx.widths, ctx.output = on_device, widths, output
        ctx.save_for_backward(rows, out, *([values] if on_device is None else []))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        rows, out, *weights = (saved.detach() for saved in ctx.saved_tensors)
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        of_weights = None
        if ctx.needs_input_grad[1]:
            of_weights = torch.zeros_like(weights[0]) if weights else ctx.on_device.grad
        values = weights[0] if weights else ctx.on_device.data
        _backward(len(rows), rows, values, out, plain(grad), ctx.widths, ctx.output, ctx.workspace, of_rows, of_weights)
        return of_rows, of_weights if weights else None, None, None, None, None
