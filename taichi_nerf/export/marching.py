"""Marching cubes over a density that is asked slab by slab, so a grid of 512³ nodes never lies in memory.

The cubes are those of Lorensen & Cline, "Marching Cubes: A High Resolution 3D Surface Construction Algorithm", 1987, without
ambiguities, as Lewiner et al., "Efficient Implementation of Marching Cubes' Cases with Topological Guarantees", 2003.
scikit-image has them; from it come the triangles, and on which edge of the grid each corner lies. Where on the edge is decided
here: at the threshold exactly, however far the densities of its two ends lie apart.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import skimage.measure
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.report import Report

Array = NDArray[Any]
Density = Callable[[Tensor], Tensor]  # positions [n, 3] to densities [n]

SLAB = 2**21  # nodes held at a time
INNER, NODE = 3, 4  # kinds of vertices beside 0, 1, 2, which lie on an edge along x, y, z
CLEAR = 1 / 64  # of the way along an edge that corners keep off its ends, while scikit-image places them


class Grid(NamedTuple):
    """Nodes over a box, its faces included."""

    low: Array  # [3]
    spacing: Array  # [3]
    shape: tuple[int, int, int]  # nodes along x, y, z

    @property
    def padded(self) -> tuple[int, int, int]:
        """With a layer of empty nodes all around, which closes the surface at the box."""
        x, y, z = self.shape
        return x + 2, y + 2, z + 2

    def positions(self, nodes: Array) -> Array:
        """[n, 3] of nodes counted in the padded grid; those of its outer layer are brought to the box."""
        return self.low + np.clip(nodes - 1, 0, np.array(self.shape) - 1) * self.spacing


class Corners(NamedTuple):
    """Vertices of a surface, by where they lie in the padded grid, and its triangles."""

    nodes: Array  # [n, 3] int64; the lower end of the edge, the lowest node of the cube, or the node itself
    kinds: Array  # [n] int64: 0, 1, 2 (on an edge along that axis), INNER (in the cube), NODE
    densities: Array  # [n, 2] at both ends of the edge
    faces: Array  # [m, 3] int64, counter-clockwise as seen from where it is empty


def grid_over(box: Array, resolution: int) -> Grid:  # [2, 3]
    """`resolution` nodes along the longest side, the others in proportion."""
    size = box[1] - box[0]
    n = np.maximum(2, np.rint(size / size.max() * (resolution - 1)).astype(int) + 1)
    return Grid(box[0], size / (n - 1), (int(n[0]), int(n[1]), int(n[2])))


def march(density: Density, grid: Grid, threshold: float, box: Tensor, chunk: int, report: Report) -> tuple[Corners, float]:
    """The corners and triangles of the surface where density is `threshold`, and the largest density at any node."""
    n_planes = max(2, SLAB // (grid.padded[1] * grid.padded[2]))
    keys, densities, faces = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.float32)], [np.zeros((0, 3), np.int64)]
    n_corners, largest = 0, 0.0
    plane = np.zeros((1, *grid.padded[1:]), np.float32)
    for first in range(0, grid.padded[0] - 1, n_planes):
        last = min(first + n_planes, grid.padded[0] - 1)
        slab = np.concatenate([plane, _planes(density, grid, first + 1, last + 1, box, chunk)])
        plane = slab[-1:].copy()
        largest = max(largest, float(slab.max()))
        if (slab >= threshold).any():
            found, values, triangles = _march_slab(slab, first, grid, threshold)
            keys.append(found)
            densities.append(values)
            faces.append(triangles + n_corners)
            n_corners += len(found)
        report(last / (grid.padded[0] - 1), f"surface, layer {last} of {grid.padded[0] - 1}")
    unique, chosen, number = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    triangles = number.reshape(-1)[np.concatenate(faces)]
    a, b, c = triangles.T
    whole = triangles[(a != b) & (b != c) & (c != a)]  # where the surface was brought to the box, some shrink to a line
    nodes = np.stack(np.unravel_index(unique // 8, grid.padded), -1)
    return Corners(nodes, unique % 8, np.concatenate(densities)[chosen], whole), largest


def _planes(density: Density, grid: Grid, first: int, last: int, box: Tensor, chunk: int) -> Array:
    """[last - first, ny + 2, nz + 2] densities of planes counted in the padded grid, whose outer layer is empty."""
    planes = np.zeros((last - first, *grid.padded[1:]), np.float32)
    inside = range(max(first, 1), min(last, grid.padded[0] - 1))
    if inside:
        starts, counts = (inside[0] - 1, 0, 0), (len(inside), *grid.shape[1:])
        axes = (grid.low[i] + (starts[i] + np.arange(counts[i])) * grid.spacing[i] for i in range(3))
        points = torch.stack(torch.meshgrid(*(torch.from_numpy(axis).to(box) for axis in axes), indexing="ij"), -1)
        found = ask(density, points.view(-1, 3), chunk).view(counts)
        planes[inside[0] - first : inside[-1] + 1 - first, 1:-1, 1:-1] = found.cpu().numpy()
    return planes


def ask(density: Density, points: Tensor, chunk: int) -> Tensor:  # [n, 3]
    """[n] finite densities, no more than `chunk` at a time."""
    with torch.no_grad():
        found = torch.cat([density(part) for part in points.split(chunk)]).float()
    if found.shape != points.shape[:1]:
        raise ValueError(f"density: expected one value for each of {len(points)} positions, got shape {list(found.shape)}")
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"density: is not finite at {int((~torch.isfinite(found)).sum())} of {len(points)} positions")
    return found


def _march_slab(slab: Array, first: int, grid: Grid, threshold: float) -> tuple[Array, Array, Array]:
    """Keys [n], densities at the ends [n, 2], and faces [m, 3] of the cubes between the planes of a slab that starts at `first`.

    A key is 8 · (number of the node in the padded grid) + kind, so that slabs agree on the corners they share.
    """
    signed = slab / np.float32(threshold) - 1
    signed /= 1 + np.abs(signed)  # so that densities of any size are told apart, and a corner's place on its edge is clear
    signed = np.where(slab >= threshold, np.maximum(signed, CLEAR), np.minimum(signed, -CLEAR))
    signed *= 1 + _ripples(signed.shape, first)  # cubes of equal densities would be ambiguous again
    at, faces, _, _ = skimage.measure.marching_cubes(signed, 0.0, gradient_direction="ascent")
    between = np.abs(at - np.rint(at)) > CLEAR / 32
    inner = between.sum(1) > 1
    axis = between.argmax(1)
    start = np.where(between, np.floor(at), np.rint(at)).astype(np.int64)
    step = np.eye(3, dtype=np.int64)[axis]
    end = start + np.where(inner[:, None], 0, step)
    values = np.stack([slab[tuple(start.T)], slab[tuple(end.T)]], -1)
    start[:, 0] += first
    end[:, 0] += first
    most = np.array(grid.padded) - 1
    outside = [((node == 0) | (node == most)).any(-1) & ~inner for node in (start, end)]
    kind = np.where(inner, INNER, np.where(outside[0] | outside[1], NODE, axis))
    nodes = np.where(outside[0][:, None], end, start)
    return np.ravel_multi_index(tuple(nodes.T), grid.padded) * 8 + kind, values, faces.astype(np.int64)


def _ripples(shape: tuple[int, ...], first: int) -> Array:
    """Numbers below 1 %, one for each node of the padded grid, and no two faces of cubes alike."""
    counted = (np.arange(n) + start for n, start in zip(shape, (first, 0, 0), strict=True))
    x, y, z = (np.sin(1.7 * at**2 + axis) for axis, at in enumerate(counted))
    return (0.01 * x[:, None, None] * y[:, None] * z).astype(np.float32)


def place(corners: Corners, grid: Grid, threshold: float, density: Density, box: Tensor, n_refinements: int, chunk: int) -> Array:
    """[n, 3] where the corners are: on their edges at the threshold, by the densities at both ends and, halving the edge
    `n_refinements` times, by the density itself."""
    starts = grid.positions(corners.nodes)
    on_edge = np.flatnonzero(corners.kinds < INNER)
    step = np.eye(3)[corners.kinds[on_edge]] * grid.spacing
    low, high = np.zeros(len(on_edge)), np.ones(len(on_edge))
    at_low, at_high = corners.densities[on_edge].astype(np.float64).T
    for _ in range(n_refinements):
        middle = (low + high) / 2
        points = torch.from_numpy(starts[on_edge] + middle[:, None] * step).to(box)
        found = ask(density, points, chunk).cpu().numpy()
        as_low = (found >= threshold) == (at_low >= threshold)
        low, at_low = np.where(as_low, middle, low), np.where(as_low, found, at_low)
        high, at_high = np.where(as_low, high, middle), np.where(as_low, at_high, found)
    along = low + (high - low) * (threshold - at_low) / (at_high - at_low)
    positions = starts.copy()
    positions[on_edge] += along[:, None] * step
    _center_inner(positions, corners)
    return positions


def _center_inner(positions: Array, corners: Corners) -> None:
    """A corner inside of a cube goes to the mean of those around it."""
    inner = corners.kinds == INNER
    faces = corners.faces[inner[corners.faces].any(1)]
    pairs = np.concatenate([faces[:, [i, j]] for i in range(3) for j in range(3) if i != j])
    pairs = pairs[inner[pairs[:, 0]] & ~inner[pairs[:, 1]]]
    around = np.bincount(pairs[:, 0], minlength=len(positions))
    for i in range(3):
        total = np.bincount(pairs[:, 0], positions[pairs[:, 1], i], len(positions))
        positions[inner, i] = total[inner] / around[inner]
