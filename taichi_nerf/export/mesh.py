"""A surface from a radiance field: where its density reaches a threshold, colored as seen from outside. And its files.

mesh = extract_mesh(field.density, field.color, box, resolution=256)
save_mesh(mesh, Path("mesh.ply"))
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.export.colors import to_bytes
from taichi_nerf.export.files import expect_suffix, whole_stream, write_whole
from taichi_nerf.export.marching import Density, ask, grid_over, march, place
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.scene_data import Similarity

Array = NDArray[Any]
Color = Callable[[Tensor, Tensor], Tensor]  # positions [n, 3] and viewing directions [n, 3] to colors [n, 3], 0 to 1
SUFFIXES = (".ply", ".obj", ".glb")
N_PROBES = 64  # along the longest side, to choose a threshold
AT_ONCE = 2**18  # faces or vertices: a mesh of 1024 nodes along its box has ten million of each
SKIN = 1 / 128  # of the longest side: what is no thicker is a surface


def extract_mesh(
    density: Density,
    color: Color,
    box: Tensor,  # [2, 3] on the device and in the precision that density and color take
    resolution: int = 256,
    threshold: float | None = None,
    *,
    n_refinements: int = 6,
    smallest_part: float = 0.01,
    to_source: Similarity | None = None,
    chunk: int = 2**18,
    report: Report = silent,
) -> trimesh.Trimesh:
    """The closed surface around what is denser than `threshold` inside of `box`.

    `resolution` counts the nodes along the longest side. `threshold` left out is `choose_threshold`'s. Each vertex lies on an
    edge of the grid, where density interpolated along it is the threshold; `n_refinements` halve the piece of the edge that
    holds the crossing, by the density itself. Parts with less than `smallest_part` of the largest part's area are left out: 0
    keeps all, 1 only the largest. `to_source`, `scene.scene_from_source.inverse()`, brings the mesh to the file's coordinates.
    No more than `chunk` positions are asked for at a time.
    """
    if resolution < 2:
        raise ValueError(f"resolution: expected at least 2 nodes along the longest side, got {resolution}")
    if box.shape != (2, 3) or not bool((box[1] > box[0]).all()):
        raise ValueError(f"box: expected [2, 3], its low and its high corner, got {box.tolist()}")
    level = choose_threshold(density, box, chunk) if threshold is None else threshold
    if not 0 < level < math.inf:
        raise ValueError(f"threshold: expected a positive density, got {level}")
    grid = grid_over(box.cpu().numpy().astype(np.float64), resolution)
    corners, largest = march(density, grid, level, box, chunk, report)
    if not len(corners.faces):
        nodes = " x ".join(map(str, grid.shape))
        raise ValueError(f"threshold: {level:.4g} is never reached: at {nodes} nodes density is at most {largest:.4g}")
    report(1.0, f"where its {len(corners.nodes):,} corners lie")
    vertices, faces = place(corners, grid, level, density, box, n_refinements, chunk), corners.faces
    del corners  # their places in the grid take as much memory as the mesh
    report(1.0, "its parts")
    vertices, faces = keep_parts(vertices, faces, smallest_part)
    report(1.0, f"colors of its {len(vertices):,} corners")
    colors = _colors(color, vertices, outward(vertices, faces), box, chunk)
    if to_source is not None:
        vertices = to_source(vertices)
    return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


def choose_threshold(density: Density, box: Tensor, chunk: int = 2**18) -> float:
    """ln 2 / skin: the density of which a skin of 1/128 of the longest side hides half of what is behind it (α = 0.5), whatever
    the resolution of the mesh. A field too thin for that gets half of its mean density weighted by density, Σσ² / 2Σσ, about half
    way between its matter and nothing. Asked for are the middles of cells, 64 along the longest side.
    """
    size = (box[1] - box[0]).double().cpu()
    n = (size / size.max() * N_PROBES).ceil().long().clamp_min(1).tolist()
    axes = [box[0, i] + (torch.arange(n[i]).to(box) + 0.5) / n[i] * (box[1, i] - box[0, i]) for i in range(3)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    found = ask(density, points, chunk).double().clamp_min(0)
    opaque = math.log(2) / (SKIN * float(size.max()))
    total = float(found.sum())
    return min(opaque, float((found * found).sum()) / total / 2) if total > 0 else opaque


def keep_parts(vertices: Array, faces: Array, smallest_part: float) -> tuple[Array, Array]:
    """The connected parts whose area is at least that fraction of the largest part's, without the vertices of the others."""
    if not 0 <= smallest_part <= 1:
        raise ValueError(f"smallest_part: expected a fraction of the largest part's area, 0 to 1, got {smallest_part}")
    part = trimesh.graph.connected_component_labels(faces[:, [0, 1, 1, 2]].reshape(-1, 2), len(vertices))
    areas = np.zeros(part.max() + 1)
    for some, crosses in _crosses(vertices, faces):
        np.add.at(areas, part[some[:, 0]], np.linalg.norm(crosses, axis=-1))
    kept = faces[(areas >= smallest_part * areas.max())[part[faces[:, 0]]]]
    used = np.zeros(len(vertices), bool)
    used[kept] = True
    return vertices[used], (np.cumsum(used) - 1)[kept]


def outward(vertices: Array, faces: Array) -> Array:
    """[n, 3] unit normals of vertices: the mean of their faces' by area."""
    total = np.zeros((3, len(vertices)))
    for some, crosses in _crosses(vertices, faces):
        for axis in range(3):
            for corner in range(3):
                np.add.at(total[axis], some[:, corner], crosses[:, axis])
    total /= np.maximum(np.linalg.norm(total, axis=0), 1e-300)
    return total.T


def _crosses(vertices: Array, faces: Array) -> Iterator[tuple[Array, Array]]:
    """Some faces [m, 3] after the other, and [m, 3] along their normals, twice as long as their area."""
    for first in range(0, len(faces), AT_ONCE):
        some = faces[first : first + AT_ONCE]
        a, b, c = (vertices[some[:, i]] for i in range(3))
        yield some, np.cross(b - a, c - a)


def _colors(color: Color, vertices: Array, normals: Array, box: Tensor, chunk: int) -> Array:
    """[n, 3] bytes: what a ray sees that comes from outside along the normal."""
    found = np.empty((len(vertices), 3), np.uint8)
    for first in range(0, len(vertices), chunk):
        part = slice(first, first + chunk)
        with torch.no_grad():
            seen = color(torch.from_numpy(vertices[part]).to(box), torch.from_numpy(-normals[part]).to(box))
        if seen.shape != found[part].shape:
            raise ValueError(f"color: expected shape {list(found[part].shape)}, got {list(seen.shape)}")
        found[part] = to_bytes(seen)
    return found


def save_mesh(mesh: trimesh.Trimesh, path: Path | str, gltf_from_source: Array | None = None) -> None:
    """A binary .ply, an .obj (colors behind each vertex's coordinates) or a .glb, whole or not at all.

    `gltf_from_source` [3, 3] turns a .glb alone: in glTF y is up.
    """
    path = Path(path)
    suffix = expect_suffix(path, SUFFIXES)
    if suffix == ".glb" and gltf_from_source is not None:
        turned = mesh.vertices @ gltf_from_source.T
        mesh = trimesh.Trimesh(turned, mesh.faces, vertex_colors=mesh.visual.vertex_colors, process=False)
    if suffix == ".obj":
        _write_obj(mesh, path)
    else:
        options = {".ply": {"vertex_normal": False}, ".glb": {"include_normals": False}}
        write_whole(path, mesh.export(file_type=suffix[1:], **options[suffix]))


def _write_obj(mesh: trimesh.Trimesh, path: Path) -> None:
    """Line by line: trimesh makes one text of it all, in three times the time, and of tiny units leaves no digits."""
    vertices, colors = np.asarray(mesh.vertices), mesh.visual.vertex_colors[:, :3] / 255
    with whole_stream(path) as stream:
        for line, rows in (("v %.10g %.10g %.10g %.4g %.4g %.4g\n", (vertices, colors)), ("f %d %d %d\n", (mesh.faces + 1,))):
            for first in range(0, len(rows[0]), AT_ONCE):
                some = np.concatenate([part[first : first + AT_ONCE] for part in rows], 1)
                stream.write((line * len(some) % tuple(some.ravel().tolist())).encode())
