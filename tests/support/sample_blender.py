"""A small scene of the form of NeRF-synthetic."""

import json
from pathlib import Path

from opengl_views import ring, write_picture

ANGLE = 0.7
COUNTS = {"train": 6, "val": 2, "test": 3}


def make(folder: Path, width=12, height=8, extension=".png", times=False, channels=4) -> dict[str, list]:
    """Writes the scene; the poses of each split come back."""
    poses = {}
    for k, (split, n) in enumerate(COUNTS.items()):
        poses[split] = ring(n, 4.0 + 0.01 * k)
        frames = [
            {"file_path": f"./{split}/r_{i}", "rotation": 0.1, "transform_matrix": matrix.tolist()}
            for i, matrix in enumerate(poses[split])
        ]
        for i, frame in enumerate(frames):
            write_picture(folder / split / f"r_{i}{extension}", width, height, channels, seed=10 * k + i)
            if times:
                frame["time"] = i / (n - 1)
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": ANGLE, "frames": frames}))
    return poses
