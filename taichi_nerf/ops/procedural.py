"""Ray tracing of procedural scenes: exact color, depth, normals and what was hit. See `kernels/procedural.py` for the arrays.

A launcher without gradients: it makes the ground truth that everything else is measured by, so there is nothing to learn in it
and no second implementation to compare it with. Its truths are closed forms, in tests/test_procedural.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from taichi_nerf.kernels import procedural
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, plain

FAR = 1e9  # of a ray that nothing bounds
LIFT = 1e-3  # rays to the lights start this far above the surface, so that it does not shade itself


class Solids(NamedTuple):
    """The arrays of a scene on the backend's device."""

    primitives: Tensor  # [n_primitives, 16]
    kinds: Tensor  # [n_primitives, 3] int32
    shapes: Tensor  # [n_shapes, 5]
    spans: Tensor  # [n_shapes, 3] int32
    materials: Tensor  # [n_materials, 16]
    lights: Tensor  # [n_lights, 7]
    surrounding: Tensor  # [4, 4]


class Hits(NamedTuple):
    """Where rays hit first. Depth is along the ray, inf where nothing is hit, and the shape is -1 there."""

    depth: Tensor  # [n_rays]
    shape: Tensor  # [n_rays] int32


class Seen(NamedTuple):
    """What rays see: color as displayed (the sky's where nothing is hit), what they hit, and its outward normal (or zeros)."""

    color: Tensor  # [n_rays, 3]
    depth: Tensor  # [n_rays] along the ray; inf where nothing is hit
    shape: Tensor  # [n_rays] int32; -1 where nothing is hit
    normals: Tensor  # [n_rays, 3]


def trace_rays(
    solids: Solids,
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3] unit
    far: Tensor | None = None,  # [n_rays] hits beyond it do not count
    *,
    near: float = 0.0,
    any_will_do: bool = False,
) -> Hits:
    """The first hit of every ray in (near, far); with `any_will_do` any one, which is enough for shadows."""
    _check_solids("trace_rays", solids)
    sizes = check(
        "trace_rays",
        origins=(origins, "n_rays 3"),
        directions=(directions, "n_rays 3"),
        far=(far, "n_rays"),
    )
    _require_single("trace_rays", origins)
    if far is None:
        far = origins.new_full((sizes["n_rays"],), FAR)
    depth = torch.empty_like(far)
    shape = torch.empty(sizes["n_rays"], dtype=torch.int32, device=origins.device)
    if sizes["n_rays"]:
        arrays = [plain(x) for x in (*solids[:4], origins, directions)]
        launch(procedural.trace_rays, *arrays, near, plain(far), int(any_will_do), depth, shape)
    return Hits(torch.where(shape >= 0, depth, torch.inf), shape)


def see(
    solids: Solids,
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3] unit
    footprints: Tensor,  # [n_rays] width of the pixel at distance one, over which patterns are averaged
) -> Seen:
    """Trace, shade and color rays."""
    hits = trace_rays(solids, origins, directions)
    check("see", origins=(origins, "n_rays 3"), footprints=(footprints, "n_rays"))
    color = torch.empty_like(origins)
    normals = torch.zeros_like(origins)
    if not len(origins):
        return Seen(color, hits.depth, hits.shape, normals)
    launch(procedural.paint_sky, solids.surrounding, plain(directions), color)
    index = (hits.shape >= 0).nonzero()[:, 0]
    if len(index):
        directions, depth = plain(directions[index]), hits.depth[index]
        points = plain(origins[index] + depth[:, None] * directions)
        shape, widths = plain(hits.shape[index]), plain(footprints[index] * depth)
        hit_color, hit_normals = _shaded(solids, points, directions, shape, widths)
        color[index], normals[index] = hit_color, hit_normals
    return Seen(color, hits.depth, hits.shape, normals)


def find_normals(
    solids: Solids,
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3] unit
    hits: Hits,
) -> Tensor:
    """Outward unit normals [n_rays, 3] where rays hit; zeros elsewhere. Exact, also where solids melt together."""
    _check_solids("find_normals", solids)
    check(
        "find_normals",
        origins=(origins, "n_rays 3"),
        directions=(directions, "n_rays 3"),
        depth=(hits.depth, "n_rays"),
        shape=(hits.shape, "n_rays", torch.int32),
    )
    _require_single("find_normals", origins)
    found = torch.zeros_like(origins)
    index = (hits.shape >= 0).nonzero()[:, 0]
    if len(index):
        directions, depth = plain(directions[index]), hits.depth[index]
        points = plain(origins[index] + depth[:, None] * directions)
        found[index] = _surface(solids, points, directions, plain(hits.shape[index]), torch.zeros_like(depth))[0]
    return found


def _surface(solids: Solids, points: Tensor, directions: Tensor, shape: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normals, colors and materials of points on the surface."""
    normals, albedo, material = torch.empty_like(points), torch.empty_like(points), torch.empty_like(shape)
    launch(procedural.find_normals, *solids[:5], points, directions, shape, widths, normals, albedo, material)
    return normals, albedo, material


def _shaded(solids: Solids, points: Tensor, directions: Tensor, shape: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
    color = torch.empty_like(points)
    normals, albedo, material = _surface(solids, points, directions, shape, widths)
    open_sky = torch.ones_like(widths)
    reach, strength = float(solids.surrounding[3, 1]), float(solids.surrounding[3, 2])
    if strength > 0:
        launch(procedural.find_occlusion, *solids[:4], points, normals, reach, strength, open_sky)
    visible = torch.stack([_sees_light(solids, points, normals, light) for light in solids.lights], -1)
    launch(
                procedural.shade, solids.materials, solids.lights, solids.surrounding,
        points, directions, normals, albedo, material, open_sky, visible.contiguous(), color,
    )  # fmt: skip
    return color, normals


def _sees_light(solids: Solids, points: Tensor, normals: Tensor, light: Tensor) -> Tensor:
    """1 where nothing is between the point and the light, else 0."""
    start = points + LIFT * normals
    if light[3] > 0:
        offset = light[:3] - start
        far = offset.norm(dim=-1)
        towards = offset / far.clamp_min(1e-9)[:, None]
    else:
        towards = light[:3].expand_as(points)
        far = points.new_full((len(points),), FAR)
    index = ((towards * normals).sum(-1) > 0).nonzero()[:, 0]
    visible = points.new_zeros(len(points))
    blocked = trace_rays(solids, start[index], towards[index], far[index], any_will_do=True).shape >= 0
    visible[index] = 1 - blocked.to(points.dtype)
    return visible


def _check_solids(op: str, solids: Solids) -> None:
    check(
        op,
        primitives=(solids.primitives, "n_primitives 16"),
        kinds=(solids.kinds, "n_primitives 3", torch.int32),
        shapes=(solids.shapes, "n_shapes 5"),
        spans=(solids.spans, "n_shapes 3", torch.int32),
        materials=(solids.materials, "n_materials 16"),
        lights=(solids.lights, "n_lights 7"),
        surrounding=(solids.surrounding, "4 4"),
    )
    _require_single(op, solids.primitives)
    first, count = solids.spans[:, 0].long(), solids.spans[:, 1].long()
    if bool(((first < 0) | (count < 1) | (first + count > len(solids.primitives))).any()):
        raise ValueError(f"{op}: spans has to name solids within the {len(solids.primitives)} of primitives")
    if bool(((solids.kinds[:, 1] < 0) | (solids.kinds[:, 1] >= len(solids.materials))).any()):
        raise ValueError(f"{op}: kinds has to name materials within the {len(solids.materials)} of materials")


def _require_single(op: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32:
        raise TypeError(f"{op}: takes float32, in which all of it computes, got {tensor.dtype}")
