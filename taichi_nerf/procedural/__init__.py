"""Procedural scenes with exact ground truth: rendered by our own ray tracer, written as folders that the readers open.

    from taichi_nerf.procedural import make_scene
    make_scene("rooms", "my_room", seed=3)

Descriptions (which solids, where the cameras stand) are in `taichi_nerf.scenes.procedural`; here is what needs kernels.
"""

from taichi_nerf.procedural.ground_truth import Made, open_made, surface_points
from taichi_nerf.procedural.make import make_scene
from taichi_nerf.procedural.pictures import Picture, take_picture

__all__ = ["Made", "Picture", "make_scene", "open_made", "surface_points", "take_picture"]
