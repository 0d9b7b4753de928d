"""The bridge from torch to the kernels: check, allocate, launch, and one `autograd.Function` per differentiable kernel.

`ops.x` has the same public functions, with the same signatures, as `reference.x`; the kernels are in `kernels/x.py`.
Modules load when they are first used: `ops.compositing.composite_rays(...)`.
"""

from importlib import import_module
from types import ModuleType

from taichi_nerf.reference import FAMILIES

__all__ = list(FAMILIES)


def __getattr__(name: str) -> ModuleType:
    if name in FAMILIES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(FAMILIES)}")
