"""Gaussians of frustums in contracted space, in plain torch (Barron et al. 2022, equations 8 to 10), by the Jacobian itself."""

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def contract(x: Tensor) -> Tensor:  # [..., 3]
    """x within the unit ball, (2 - 1/|x|) x/|x| beyond it."""
    r = x.norm(dim=-1, keepdim=True).clamp_min(1)
    return (2 - 1 / r) / r * x


def contract_gaussians(
    means: Tensor,  # [n_points, 3]
    directions: Tensor,  # [n_points, 3] unit length
    spreads: Tensor,  # [n_points, 2] variances along the direction, and across it
    basis: Tensor,  # [n_basis, 3] unit length
) -> tuple[Tensor, Tensor]:
    """Means and variances [n_points, n_basis] along the directions of a basis, of Gaussians that `contract` carries over."""
    r = means.norm(dim=-1)[:, None, None].clamp_min(1)
    outer = means[:, :, None] * means[:, None] / r**2
    eye = torch.eye(3, dtype=means.dtype, device=means.device)
    jacobian = (2 / r - 1 / r**2) * eye + torch.where(r > 1, 2 / r**2 - 2 / r, 0) * outer
    along = directions[:, :, None] * directions[:, None]
    covariances = spreads[:, 0, None, None] * along + spreads[:, 1, None, None] * (eye - along)
    carried = jacobian @ covariances @ jacobian
    return contract(means) @ basis.T, torch.einsum("ki,nij,kj->nk", basis, carried, basis)


def icosahedron(n_parts: int) -> Tensor:  # [n, 3]
    """Directions from the middle to the corners of an icosahedron whose edges are cut into 1 or 2 parts: 6 or 21 of them,
    since of two that are opposite one is enough."""
    golden = (1 + 5**0.5) / 2
    corners = [torch.tensor([0.0, sign, golden], dtype=torch.float64).roll(axis) for axis in range(3) for sign in (1.0, -1.0)]
    corners = [corner / corner.norm() for corner in corners]
    if n_parts == 1:
        return torch.stack(corners)
    if n_parts != 2:
        raise ValueError(f"icosahedron: edges are cut into 1 or 2 parts, not {n_parts}")
    both = [*corners, *(-corner for corner in corners)]
    middles = [a + b for i, a in enumerate(both) for b in both[:i] if torch.isclose(a @ b, a.new_tensor(5**-0.5))]
    kept: list[Tensor] = []
    for middle in middles:
        unit = middle / middle.norm()
        if not any(torch.isclose((unit @ other).abs(), unit.new_tensor(1.0)) for other in kept):
            kept.append(unit)
    return torch.stack([*corners, *kept])


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """Points inside of the ball and outside, along 21 directions and along the axes."""
    like = torch.empty(0, dtype=dtype)
    towards = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    inputs = {
        "means": uniform(generator, (n, 3), -3, 3, like),
        "directions": torch.nn.functional.normalize(towards, dim=-1).to(dtype),
        "spreads": uniform(generator, (n, 2), 1e-3, 0.3, like),
    }
    differentiable = ("means", "directions", "spreads")
    return [
        Example("contract_gaussians", {**inputs, "basis": icosahedron(2).to(dtype)}, differentiable, "21 directions"),
        Example("contract_gaussians", {**inputs, "basis": torch.eye(3, dtype=dtype)}, differentiable, "axes"),
    ]
