"""Time every op, forward and backward, against its torch reference.

    python benchmarks/kernels.py [--arch cpu] [--only hash_grid] [--n 262144] [--json FILE]
    taichi-nerf benchmark kernels

Op and reference take turns within one run, so the ratio holds when the machine's speed drifts; each figure is a median of
7 after 2 warm-ups. Memory is the growth of the process's peak during one forward and backward call, inputs not counted.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.hotswap import outputs_of
from taichi_nerf.reference import FAMILIES
from taichi_nerf.reference.example import Example
from taichi_nerf.runtime import Backend, current, start
from taichi_nerf.training.json_file import expect_place, write_json

TRAINING_SIZE = 2**18  # samples of a training step
# The published anchors of the hash grid are for 131,072 points.
SIZES = {"hash_grid": (2**17, 2**18)}
REPEATS, WARM_UPS = 7, 2


@dataclass(frozen=True)
class Row:
    """Milliseconds and mebibytes of one op; None where there is no gradient or the system does not tell memory."""

    op: str
    n: int
    forward: float
    forward_reference: float
    backward: float | None
    backward_reference: float | None
    memory: float | None
    memory_reference: float | None

    @property
    def forward_ratio(self) -> float:
        return self.forward_reference / self.forward

    @property
    def backward_ratio(self) -> float | None:
        return self.backward_reference / self.backward if self.backward and self.backward_reference else None


def measure(family: str, n: int, repeats: int = REPEATS) -> list[Row]:
    """One row for each function of a family, on the first of its examples."""
    op_module, reference_module = (import_module(f"taichi_nerf.{room}.{family}") for room in ("ops", "reference"))
    rows: list[Row] = []
    seen: set[str] = set()
    for example in reference_module.examples(n, torch.Generator().manual_seed(0), torch.float32):
        if example.function in seen:
            continue
        seen.add(example.function)
        prepared = prepare(example)
        functions = [getattr(module, example.function) for module in (op_module, reference_module)]
        calls = [Call(function, prepared, example.differentiable) for function in functions]
        for _ in range(WARM_UPS):
            for call in calls:
                call.run()
        times = [[call.run() for call in calls] for _ in range(repeats)]
        (forward, backward), (forward_reference, backward_reference) = (
            tuple(statistics.median(column) for column in zip(*runs, strict=True)) for runs in zip(*times, strict=True)
        )
        memory = [peak_growth(call.run) for call in calls]
        has_gradient = bool(example.differentiable)
        rows.append(
            Row(
                f"{family}.{example.function}" if family != example.function else family,
                n,
                forward,
                forward_reference,
                backward if has_gradient else None,
                backward_reference if has_gradient else None,
                *memory,
            )
        )
    return rows


def prepare(example: Example) -> dict[str, Any]:
    device = current().torch_device
    arguments = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in example.arguments.items()}
    return {k: v.requires_grad_() if k in example.differentiable else v for k, v in arguments.items()}


class Call:
    """A call of one function: `run()` returns the milliseconds of its forward and its backward pass."""

    def __init__(self, function: Callable[..., Any], arguments: dict[str, Any], differentiable: tuple[str, ...]):
        self.function, self.arguments = function, arguments
        self.leaves = [arguments[name] for name in differentiable]
        with torch.no_grad():
            self.cotangents = [torch.randn_like(o) for o in outputs_of(function, arguments)]

    def run(self) -> tuple[float, float]:
        before = now()
        outputs = outputs_of(self.function, self.arguments)
        between = now()
        if self.leaves:
            pairs = [(o, c) for o, c in zip(outputs, self.cotangents, strict=True) if o.requires_grad]
            reached, weights = zip(*pairs, strict=True)
            gradients = torch.autograd.grad(reached, self.leaves, weights, allow_unused=True)
            after = now()
            del gradients
        else:
            after = between
        return 1e3 * (between - before), 1e3 * (after - between)


def now() -> float:
    """Seconds, once everything that was launched has finished."""
    if current().arch == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_growth(run: Callable[[], object]) -> float | None:
    """MiB by which `run` raises the peak of allocated memory (GPU) or of the resident set (Linux)."""
    if current().arch == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # gives freed pages back, which the call would otherwise reuse unseen
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = resident("VmRSS")
        run()
        return (resident("VmHWM") - before) / 2**10
    except (OSError, AttributeError, TypeError):  # not Linux, or not glibc; of Windows' own libraries none has no name
        return None


def resident(field: str) -> int:
    """KiB, as /proc/self/status tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def table(rows: list[Row], backend: Backend) -> str:
    """The rows as Markdown."""
    lines = [
        f"{backend.arch} on {backend.device_name}, {torch.get_num_threads()} torch threads; milliseconds, median of {REPEATS}",
        "",
        "| op | n | forward | torch | ratio | backward | torch | ratio | M/s fwd+bwd | peak MiB | torch |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        rate = row.n / (row.forward + (row.backward or 0)) / 1e3
        cells = [
            f"{row.forward:.2f}",
            f"{row.forward_reference:.2f}",
            f"{row.forward_ratio:.1f}x",
            *(f"{x:.2f}" if x is not None else "–" for x in (row.backward, row.backward_reference)),
            f"{row.backward_ratio:.1f}x" if row.backward_ratio else "–",
            f"{rate:.2f}",
            *(f"{x:.0f}" if x is not None else "–" for x in (row.memory, row.memory_reference)),
        ]
        lines.append(f"| {row.op} | {row.n} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(families: list[str], n: int | None = None, report: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Measure several families, telling `report` the name of each before it starts."""
    rows = []
    for family in families:
        for size in (n,) if n else SIZES.get(family, (TRAINING_SIZE,)):
            report(f"{family}, n = {size}")
            rows.extend(measure(family, size))
    return rows


def as_json(rows: list[Row], backend: Backend) -> str:
    return json.dumps({"backend": asdict(backend), "torch": torch.__version__, "rows": [asdict(row) for row in rows]}, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--n", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    backend = start(options.arch)
    rows = run(options.only, options.n)
    print(table(rows, backend))
    if options.json:
        write_json(options.json, as_json(rows, backend))


if __name__ == "__main__":
    main()
