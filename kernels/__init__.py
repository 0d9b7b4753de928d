"""Taichi kernels, one file per family, imported as `taichi_nerf.kernels`. Taichi and nothing else lives here.

Each kernel has its hand-written adjoint beside it, suffix `_adjoint`. Read `compositing.py` first.
"""

import inspect

# For each kernel and function Taichi asks whether it is defined inside of a class: of the code that is running the module, which
# is Python's own importing, `inspect` seeks the source in every module there is, some hundreds of times. It has none: said once,
# all commands start one to two seconds earlier.
inspect.modulesbyfile.setdefault("<frozen importlib._bootstrap>", "importlib._bootstrap")
