"""Where rays are inside a box or a sphere, in plain torch (slabs: Kay and Kajiya 1986)."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from taichi_nerf.reference.example import Example, uniform


def intersect_boxes(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    box: Tensor,  # [2, 3] least and greatest corner
    *,
    near: float = 0.0,
    far: float = float("inf"),
) -> tuple[Tensor, Tensor]:
    """t_near and t_far [n_rays] between which a ray is inside the box, cut to [near, far]; both `near` on a miss."""
    low, high = box.detach()
    parallel = directions == 0
    slopes = torch.where(parallel, 1.0, directions)
    enter = (torch.where(slopes > 0, low, high) - origins) / slopes
    leave = (torch.where(slopes > 0, high, low) - origins) / slopes
    # A ray along the planes of an axis is between them always or never.
    between = (low <= origins) & (origins <= high)
    t_enter = torch.where(parallel, -torch.inf, enter).amax(-1)
    t_leave = torch.where(parallel, torch.inf, leave).amin(-1)
    return _cut(t_enter, t_leave, (between | ~parallel).all(-1), near, far)


def intersect_sphere(
    origins: Tensor,  # [n_rays, 3]
    directions: Tensor,  # [n_rays, 3]
    *,
    radius: float = 1.0,
    near: float = 0.0,
    far: float = float("inf"),
) -> tuple[Tensor, Tensor]:
    """The same for the sphere of `radius` around the origin."""
    squared = (directions**2).sum(-1)
    middle = -(origins * directions).sum(-1) / squared
    nearest = origins + middle[:, None] * directions
    half_squared = (radius**2 - (nearest**2).sum(-1)) / squared
    half = torch.where(half_squared > 0, half_squared, 1.0).sqrt()  # 1: a miss, whose root has no finite gradient
    return _cut(middle - half, middle + half, half_squared > 0, near, far)


def _cut(t_enter: Tensor, t_leave: Tensor, meets: Tensor, near: float, far: float) -> tuple[Tensor, Tensor]:
    t_near, t_far = t_enter.clamp_min(near), t_leave.clamp_max(far)
    hits = meets & (t_near < t_far)
    return torch.where(hits, t_near, near), torch.where(hits, t_far, near)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n rays from around a box towards its surroundings, so that some miss, and from inside; some along an axis."""
    like = torch.empty(0, dtype=dtype)
    around = normalize(uniform(generator, (n, 3), -1, 1, like), dim=-1) * 4
    target = uniform(generator, (n, 3), -1.2, 1.2, like)
    rays = {"origins": around, "directions": normalize(target - around, dim=-1)}
    box = torch.tensor([[-1.0, -0.8, -0.9], [0.7, 1.0, 1.1]], dtype=dtype)
    axis = torch.randint(0, 6, (n,), generator=generator)
    along = normalize(uniform(generator, (n, 3), -1, 1, like), dim=-1)
    along = torch.where(torch.arange(3) == axis[:, None], 0.0, along)  # half of them parallel to one pair of faces
    inside = {"origins": target, "directions": along}
    gradients = ("origins", "directions")
    return [
        Example("intersect_boxes", {**rays, "box": box}, gradients, "from outside"),
        Example("intersect_boxes", {**inside, "box": box, "near": 0.05, "far": 1.0}, gradients, "inside, cut, parallel"),
        Example("intersect_sphere", rays, gradients, "unit sphere"),
        Example("intersect_sphere", {**inside, "radius": 1.3, "near": 0.1, "far": 1.2}, gradients, "inside, cut"),
    ]
