"""A small scene of the form of mip-NeRF's multiscale renderings."""

import json
from pathlib import Path

from opengl_views import ring, write_picture

SIZE, FOCAL, LEVELS = (16, 8), 20.0, 3


def make(folder: Path) -> dict[str, dict]:
    """Writes the scene; the tables come back."""
    tables = {}
    for split, n in (("train", 3), ("val", 1), ("test", 2)):
        names = ("file_path", "cam2world", "width", "height", "focal", "label", "near", "far", "lossmult", "pix2cam")
        table = {name: [] for name in names}
        for i, matrix in enumerate(ring(n)):
            for level in range(LEVELS):
                w, h, f = SIZE[0] >> level, SIZE[1] >> level, FOCAL / 2**level
                path = f"images_{split}/{i:03d}_d{level}.png"
                write_picture(folder / path, w, h)
                inverse = [[1 / f, 0, -w / 2 / f], [0, -1 / f, h / 2 / f], [0, 0, -1.0]]
                row = (path, matrix.tolist(), w, h, f, level, 2.0, 6.0, 4.0**level, inverse)
                for name, value in zip(names, row, strict=True):
                    table[name].append(value)
        tables[split] = table
    (folder / "metadata.json").write_text(json.dumps(tables))
    return tables
