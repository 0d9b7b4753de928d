"""The scene of a training: opened as the settings say, and recognised when it is opened again."""

from pathlib import Path

from taichi_nerf.scenes import Overrides, SceneData, load_scene
from taichi_nerf.training.config import SceneSettings
from taichi_nerf.training.content_hash import content_hash

# What describes cameras and splits; a run in the scene's own folder has none of these.
DESCRIPTIONS = ("transforms*.json", "*.txt", "*.bin", "*.npy", "*.npz", "*.csv", "*.h5", "*.hdf5")


def open_scene(settings: SceneSettings) -> SceneData:
    overrides = Overrides(settings.center, settings.scale, settings.near, settings.far, axes=settings.axes)
    return load_scene(
        settings.path,
        views=None if settings.views is None else list(settings.views),
        n_views=settings.n_views,
        protocol=settings.protocol,
        downscale=settings.downscale,
        overrides=overrides,
        allow_outside=settings.allow_outside,
    )


def scene_hash(scene: SceneData) -> str:
    """Of every picture, mask and depth map of the scene, and of the files that tell where they were taken."""
    folder = scene.folder if scene.folder.is_dir() else scene.folder.parent
    parts = [scene.images, scene.masks, None if scene.depths is None else scene.depths.images]
    files = {Path(file) for part in parts if part is not None for file in part.files if file is not None}
    if scene.folder.is_file():
        files.add(scene.folder)
    files |= {file for pattern in DESCRIPTIONS for file in folder.rglob(pattern) if file.is_file()}
    return content_hash(files, folder)
