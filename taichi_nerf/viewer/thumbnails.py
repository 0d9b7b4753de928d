"""Small pictures of a scene's views, read once each."""

import numpy as np

from taichi_nerf.cameras import Array
from taichi_nerf.scenes import SceneData, SceneError

SIDE = 96  # pixels of the longer side


class Thumbnails:
    def __init__(self, scene: SceneData):
        self._scene, self._made = scene, dict[int, Array | None]()

    def __getitem__(self, view: int) -> Array | None:
        """[h, w, 3] bytes over white; None of a picture that cannot be read."""
        if view not in self._made:
            try:
                self._made[view] = thumbnail(self._scene.images.small(view, SIDE))
            except SceneError:
                self._made[view] = None
        return self._made[view]


def thumbnail(picture: Array) -> Array:
    """[h, w, 3] bytes: one pixel of each block, over white."""
    step = max(1, -(-max(picture.shape[:2]) // SIDE))
    few = picture[step // 2 :: step, step // 2 :: step]
    top = 1.0 if few.dtype.kind == "f" else float(np.iinfo(few.dtype).max)
    values = few.astype(np.float32) / top
    color = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, -1)
    if values.shape[-1] == 4:
        color = color * values[..., 3:] + 1 - values[..., 3:]
    return np.rint(np.clip(color, 0, 1) * 255).astype(np.uint8)
