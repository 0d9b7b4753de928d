"""Procedural scenes as descriptions: seeded arrays of solids, materials and lights, and where the cameras stand. numpy only.

`taichi_nerf.procedural` renders them.
"""

from taichi_nerf.scenes.procedural.description import Builder, Description
from taichi_nerf.scenes.procedural.families import FAMILIES, Family, describe, family_and_number, family_of, place_cameras
from taichi_nerf.scenes.procedural.surfaces import sample_surface, signed_distance

__all__ = [
    "FAMILIES",
    "Builder",
    "Description",
    "Family",
    "describe",
    "family_and_number",
    "family_of",
    "place_cameras",
    "sample_surface",
    "signed_distance",
]
