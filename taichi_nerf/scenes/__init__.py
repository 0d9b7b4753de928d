"""Files to scenes: everything people have on disk opens, and says how it was read.

    from taichi_nerf.scenes import load_scene
    scene = load_scene("photos/fox")          # → SceneData: cameras, pictures, splits, bounds, notes

One module a form of scene, each with `fits(folder)` and `read(folder, allow_outside)`; `load.READERS` lists them.
"""

from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.load import find_reader, load_scene, read_source
from taichi_nerf.scenes.normalise import Overrides
from taichi_nerf.scenes.scene_data import SceneData
from taichi_nerf.scenes.source import Source

__all__ = ["Overrides", "SceneData", "SceneError", "Source", "find_reader", "load_scene", "read_source"]
