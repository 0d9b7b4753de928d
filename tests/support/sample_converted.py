"""A small scene as `scene convert` writes it: views that face one way, and where the scene is under our own key."""

import tempfile
from pathlib import Path

import sample_llff

from taichi_nerf.scenes import read_source
from taichi_nerf.scenes.write import write_transforms


def make(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as original:
        sample_llff.make(Path(original))
        write_transforms(read_source(Path(original)), folder)
