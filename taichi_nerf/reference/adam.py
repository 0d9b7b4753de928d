"""Adam in plain torch (Kingma and Ba 2015), and the law for tables of which a step touches some rows only."""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


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
    grad = grad + weight_decay * values
    mean = mean + (1 - betas[0]) * (grad - mean)
    mean_square = betas[1] * mean_square + (1 - betas[1]) * grad * grad
    root = mean_square.sqrt() / (1 - betas[1] ** step) ** 0.5
    return values - learning_rate / (1 - betas[0] ** step) * mean / (root + epsilon), mean, mean_square


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
    touched = (grad != 0).any(-1)
    counts = counts + touched.int()
    grad = grad + weight_decay * values
    new_mean = mean + (1 - betas[0]) * (grad - mean)
    new_square = betas[1] * mean_square + (1 - betas[1]) * grad * grad
    rest_1, rest_2 = (1 - beta ** counts.double().clamp_min(1)[:, None] for beta in betas)
    root = new_square.sqrt() / rest_2.sqrt().to(values.dtype)
    moved = values - learning_rate / rest_1.to(values.dtype) * new_mean / (root + epsilon)
    pairs = ((moved, values), (new_mean, mean), (new_square, mean_square))
    new_values, mean, mean_square = (torch.where(touched[:, None], new, old) for new, old in pairs)
    return new_values, mean, mean_square, counts


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n rows of a table in the middle of a training, two thirds of them untouched; and any other parameter."""
    like = torch.empty(0, dtype=dtype)
    options = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "epsilon": 1e-15}
    made = []
    for n_columns, weight_decay in ((2, 0.0), (1, 0.0), (4, 1e-2)):
        values, grad, mean = (uniform(generator, (n, n_columns), -1, 1, like) for _ in range(3))
        arguments = {
            "values": values,
            "grad": grad * (uniform(generator, (n, 1), 0, 3, like) < 1),
            "mean": mean,
            "mean_square": uniform(generator, (n, n_columns), 0.1, 1, like),
            "counts": uniform(generator, (n,), 0, 5000, like).int(),
            **options,
            "weight_decay": weight_decay,
        }
        made.append(Example("sparse_adam", arguments, (), f"{n_columns} columns"))
        dense = {name: value for name, value in arguments.items() if name != "counts"}
        made.append(Example("adam", {**dense, "step": 3}, (), f"{n_columns} columns"))
    return made
