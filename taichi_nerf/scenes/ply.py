"""Vertices of PLY files, read and written: positions and, where there are some, colors. Faces and all else are passed over.

A header of text lines opens the file: `ply`, `format ascii|binary_little_endian|binary_big_endian 1.0`, then for each kind of
element `element <name> <count>` and its `property <type> <name>`, or `property list <count type> <type> <name>`, and
`end_header`. Rows follow in that order. Vertices come first in all files in use; elements before them are read over where their
rows have one length.
"""

import re
from pathlib import Path

import numpy as np

from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import LARGEST_NUMBER, read_bytes
from taichi_nerf.scenes.source import Array

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
LARGEST_HEADER = 2**16  # bytes


class _Element:
    def __init__(self, name: str, count: int):
        self.name, self.count = name, count
        self.properties: list[tuple[str, str]] = []  # name, NumPy type; "" for a list


def read_ply(file: Path) -> tuple[Array, Array | None]:
    """Positions [n, 3] float64 and colors [n, 3] uint8, or None where the file has none."""
    data = read_bytes(file)
    layout, elements, start = _header(data, file)
    vertices = _ascii(data[start:], elements, file) if layout == "ascii" else _binary(data, start, elements, layout, file)
    missing = [name for name in "xyz" if name not in vertices]
    if missing:
        raise SceneError(file, f"its vertices have no {missing[0]}", "vertex")
    positions = np.stack([vertices[name] for name in "xyz"], -1).astype(np.float64)
    good = np.isfinite(positions).all(-1) & (np.abs(positions) <= LARGEST_NUMBER).all(-1)
    if not good.all():
        raise SceneError(file, f"{int((~good).sum())} vertices are not finite, or absurdly large", "vertex")
    return positions, _colors(vertices)


def ply_bytes(positions: Array, colors: Array) -> bytes:
    """A binary file of points [n, 3], in the precision they have (float32 or float64), with colors [n, 3] uint8."""
    kind, name = ("<f4", "float") if positions.dtype == np.float32 else ("<f8", "double")
    properties = [(axis, kind, name) for axis in "xyz"] + [(color, "u1", "uchar") for color in ("red", "green", "blue")]
    rows = np.zeros(len(positions), [(axis, kind) for axis, kind, _ in properties])
    for (axis, _, _), values in zip(properties, [*positions.T, *colors.T], strict=True):
        rows[axis] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {name} {axis}" for axis, _, name in properties]
    return "\n".join([*header, "end_header\n"]).encode() + rows.tobytes()


def _header(data: bytes, file: Path) -> tuple[str, list[_Element], int]:
    """The format, the elements, and where the rows begin."""
    if data[:3] != b"ply":
        raise SceneError(file, "is no PLY file")
    end = re.search(rb"end_header[ \t]*(\r\n|\n|\r)", data[:LARGEST_HEADER])
    if end is None:
        raise SceneError(file, "its header has no end_header")
    layout, elements = "", []
    for line in data[: end.start()].decode("ascii", "replace").splitlines()[1:]:
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            layout = words[1]
        elif words[:1] == ["element"]:
            if len(words) != 3 or not words[2].isascii() or not words[2].isdigit() or len(words[2]) > 12:
                raise SceneError(file, f"expected a name and a count, got {line[:60]!r}", "header")
            elements.append(_Element(words[1], int(words[2])))
        elif words[:1] == ["property"] and elements:
            elements[-1].properties.append(_property(words, file))
    if layout not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise SceneError(file, f"expected ascii, binary_little_endian or binary_big_endian, got {layout[:40]!r}", "format")
    if not any(element.name == "vertex" for element in elements):
        raise SceneError(file, "has no vertices", "element")
    return layout, elements, end.end()


def _property(words: list[str], file: Path) -> tuple[str, str]:
    if len(words) == 5 and words[1] == "list":
        return words[4], ""
    if len(words) != 3 or words[1] not in TYPES:
        raise SceneError(file, f"expected a type and a name, got {' '.join(words)[:60]!r}", "property")
    return words[2], TYPES[words[1]]


def _columns(element: _Element, file: Path) -> list[tuple[str, str]]:
    """Names and types of rows that all have one length."""
    names = [name for name, _ in element.properties]
    if not names or len(set(names)) < len(names) or any(not kind for _, kind in element.properties):
        raise SceneError(file, "expected properties with names of their own and no lists", element.name)
    return element.properties


def _binary(data: bytes, start: int, elements: list[_Element], layout: str, file: Path) -> dict[str, Array]:
    order = "<" if layout == "binary_little_endian" else ">"
    for element in elements:
        row = np.dtype([(name, order + kind) for name, kind in _columns(element, file)])
        if start + element.count * row.itemsize > len(data):
            raise SceneError(file, f"states {element.count} of them, more than the file holds", element.name)
        if element.name == "vertex":
            rows = np.frombuffer(data, row, element.count, start)
            return {name: rows[name] for name, _ in element.properties}
        start += element.count * row.itemsize
    raise AssertionError("the header was seen to have vertices")


def _ascii(text: bytes, elements: list[_Element], file: Path) -> dict[str, Array]:
    lines = text.splitlines()
    start = 0
    for element in elements:
        if start + element.count > len(lines):
            raise SceneError(file, f"states {element.count} of them, more than the file holds", element.name)
        if element.name == "vertex":
            names = [name for name, _ in _columns(element, file)]
            try:
                rows = np.array([line.split() for line in lines[start : start + element.count]], np.float64)
            except ValueError:
                raise SceneError(file, f"expected {len(names)} numbers a line", "vertex") from None
            if rows.size and rows.shape[1:] != (len(names),):
                raise SceneError(file, f"expected {len(names)} numbers a line", "vertex")
            return dict(zip(names, rows.reshape(-1, len(names)).T, strict=True))
        start += element.count
    raise AssertionError("the header was seen to have vertices")


def _colors(vertices: dict[str, Array]) -> Array | None:
    """red, green, blue: bytes, or floats from 0 to 1."""
    for names in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        if all(name in vertices for name in names):
            found = np.stack([vertices[name] for name in names], -1)
            fractions = found.dtype.kind == "f" and found.size and found.max() <= 1 and (found != np.rint(found)).any()
            with np.errstate(invalid="ignore"):
                return np.nan_to_num(np.clip(np.rint(found * (255.0 if fractions else 1)), 0, 255)).astype(np.uint8)
    return None
