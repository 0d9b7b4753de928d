"""A camera path from a few cameras that somebody chose: a smooth curve through them, in a file that `render --path` reads."""

from pathlib import Path

import numpy as np

from taichi_nerf import trajectories
from taichi_nerf.camera_path import write_camera_path
from taichi_nerf.cameras import Array, Cameras, concatenate
from taichi_nerf.viewer.eye import Eye
from taichi_nerf.viewer.numbered_files import NumberedFiles


class PathRecorder:
    """Cameras that were chosen, in their order. All frames have the shape of the first."""

    def __init__(self) -> None:
        self.eyes: list[Eye] = []

    def cameras(self, seconds: float, fps: float, height: int, closed: bool) -> Cameras:
        """The frames: even speed through every chosen camera, `seconds` from each to the next."""
        eyes = list(self.eyes)  # whoever saves does not wait for whoever adds
        if not eyes:
            raise ValueError("a camera path needs at least one camera: add the one that you look through")
        even = height - height % 2
        width = round(even * eyes[0].aspect / 2) * 2
        chosen = trajectories.framed(concatenate([eye.camera(even) for eye in eyes]), width, even)
        closed = closed and len(eyes) > 1
        n_frames = max(1, round((len(eyes) - 1 + closed) * seconds * fps) + (not closed))
        return trajectories.interpolate(chosen, n_frames, closed=closed)

    def way(self, closed: bool) -> Array:
        """[n, 3] points of the curve, to be drawn."""
        if len(self.eyes) < 2:
            return np.zeros((0, 3))
        return self.cameras(1.0, 20.0, 2, closed).centers

    def save(self, files: NumberedFiles, seconds: float, fps: float, height: int, closed: bool) -> Path:
        """Write the next free camera_path_N.json."""
        cameras = self.cameras(seconds, fps, height, closed)
        return files.add("camera_path", ".json", lambda file: write_camera_path(file, cameras, fps))
