"""A small scene of the form of NSVF."""

from pathlib import Path

import numpy as np

from opengl_views import ring, write_picture

FOCAL, CENTER = 20.0, (6.5, 4.25)
MATRIX = f"{FOCAL} 0 {CENTER[0]} 0\n0 {FOCAL} {CENTER[1]} 0\n0 0 1 0\n0 0 0 1\n"


def make(
    folder: Path, names=("0_train_0", "0_train_1", "0_train_2", "1_val_0", "2_test_0", "2_test_1"), intrinsics=MATRIX
) -> list:
    """Writes the scene; OpenGL poses come back, in the order of the names. NSVF's own have y down and z forward."""
    poses = ring(len(names))
    (folder / "pose").mkdir(parents=True)
    for i, (name, matrix) in enumerate(zip(names, poses, strict=True)):
        write_picture(folder / f"rgb/{name}.png", seed=i)
        np.savetxt(folder / f"pose/{name}.txt", matrix @ np.diag([1, -1, -1, 1]))
    (folder / "intrinsics.txt").write_text(intrinsics)
    (folder / "bbox.txt").write_text("-1 -1.5 -0.5 1 1.5 0.75 0.2\n")
    return poses
