"""The commands, imported as `taichi_nerf.apps`: parse, call the library, print. Click and nothing clever lives here.

Modules import the library inside their functions, so that `taichi-nerf --help` loads neither Taichi nor torch.
"""
