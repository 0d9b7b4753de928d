"""taichi_nerf: train, render and hack neural radiance fields on any GPU, or on none.

    import taichi_nerf
    taichi_nerf.start("auto")                       # cuda > metal > vulkan > cpu, and it says which
    rendered = taichi_nerf.ops.compositing.composite_rays(density, color, t_starts, t_ends, spans)

Importing this package loads neither Taichi nor torch: every public name below is fetched when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Set before anything can load Taichi, and only where the user has not decided otherwise: Taichi greets on import and asks its
# server for news of releases; a library does neither.
os.environ.setdefault("ENABLE_TAICHI_HEADER_PRINT", "0")
os.environ.setdefault("TI_SKIP_VERSION_CHECK", "ON")
# Importing Taichi ends a process that has no HOME, as a service or a cron job may. It is where the system says that it is,
# or nowhere.
if os.name == "posix":
    os.environ.setdefault("HOME", os.path.join("/", os.path.expanduser("~")))
# In a notebook Taichi greets once more, to say that it takes what kernels print from a buffer of its own. Notebooks take it from
# the process itself, as terminals do.
os.environ.setdefault("TI_ENABLE_PYBUF", "0")
# After an operation torch's threads (GNU OpenMP) spin for milliseconds, on cores that the next Taichi kernel needs: training
# on two cores is a quarter faster when they soon sleep. It counts only if it is set before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from taichi_nerf import kernels, ops, reference
    from taichi_nerf.hotswap import check_gradients, reload_kernels, swap
    from taichi_nerf.rays import Rays, RenderedRays, Samples
    from taichi_nerf.runtime import Backend, BackendError, DeviceArray, current, start

_HOME = {
    "start": "runtime",
    "current": "runtime",
    "Backend": "runtime",
    "BackendError": "runtime",
    "DeviceArray": "runtime",
    "Rays": "rays",
    "Samples": "rays",
    "RenderedRays": "rays",
    "swap": "hotswap",
    "reload_kernels": "hotswap",
    "check_gradients": "hotswap",
}
_ROOMS = ("ops", "reference", "kernels")

__all__ = [
    "Backend",
    "BackendError",
    "DeviceArray",
    "Rays",
    "RenderedRays",
    "Samples",
    "__version__",
    "check_gradients",
    "current",
    "kernels",
    "ops",
    "reference",
    "reload_kernels",
    "start",
    "swap",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
