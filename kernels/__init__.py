"""Taichi kernels, one file per family, imported as `taichi_nerf.kernels`. Taichi and nothing else lives here.

Each kernel has its hand-written adjoint beside it, suffix `_adjoint`. Read `compositing.py` first.
"""
