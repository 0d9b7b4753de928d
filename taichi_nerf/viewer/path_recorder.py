"""A camera path from a few cameras that somebody chose: a smooth curve through them, in a file that `render --path` reads."""

from pathlib import Path

import numpy as np

from taichi_nerf import trajectories
from taichi_nerf.camera_path import write_camera_path
from taichi_nerf.cameras import Array, Cameras, concatenate
from taichi_nerf.viewer.eye import Eye


class PathRecorder:
    """Cameras that were chosen, in their order. All frames have the shape of the first."""

    def __init__(self) -> None:
        self.eyes: list[Eye] = []

    def cameras(self, seconds: float, fps: float, height: int, closed: bool) -> Cameras:
        """The frames: even speed through every chosen camera, `seconds` from each to the next."""
        if not self.eyes:
            raise ValueError("a camera path needs at least one camera: add the one that you look through")
        even = height - height % 2
        width = round(even * self.eyes[0].aspect / 2) * 2
        chosen = trajectories.framed(concatenate([eye.camera(even) for eye in self.eyes]), width, even)
        n_stretches = len(self.eyes) - 1 + (closed and len(self.eyes) > 1)
        n_frames = max(1, round(n_stretches * seconds * fps) + (not closed))
        return trajectories.interpolate(chosen, n_frames, closed=closed and len(self.eyes) > 1)

    def way(self, closed: bool) -> Array:
        """[n, 3] points of the curve, to be drawn."""
        if len(self.eyes) < 2:
            return np.zeros((0, 3))
        return self.cameras(1.0, 20.0, 2, closed).centers

    def save(self, folder: Path, seconds: float, fps: float, height: int, closed: bool) -> Path:
        """Write the next free camera_path_N.json."""
        cameras = self.cameras(seconds, fps, height, closed)
        file = next_free(folder, "camera_path", ".json")
        folder.mkdir(parents=True, exist_ok=True)
        write_camera_path(file, cameras, fps)
        return file


def next_free(folder: Path, stem: str, suffix: str) -> Path:
    """stem_1, stem_2, …: the first that is not there."""
    number = 1
    while (folder / f"{stem}_{number}{suffix}").exists():
        number += 1
    return folder / f"{stem}_{number}{suffix}"
