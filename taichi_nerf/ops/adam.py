"""Adam's step as a kernel. See `kernels/adam.py` for the formulas, and for the law of tables.

`adam_` and `sparse_adam_` take the gradient from the `grad` of the parameter, a Tensor or a DeviceArray, change everything
in place and leave a gradient of zeros, in one pass through memory. `adam` and `sparse_adam` return new tensors.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.kernels import adam as kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, plain, upload
from taichi_nerf.runtime import DeviceArray, current

LONGEST = 2**18  # corrections that are worked out: for betas beyond 0.9999 the rest counts as 1 a little early
COLUMNS = (1, 2, 4, 8)


def adam(
    values: Tensor,  # of any shape
    grad: Tensor,  # of that shape, as are
    mean: Tensor,
    mean_square: Tensor,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """New values, mean and mean square of the gradient. `step` counts from 1; weight decay is added to the gradient."""
    _check("adam", values, grad, mean, mean_square)
    new = [plain(array).clone() for array in (values, grad, mean, mean_square)]
    _dense("adam", new, False, values.dtype, step, betas, learning_rate, epsilon, weight_decay)
    return new[0], new[2], new[3]


def adam_(
    values: Tensor | DeviceArray,  # of any shape, with a gradient
    mean: Tensor | DeviceArray,  # of that shape
    mean_square: Tensor | DeviceArray,  # of that shape
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """`adam` in place; the gradient is zeros afterwards."""
    arrays = _in_place("adam_", values, mean, mean_square)
    _dense("adam_", arrays, True, values.dtype, step, betas, learning_rate, epsilon, weight_decay)
    _count_change(values)


def sparse_adam(
    values: Tensor,  # [n_rows, n_columns]
    grad: Tensor,  # [n_rows, n_columns]
    mean: Tensor,  # [n_rows, n_columns]
    mean_square: Tensor,  # [n_rows, n_columns]
    counts: Tensor,  # [n_rows] int32
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New values, mean, mean square and counts: each row with a gradient takes the step of its own count, others stay."""
    _check("sparse_adam", values, grad, mean, mean_square, counts)
    new = [plain(array).clone() for array in (values, grad, mean, mean_square, counts)]
    _sparse("sparse_adam", new, False, values.dtype, betas, learning_rate, epsilon, weight_decay)
    return new[0], new[2], new[3], new[4]


def sparse_adam_(
    values: Tensor,  # [n_rows, n_columns], with a gradient
    mean: Tensor,  # [n_rows, n_columns]
    mean_square: Tensor,  # [n_rows, n_columns]
    counts: Tensor,  # [n_rows] int32
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    """`sparse_adam` in place; the gradient is zeros afterwards."""
    arrays = _in_place("sparse_adam_", values, mean, mean_square, counts)
    _sparse("sparse_adam_", arrays, True, values.dtype, betas, learning_rate, epsilon, weight_decay)
    _count_change(values)


def _check(op: str, values: Any, grad: Any, mean: Any, mean_square: Any, counts: Any = None) -> None:
    """Rows and columns where there are counts; elsewhere any shape that all share."""
    if counts is None and isinstance(values, Tensor | DeviceArray):
        shape = " ".join(map(str, values.shape))
    else:
        shape = "n_rows n_columns"
    named = {"values": values, "grad": grad, "mean": mean, "mean_square": mean_square}
    arrays = {name: (array, shape) for name, array in named.items()}
    sizes = check(op, lasting=(*named, "counts"), **arrays, counts=(counts, "n_rows", torch.int32))
    if counts is not None and sizes["n_columns"] not in COLUMNS:
        raise ValueError(f"{op}: values has to have {', '.join(map(str, COLUMNS))} columns, got {sizes['n_columns']}")


def _in_place(op: str, values: Any, mean: Any, mean_square: Any, counts: Any = None) -> list[Any]:
    """Everything as kernels take it, the gradient second."""
    _check(op, values, None, mean, mean_square, counts)
    if isinstance(values, DeviceArray):
        if not values.requires_grad:
            raise ValueError(f"{op}: values has to have been made with requires_grad=True")
        grad = values.grad
    else:
        if values.grad is None:
            raise ValueError(f"{op}: values.grad has to hold a gradient, got None")
        grad = values.grad
    named = {"values": values, "values.grad": grad, "mean": mean, "mean_square": mean_square, "counts": counts}
    for name, array in named.items():
        if isinstance(array, Tensor) and not array.is_contiguous():
            raise ValueError(f"{op}: {name} has to be contiguous to be changed in place")
    ready = [array.data if isinstance(array, DeviceArray) else _detached(array) for array in named.values()]
    return ready if counts is not None else ready[:4]


def _count_change(values: Any) -> None:
    """A kernel writes behind autograd's back: gradients of what was computed before the step would be of the new values."""
    if isinstance(values, Tensor):
        torch.autograd.graph.increment_version(values)


def _detached(array: Any) -> Any:
    return array.detach() if isinstance(array, Tensor) else array


def _settings(
    op: str, dtype: torch.dtype, betas: tuple[float, float], learning_rate: float, epsilon: float, decay: float
) -> Tensor:
    if not all(0 <= beta < 1 for beta in betas) or epsilon < 0:
        raise ValueError(f"{op}: betas have to lie in [0, 1) and epsilon must not be negative, got {betas} and {epsilon}")
    numbers = [learning_rate, 1 - betas[0], betas[1], 1 - betas[1], epsilon, decay]
    return upload(numbers, dtype, current().torch_device)


@lru_cache(maxsize=16)
def _corrections(betas: tuple[float, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 / (1 - β1^t) and 1 / sqrt(1 - β2^t) for t = 1, 2, … until both round to 1, [n_known, 2]."""
    bits = 25 if dtype == torch.float32 else 54
    slowest = max(betas)
    n_known = math.ceil(bits * math.log(2) / -math.log(slowest)) if slowest > 0 else 1
    steps = torch.arange(1, min(n_known, LONGEST) + 1, dtype=torch.float64)
    rest = [1 - torch.tensor(beta, dtype=torch.float64) ** steps for beta in betas]
    return torch.stack([1 / rest[0], rest[1].rsqrt()], -1).to(dtype).to(device)


def _lanes() -> int:
    return 16 if current().arch == "cpu" else 1


def _dense(op: str, arrays: list[Any], clears: bool, dtype: torch.dtype, step: int, betas: Any, *others: float) -> None:
    if step < 1:
        raise ValueError(f"{op}: step counts from 1, got {step}")
    settings = _settings(op, dtype, betas, *others)
    now = [1 / (1 - betas[0] ** step), (1 - betas[1] ** step) ** -0.5]
    n = math.prod(arrays[0].shape)
    flat = [array.view(-1) if isinstance(array, Tensor) else array for array in arrays]
    if n:
        corrections = upload([now], dtype, settings.device)
        launch(kernels.adam, settings, corrections, n, _lanes(), clears, *flat)


def _sparse(op: str, arrays: list[Any], clears: bool, dtype: torch.dtype, betas: Any, *others: float) -> None:
    settings = _settings(op, dtype, betas, *others)
    n_rows, n_columns = arrays[0].shape
    if n_rows:
        corrections = _corrections(tuple(betas), dtype, settings.device)
        launch(kernels.sparse_adam, settings, corrections, n_columns, _lanes(), clears, *arrays)
