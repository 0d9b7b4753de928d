"""What transforms.json has no place for, under a key of our own that other programs pass over: where the scene is.

    "taichi_nerf": {"scale", "rotation", "translation",     scene units = scale · rotation position + translation
                    "near", "far", "unbounded",             in scene units
                    "forward_facing", "near_far", "ndc_near"}   the last two in the file's lengths, where they are known

With it a converted scene is read back exactly where it was; without it its place is found out anew.
"""

from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import LARGEST_NUMBER, matrix, number, pose
from taichi_nerf.scenes.normalise import Overrides, normalise
from taichi_nerf.scenes.similarity import Similarity
from taichi_nerf.scenes.source import Placed, Source

KEY = "taichi_nerf"
SMALLEST = 1e-9


def own_fields(source: Source, overrides: Overrides) -> dict[str, Any]:
    mapping, bounds, _ = normalise(source, overrides)
    return {
        KEY: {
            "scale": mapping.scale,
            "rotation": mapping.rotation.tolist(),
            "translation": mapping.translation.tolist(),
            "near": bounds.near,
            "far": bounds.far,
            "unbounded": bounds.unbounded,
            "forward_facing": bounds.forward_facing,
            "near_far": None if source.near_far is None else [float(depth) for depth in source.near_far],
            "ndc_near": source.ndc_near,
        }
    }


def read_own_fields(data: dict[str, Any], file: Path) -> dict[str, Any]:
    """The fields of a `Source` that they decide; none where the file has no such key."""
    own = data.get(KEY)
    if own is None:
        return {}
    if not isinstance(own, dict):
        raise SceneError(file, "expected an object; remove it, and the scene's place is found out anew", KEY)

    def positive(value: Any, field: str) -> float:
        return number(value, file, f"{KEY}.{field}", SMALLEST, LARGEST_NUMBER)

    def yes_or_no(field: str) -> bool:
        if not isinstance(own.get(field), bool):
            raise SceneError(file, "expected true or false", f"{KEY}.{field}")
        return bool(own[field])

    translation = matrix(own.get("translation"), (3,), file, f"{KEY}.translation")
    rotation = matrix(own.get("rotation"), (3, 3), file, f"{KEY}.rotation")
    pose(np.concatenate([rotation, translation[:, None]], -1), file, f"{KEY}.rotation")  # refuses what is no rotation
    near, far = positive(own.get("near"), "near"), positive(own.get("far"), "far")
    depths = own.get("near_far")
    if depths is not None:
        depths = tuple(positive(depth, "near_far") for depth in matrix(depths, (2,), file, f"{KEY}.near_far"))
    if not near < far or (depths is not None and not depths[0] < depths[1]):
        raise SceneError(file, "expected near to be less than far", KEY)
    return {
        "placed": Placed(Similarity(positive(own.get("scale"), "scale"), rotation, translation), near, far),
        "unbounded": yes_or_no("unbounded"),
        "forward_facing": yes_or_no("forward_facing"),
        "near_far": depths,
        "ndc_near": None if own.get("ndc_near") is None else positive(own["ndc_near"], "ndc_near"),
    }
