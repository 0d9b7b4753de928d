"""A small capture of the form of instant-ngp and nerfstudio, with everything a frame may have."""

import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from opengl_views import POINTS, ring, write_picture

LENS = {"fl_x": 15.0, "fl_y": 14.0, "cx": 6.3, "cy": 3.8, "w": 12, "h": 8, "k1": 0.05, "k2": -0.02, "p1": 0.001, "p2": -0.002}


def make(folder: Path, n=5, lens=LENS, size=(12, 8), channels=3, **fields) -> list:
    """Writes the scene; the poses come back. `fields` are added to the file, after those it has by default."""
    poses = ring(n)
    frames = []
    for i, matrix in enumerate(poses):
        write_picture(folder / f"images/{i:03d}.png", *size, channels, seed=i)
        write_picture(folder / f"masks/{i:03d}.png", *size, 1, seed=i)
        (folder / "depths").mkdir(exist_ok=True)
        imageio.imwrite(folder / f"depths/{i:03d}.png", np.full(size[::-1], 3000 + i, np.uint16))
        frames.append(
            {
                "file_path": f"images/{i:03d}.png",
                "transform_matrix": matrix.tolist(),
                "mask_path": f"masks/{i:03d}.png",
                "depth_file_path": f"depths/{i:03d}.png",
            }
        )
    write_ply(folder / "sparse.ply", POINTS)
    data = {**lens, "camera_model": "OPENCV", "ply_file_path": "sparse.ply", "frames": frames, **fields}
    (folder / "transforms.json").write_text(json.dumps({name: value for name, value in data.items() if value is not None}))
    return poses


def write_ply(file: Path, points, colors=None, layout="ascii") -> None:
    """Vertices with colors."""
    colors = np.tile([[10, 20, 30]], (len(points), 1)) if colors is None else colors
    order = ">" if layout == "binary_big_endian" else "<"
    rows = np.zeros(
        len(points), [*((name, order + "f4") for name in "xyz"), *((name, "u1") for name in ("red", "green", "blue"))]
    )
    for i, name in enumerate(rows.dtype.names):
        rows[name] = points[:, i] if i < 3 else colors[:, i - 3]
    properties = "\n".join(
        ["property float x", "property float y", "property float z"] + [f"property uchar {c}" for c in rows.dtype.names[3:]]
    )
    header = f"ply\nformat {layout} 1.0\ncomment by a test\nelement vertex {len(points)}\n{properties}\nend_header\n"
    body = "\n".join(" ".join(str(v) for v in row) for row in rows.tolist()).encode() if layout == "ascii" else rows.tobytes()
    file.write_bytes(header.encode() + body)
