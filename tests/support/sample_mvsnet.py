"""A small scene of the form of MVSNet and BlendedMVS."""

from pathlib import Path

import numpy as np

from opengl_views import ring, write_picture

SIZE = (24, 16)
K = np.array([[40.0, 0, 12.3], [0, 38, 7.8], [0, 0, 1]])


def make(folder: Path, n=5, factor=1.0, depths="2.0 0.02 256 7.1", images="images", depth_maps=True) -> list:
    """Writes the scene, with K for pictures `factor` times as large; OpenGL poses come back."""
    poses = ring(n)
    (folder / "cams").mkdir(parents=True)
    for i, matrix in enumerate(poses):
        write_picture(folder / f"{images}/{i:08d}.jpg", *SIZE, 3, seed=i)
        (folder / f"cams/{i:08d}_cam.txt").write_text(camera_text(matrix, factor, depths))
        if depth_maps:
            write_pfm(folder / f"rendered_depth_maps/{i:08d}.pfm", np.full(SIZE[::-1], 3 + i / 10))
    (folder / "pair.txt").write_text(f"{n}\n0\n2 1 100.0 2 90.0\n")
    return poses


def camera_text(matrix, factor, depths) -> str:
    extrinsic = np.linalg.inv(matrix @ np.diag([1, -1, -1, 1]))
    rows = "\n".join(" ".join(map(repr, map(float, row))) for row in extrinsic)
    intrinsic = "\n".join(" ".join(map(repr, map(float, row))) for row in np.diag([factor, factor, 1]) @ K)
    return f"extrinsic\n{rows}\n\nintrinsic\n{intrinsic}\n\n{depths}\n"


def write_pfm(file: Path, values) -> None:
    """Portable float map: rows from the bottom up, little endian."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = f"Pf\n{values.shape[1]} {values.shape[0]}\n-1.0\n".encode()
    file.write_bytes(header + values[::-1].astype("<f4").tobytes())
