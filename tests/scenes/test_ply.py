"""Vertices of PLY files."""

import numpy as np
import pytest
from sample_transforms import write_ply

from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.ply import read_ply

POINTS = np.random.default_rng(0).normal(size=(9, 3))
COLORS = np.random.default_rng(1).integers(0, 256, (9, 3))
LAYOUTS = ("ascii", "binary_little_endian", "binary_big_endian")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [0, 1, 9])
def test_positions_and_colors_survive_in_every_layout(tmp_path, layout, n):
    write_ply(tmp_path / "a.ply", POINTS[:n], COLORS[:n], layout)
    positions, colors = read_ply(tmp_path / "a.ply")
    assert positions.shape == (n, 3)
    assert np.array_equal(positions, POINTS[:n].astype(np.float32))
    assert np.array_equal(colors, COLORS[:n])


def test_elements_before_and_after_the_vertices_are_passed_over(tmp_path):
    text = (
        "ply\r\nformat ascii 1.0\r\nelement camera 2\r\nproperty float a\r\n"
        "element vertex 2\r\nproperty double x\r\nproperty double y\r\n"
        "property double z\r\nproperty float nx\r\nelement face 1\r\nproperty list uchar int vertex_indices\r\nend_header\r\n"
        "7\r\n8\r\n1 2 3 0\r\n4 5 6 0\r\n3 0 1 1\r\n"
    )
    (tmp_path / "a.ply").write_bytes(text.encode())
    positions, colors = read_ply(tmp_path / "a.ply")
    assert positions.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert colors is None


HEADER = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
BROKEN = {
    "empty": ("", "no PLY"),
    "another format": ("obj\n", "no PLY"),
    "no end": (HEADER.replace("end_header", "") + "1 2 3\n", "no end_header"),
    "unknown layout": (HEADER.replace("ascii", "zipped") + "1 2 3\n", "format: expected ascii"),
    "count negative": (HEADER.replace("vertex 1", "vertex -1") + "1 2 3\n", "expected a name and a count"),
    "count of 10^11": (HEADER.replace("vertex 1", "vertex 99999999999") + "1 2 3\n", "more than the file holds"),
    "count of 10^11 in binary": (
        HEADER.replace("vertex 1", "vertex 99999999999").replace("ascii", "binary_little_endian"),
        "more than",
    ),
    "count of 5000 digits": (HEADER.replace("vertex 1", "vertex " + "9" * 5000) + "1 2 3\n", "expected a name and a count"),
    "no z": (HEADER.replace("property float z\n", "") + "1 2\n", "have no z"),
    "two x": (HEADER.replace("float y", "float x") + "1 2 3\n", "names of their own"),
    "a list": (HEADER.replace("float z", "list uchar int z") + "1 2 1 3\n", "no lists"),
    "unknown type": (HEADER.replace("float z", "quad z") + "1 2 3\n", "expected a type and a name"),
    "words": (HEADER + "one two three\n", "expected 3 numbers a line"),
    "short line": (HEADER + "1 2\n", "expected 3 numbers a line"),
    "nan": (HEADER + "1 2 nan\n", "not finite"),
    "huge": (HEADER + "1 2 1e300\n", "absurdly large"),
    "no vertices": (HEADER.replace("vertex", "corner") + "1 2 3\n", "has no vertices"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line(tmp_path, name):
    text, message = BROKEN[name]
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(SceneError, match=message) as caught:
        read_ply(tmp_path / "a.ply")
    assert "\n" not in str(caught.value)


def test_colors_may_be_fractions(tmp_path):
    colored = HEADER.replace("end_header", "property float red\nproperty float green\nproperty float blue\nend_header")
    (tmp_path / "a.ply").write_text(colored.replace("vertex 1", "vertex 2") + "1 2 3 0 0.2 1\n1 2 3 1 0.6 0\n")
    assert read_ply(tmp_path / "a.ply")[1].tolist() == [[0, 51, 255], [255, 153, 0]]
    (tmp_path / "a.ply").write_text(colored + "1 2 3 0 51 255\n")
    assert read_ply(tmp_path / "a.ply")[1].tolist() == [[0, 51, 255]]


def test_truncated_binary_is_one_line(tmp_path):
    write_ply(tmp_path / "a.ply", POINTS, COLORS, "binary_little_endian")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data[:-1])
    with pytest.raises(SceneError, match="more than the file holds"):
        read_ply(tmp_path / "a.ply")
