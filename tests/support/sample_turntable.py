"""A small set of objects on a turntable."""

from pathlib import Path

from opengl_views import write_picture


def make(folder: Path, n_views: int = 9, objects=("obj1", "obj2")) -> None:
    for index, name in enumerate(objects):
        for view in range(n_views):
            write_picture(folder / f"{name}__{view}.png", seed=10 * index + view)
