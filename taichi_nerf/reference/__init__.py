"""The executable specification: every op in plain torch, written to be read, differentiated by autograd.

Each module also has `examples(n, generator, dtype)`: calls that the tests, `check_gradients` and the benchmarks share.
"""

from importlib import import_module
from types import ModuleType

# The kernel families, in the order in which data flows through them.
FAMILIES = (
    "ray_generation",
    "ray_box",
    "ray_marching",
    "occupancy_grid",
    "importance_sampling",
    "hash_grid",
    "tri_plane",
    "voxel_grid",
    "spherical_harmonics",
    "frequency_encoding",
    "contraction",
    "integrated_encoding",
    "fused_mlp",
    "adam",
    "compositing",
    "distortion",
    "image_warp",
)

__all__ = ["FAMILIES", *FAMILIES]


def __getattr__(name: str) -> ModuleType:
    if name in FAMILIES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(FAMILIES)}")
