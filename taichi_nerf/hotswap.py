"""Change a kernel while the program runs, and see whether its adjoint still fits.

    from taichi_nerf.kernels import compositing
    with swap(compositing, composite_rays=mine):      # for the block; without `with`, until .undo()
        ...
    reload_kernels()                                  # after editing files in kernels/
    check_gradients("compositing")                    # a table: against the reference and finite differences

Nothing here is magic: ops call `compositing.composite_rays(...)` through the module, so an assignment swaps a kernel.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Container, Sequence
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_nerf.launch import launches
from taichi_nerf.reference import FAMILIES
from taichi_nerf.runtime import current


class swap:
    """Replace kernels of a module: `swap(compositing, composite_rays=mine)`. As a context manager, only for the block."""

    def __init__(self, module: ModuleType, **kernels: Callable[..., Any]):
        for name, kernel in kernels.items():
            if not hasattr(module, name):
                known = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
                raise AttributeError(f"{module.__name__} has no kernel {name!r}: it has {', '.join(known)}")
            expected, got = (list(inspect.signature(k).parameters) for k in (getattr(module, name), kernel))
            if len(expected) != len(got):
                raise TypeError(
                    f"{name} is called with {len(expected)} arguments ({', '.join(expected)}), yours takes {len(got)}"
                )
        self._module = module
        self._originals = {name: getattr(module, name) for name in kernels}
        vars(module).update(kernels)

    def undo(self) -> None:
        vars(self._module).update(self._originals)

    def __enter__(self) -> "swap":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.undo()


def reload_kernels() -> list[str]:
    """Read every loaded file of kernels/ again and return their names. Swapped kernels return to what the files say."""
    names = [name for name in sys.modules if name.startswith("taichi_nerf.kernels.")]
    names.sort(key=lambda name: not name.endswith("device_functions"))  # what the others import comes first
    for name in names:
        importlib.reload(sys.modules[name])
    return names


class GradientError(NamedTuple):
    """The largest error of one gradient, each relative to the largest entry of what it is compared with."""

    example: str
    argument: str
    against_reference: float
    against_differences: float


def check_gradients(family: str, n: int = 64, seed: int = 0, show: bool = True) -> list[GradientError]:
    """Compare the adjoints of a kernel family with autograd through its reference and with central differences.

    Computes in float64 where the backend does; differences are of the op itself, so they judge a swapped kernel too.
    """
    if family not in FAMILIES or n < 1:
        raise ValueError(f"check_gradients: expected n >= 1 and one of {', '.join(FAMILIES)}, got {family!r} and n={n}")
    rows, table = compare_gradients(family, n, seed)
    if show:
        print(table)
    return rows


def compare_gradients(family: str, n: int = 64, seed: int = 0) -> tuple[list[GradientError], str]:
    """What `check_gradients` returns, and what it shows."""
    with launches() as launched:
        rows = _compared(family, n, seed)
    return rows, gradient_table(family, current().arch, rows, not_among(launched, family))


def _compared(family: str, n: int, seed: int) -> list[GradientError]:
    backend = current()
    dtype = torch.float64 if backend.arch in ("cpu", "cuda") else torch.float32
    op_module = importlib.import_module(f"taichi_nerf.ops.{family}")
    reference_module = importlib.import_module(f"taichi_nerf.reference.{family}")
    rows = []
    for example in reference_module.examples(n, torch.Generator().manual_seed(seed), dtype):
        if not example.differentiable:
            continue
        arguments = {k: v.to(backend.torch_device) if isinstance(v, Tensor) else v for k, v in example.arguments.items()}
        op, reference = getattr(op_module, example.function), getattr(reference_module, example.function)
        cotangents = random_cotangents(op, arguments, example.differentiable, seed)
        ours = gradients_of(op, arguments, example.differentiable, cotangents)
        theirs = gradients_of(reference, arguments, example.differentiable, cotangents)
        for name in example.differentiable:
            estimated, index = differences_of(op, arguments, name, cotangents)
            rows.append(
                GradientError(
                    f"{example.function} ({example.label})" if example.label else example.function,
                    name,
                    relative_error(ours[name], theirs[name]),
                    relative_error(ours[name].flatten()[index], estimated),
                )
            )
    return rows


def not_among(launched: Container[Any], family: str) -> list[str]:
    """The kernels of a family that are not among the launched ones: others do the work on this backend or in 64 bits, or they
    have no gradient."""
    op_module = importlib.import_module(f"taichi_nerf.ops.{family}")
    modules = [value for value in vars(op_module).values() if isinstance(value, ModuleType) and ".kernels." in value.__name__]
    return [
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in modules
        for name, kernel in vars(module).items()
        if hasattr(kernel, "_primal") and kernel not in launched
    ]


def outputs_of(function: Callable[..., Any], arguments: dict[str, Any]) -> list[Tensor]:
    """The floating-point outputs of a call, as a flat list."""
    result = function(**arguments)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return [o for o in outputs if isinstance(o, Tensor) and o.is_floating_point()]


def random_cotangents(
    function: Callable[..., Any], arguments: dict[str, Any], differentiable: tuple[str, ...], seed: int = 1
) -> list[Tensor]:
    """A random cotangent for each output that has a gradient, zeros for the others (mip-NeRF's radii, say)."""
    generator = torch.Generator().manual_seed(seed)
    leaves = {name: arguments[name].detach().clone().requires_grad_() for name in differentiable}
    outputs = outputs_of(function, {**arguments, **leaves})
    drawn = [torch.randn(o.shape, generator=generator, dtype=o.dtype).to(o.device) for o in outputs]
    return [c if o.requires_grad else torch.zeros_like(c) for o, c in zip(outputs, drawn, strict=True)]


def gradients_of(
    function: Callable[..., Any], arguments: dict[str, Any], names: tuple[str, ...], cotangents: list[Tensor]
) -> dict[str, Tensor]:
    """The vector-Jacobian product for each named argument; zeros where an argument does not matter."""
    leaves = {name: arguments[name].detach().clone().requires_grad_() for name in names}
    outputs = outputs_of(function, {**arguments, **leaves})
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not pairs:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    reached, weights = zip(*pairs, strict=True)
    found = torch.autograd.grad(reached, list(leaves.values()), weights, allow_unused=True)
    return {n: torch.zeros_like(leaf) if g is None else g for (n, leaf), g in zip(leaves.items(), found, strict=True)}


def differences_of(
    function: Callable[..., Any], arguments: dict[str, Any], name: str, cotangents: list[Tensor], most: int = 24
) -> tuple[Tensor, Tensor]:
    """Central differences of <cotangents, function> along up to `most` entries of one argument, and their indices."""
    value = arguments[name].detach()
    step = 1e-6 if value.dtype == torch.float64 else 2e-3
    index = torch.linspace(0, max(value.numel() - 1, 0), min(most, value.numel())).round().long().unique()

    def paired(changed: Tensor) -> float:
        outputs = outputs_of(function, {**arguments, name: changed.view_as(value)})
        return sum(float((o.double() * c.double()).sum()) for o, c in zip(outputs, cotangents, strict=True))

    estimates = []
    for i in index.tolist():
        shifted = [value.flatten().clone(), value.flatten().clone()]
        shifted[0][i] += step
        shifted[1][i] -= step
        estimates.append((paired(shifted[0]) - paired(shifted[1])) / float(shifted[0][i] - shifted[1][i]))
    return torch.tensor(estimates, dtype=value.dtype, device=value.device), index.to(value.device)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; 0 for two empty tensors, inf where a number is missing."""
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    error = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12)
    return float(error.nan_to_num(nan=float("inf")))


def gradient_table(family: str, arch: str, rows: list[GradientError], idle: Sequence[str] = ()) -> str:
    """What `check_gradients` shows. `idle`: kernels that it did not launch, of which nothing was learned."""
    lines = [f"{family} on {arch}: largest error of each gradient, relative to its largest entry"]
    if not rows:
        return "\n".join([*lines, "nothing here has a gradient"])
    if arch not in ("cpu", "cuda"):
        lines.append("(in 32 bits, where differences are rough: an adjoint is wrong if it also disagrees with the reference)")
    width = max(len(row.example) for row in rows)
    lines.append(f"{'example':<{width}}  {'argument':<20} {'reference':>10} {'differences':>12}")
    for row in rows:
        errors = f"{row.against_reference:>10.1e} {row.against_differences:>12.1e}"
        lines.append(f"{row.example:<{width}}  {row.argument:<20} {errors}")
    if idle:
        lines.append(f"not launched here, so nothing is said of {', '.join(idle)}")
    return "\n".join(lines)
