"""Rays through the pixels of cameras with lenses, in plain torch. A camera looks along +z, x right, y down.

Distortion is written as `opencv_image` and `fisheye_image`, from directions to image points, so rays need its inverse.
It is found without history, by Newton's method, and then refined by one more step that autograd does see. At a solution
of F(d; k) = m that step, d + J⁻¹ (m - F(d; k)) with d and J constant, changes no value and has exactly the derivatives of
the implicit function theorem: J⁻¹ to m, and -J⁻¹ ∂F/∂k to k. No gradient runs through the iterations.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from taichi_nerf.reference.example import Example, uniform

PINHOLE, OPENCV, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC = range(5)
N_ITERATIONS = 40  # four or five are usual; all of them only beyond the fold


def generate_rays(
    pixels: Tensor,  # [n_rays, 2] x, y; the centre of the first pixel is (0.5, 0.5)
    camera_indices: Tensor,  # [n_rays] int32
    camera_to_worlds: Tensor,  # [n_cameras, 3, 4] x right, y down, z forward
    intrinsics: Tensor,  # [n_cameras, 4] fx, fy, cx, cy
    distortion: Tensor | None = None,  # [n_cameras, 8] k1, k2, k3, k4, k5, k6, p1, p2
    camera_models: Tensor | None = None,  # [n_cameras] int32; None is OPENCV with distortion, PINHOLE without
) -> tuple[Tensor, Tensor, Tensor]:
    """The rays through `pixels`: origins, unit directions, and mip-NeRF's radii at distance one (without gradient)."""
    cameras = camera_indices.long()
    if camera_models is None:
        camera_models = torch.full((len(intrinsics),), PINHOLE if distortion is None else OPENCV, device=pixels.device)
    if distortion is None:
        distortion = intrinsics.new_zeros(len(intrinsics), 8)
    models = camera_models[cameras]
    poses, lenses, coefficients = camera_to_worlds[cameras], intrinsics[cameras], distortion[cameras]
    origins, directions, _ = _world_rays(pixels, poses, lenses, coefficients, models)

    # A radius is the width of the pixel: how far the ray moves at distance one as x grows by one.
    with torch.enable_grad():
        moved = pixels.detach().requires_grad_()
        o, d, found = _world_rays(moved, poses.detach(), lenses.detach(), coefficients.detach(), models)
        columns = [torch.autograd.grad(axis.sum(), moved, retain_graph=True)[0][:, 0] for axis in (o + d).unbind(-1)]
    at_principal_point = 1 / lenses[:, 0].detach().abs()
    width = torch.where(found, torch.stack(columns, -1).norm(dim=-1), at_principal_point)
    return origins, directions, width * 2 / 12**0.5


def _world_rays(
    pixels: Tensor,  # [n_rays, 2]
    poses: Tensor,  # [n_rays, 3, 4]
    intrinsics: Tensor,  # [n_rays, 4]
    coefficients: Tensor,  # [n_rays, 8]
    models: Tensor,  # [n_rays]
) -> tuple[Tensor, Tensor, Tensor]:
    points = (pixels - intrinsics[:, 2:]) / intrinsics[:, :2]
    starts, directions = torch.zeros_like(poses[:, :, 3]), torch.zeros_like(poses[:, :, 3])
    found = torch.ones_like(models, dtype=torch.bool)
    lenses = {
        PINHOLE: pinhole,
        OPENCV: opencv,
        FISHEYE: fisheye,
        EQUIRECTANGULAR: equirectangular,
        ORTHOGRAPHIC: orthographic,
    }
    for model, lens in lenses.items():
        rows = (models == model).nonzero()[:, 0]
        start, direction, solved = lens(points[rows], coefficients[rows])
        starts, directions = starts.index_put((rows,), start), directions.index_put((rows,), direction)
        found = found.index_put((rows,), solved)
    rotations, translations = poses[:, :, :3], poses[:, :, 3]
    origins = (rotations @ starts[:, :, None])[:, :, 0] + translations
    return origins, normalize((rotations @ directions[:, :, None])[:, :, 0], dim=-1), found


# A lens takes image points [n, 2] and coefficients [n, 8], and gives start and direction in camera space, and where it
# has such a direction.
def pinhole(points: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    direction = torch.cat([points, torch.ones_like(points[:, :1])], -1)
    return torch.zeros_like(direction), direction, torch.ones_like(points[:, 0], dtype=torch.bool)


def opencv(points: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        solution, found = _solve_opencv(points.detach(), coefficients.detach())
    image, jacobian, _ = opencv_image(solution, coefficients)
    jacobian = torch.where(found[:, None, None], jacobian.detach(), torch.eye(2).to(jacobian))
    refined = solution + torch.linalg.solve(jacobian, points - image)
    start, direction, _ = pinhole(torch.where(found[:, None], refined, solution), coefficients)
    return start, direction, found


def fisheye(points: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    radius = (points**2).sum(-1).clamp_min(1e-30).sqrt()  # its gradient is zero at the principal point
    with torch.no_grad():
        solution, found = _solve_fisheye(radius.detach(), coefficients.detach())
    image, slope = fisheye_image(solution, coefficients)
    refined = solution + (radius - image) / slope.detach()
    direction = torch.cat([points * (refined.sin() / radius)[:, None], refined.cos()[:, None]], -1)
    beyond = torch.cat([points * (solution.sin() / radius)[:, None], solution.cos()[:, None]], -1).detach()
    return torch.zeros_like(direction), torch.where(found[:, None], direction, beyond), found


def equirectangular(points: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    longitude, latitude = points.unbind(-1)
    x, y, z = longitude.sin() * latitude.cos(), latitude.sin(), longitude.cos() * latitude.cos()
    direction = torch.stack([x, y, z], -1)
    return torch.zeros_like(direction), direction, torch.ones_like(x, dtype=torch.bool)


def orthographic(points: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    start = torch.cat([points, torch.zeros_like(points[:, :1])], -1)
    ahead = torch.tensor([0.0, 0.0, 1.0]).to(points).expand_as(start)
    return start, ahead, torch.ones_like(points[:, 0], dtype=torch.bool)


def opencv_image(points: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image points of the directions (p, q, 1), their Jacobians [n, 2, 2], and the denominators of the radial factor."""
    p, q = points.unbind(-1)
    k1, k2, k3, k4, k5, k6, p1, p2 = coefficients.unbind(-1)
    r2 = p * p + q * q
    numerator, denominator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = numerator / denominator
    slope = (k1 + r2 * (2 * k2 + 3 * r2 * k3) - radial * (k4 + r2 * (2 * k5 + 3 * r2 * k6))) / denominator
    a = p * radial + 2 * p1 * p * q + p2 * (r2 + 2 * p * p)
    b = q * radial + p1 * (r2 + 2 * q * q) + 2 * p2 * p * q
    a_p = radial + 2 * p * p * slope + 2 * p1 * q + 6 * p2 * p
    a_q = 2 * p * q * slope + 2 * p1 * p + 2 * p2 * q
    b_q = radial + 2 * q * q * slope + 6 * p1 * q + 2 * p2 * p
    return torch.stack([a, b], -1), torch.stack([a_p, a_q, a_q, b_q], -1).view(-1, 2, 2), denominator


def fisheye_image(theta: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Image radii of the angles θ from the axis, and their derivatives."""
    k1, k2, k3, k4 = coefficients[:, :4].unbind(-1)
    t2 = theta * theta
    radius = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    return radius, 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


def _solve_opencv(points: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """By Newton's method; again, with steps that end before the first fold, where it jumped over that."""
    solution, found = _newton(points, coefficients, points.new_tensor(torch.inf))
    limit = _behind_fold((solution**2).sum(-1), coefficients)
    jumped = limit.isfinite().nonzero()[:, 0]
    again = _newton(points[jumped], coefficients[jumped], limit[jumped])
    return solution.index_put((jumped,), again[0]), found.index_put((jumped,), again[1])


def _behind_fold(r2: Tensor, coefficients: Tensor, n_looks: int = 64) -> Tensor:
    """[n] r² somewhere behind the first fold or pole before r2, if there is one and r2 is on another branch; else infinity.

    With N / D the radial factor, D² ∂(r N / D) / ∂r is the sum of (1 + 2 i - 2 j) N_i D_j r^(2 i + 2 j).
    """
    k1, k2, k3, k4, k5, k6 = coefficients[:, :6, None].unbind(1)
    over, under = (torch.ones_like(k1), k1, k2, k3), (torch.ones_like(k1), k4, k5, k6)
    at = (torch.arange(1, n_looks + 1).to(r2) / n_looks) ** 2 * r2[:, None]  # [n, n_looks]
    terms = [(1 + 2 * i - 2 * j) * over[i] * under[j] * at ** (i + j) for i in range(4) for j in range(4)]
    slope, denominator = torch.stack(terms).sum(0), under[0] + at * (k4 + at * (k5 + at * k6))
    behind = (slope[:, :-1] <= 0) | (denominator[:, :-1] <= 0)
    first = torch.where(behind, at[:, :-1], torch.inf).amin(-1)
    return torch.where(slope[:, -1] > 0, first, torch.inf)


def _newton(points: Tensor, coefficients: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """From the axis outwards: a step is halved until it comes closer and stays where the lens map is invertible, r² < limit."""
    solution, step = torch.zeros_like(points), points
    error, fraction = (points**2).sum(-1), torch.ones_like(points[:, 0])
    enough = 2 * torch.finfo(points.dtype).eps * (1 + points.abs().sum(-1))
    for _ in range(N_ITERATIONS):
        trial = solution + fraction[:, None] * step
        image, jacobian, denominator = opencv_image(trial, coefficients)
        new_error = ((points - image) ** 2).sum(-1)
        (a_p, a_q), (_, b_q) = (row.unbind(-1) for row in jacobian.unbind(1))
        determinant = a_p * b_q - a_q * a_q
        inside = ((trial**2).sum(-1) < limit) & (denominator > 0)
        better = (new_error < error) & inside & (determinant > 0) & (a_p + b_q > 0)
        miss_a, miss_b = (points - image).unbind(-1)
        newton = torch.stack([b_q * miss_a - a_q * miss_b, a_p * miss_b - a_q * miss_a], -1) / determinant[:, None]
        solution, step = torch.where(better[:, None], trial, solution), torch.where(better[:, None], newton, step)
        error, fraction = torch.where(better, new_error, error), torch.where(better, 1.0, fraction / 2)
        if (fraction * step.abs().sum(-1) <= enough).all():
            break
    return solution, error <= 1e-10 * (1 + (points**2).sum(-1))


def _solve_fisheye(radius: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    theta, step, error, fraction = torch.zeros_like(radius), radius, radius, torch.ones_like(radius)
    for _ in range(N_ITERATIONS):
        trial = theta + fraction * step
        image, slope = fisheye_image(trial, coefficients)
        better = ((radius - image).abs() < error) & (slope > 0) & (trial <= torch.pi)
        theta, step = torch.where(better, trial, theta), torch.where(better, (radius - image) / slope, step)
        error, fraction = torch.where(better, (radius - image).abs(), error), torch.where(better, 1.0, fraction / 2)
        if (fraction * step.abs() <= 2 * torch.finfo(radius.dtype).eps * (1 + radius)).all():
            break
    return theta, error <= 1e-5 * (1 + radius)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """n pixels of 64 x 48 images: of many pinhole cameras, of a phone's lens, and of one camera of every model."""
    like = torch.empty(0, dtype=dtype)
    n_cameras = min(n // 4 + 1, 100)

    def poses(count: int) -> Tensor:
        """Looking anywhere, and not quite rotations: 12 free numbers."""
        turned, _ = torch.linalg.qr(uniform(generator, (count, 3, 3), -1, 1, like.double()))
        translations = uniform(generator, (count, 3, 1), -2, 2, like.double())
        return torch.cat([turned * uniform(generator, (count, 3, 1), 0.9, 1.1, turned), translations], -1).to(dtype)

    def lens(*numbers: float) -> Tensor:
        return torch.tensor(numbers, dtype=dtype)

    pixels = uniform(generator, (n, 2), 0, 1, like) * lens(64, 48)
    any_camera = torch.randint(0, n_cameras, (n,), generator=generator, dtype=torch.int32)
    pinholes = lens(60, 62, 32, 24).repeat(n_cameras, 1) + uniform(generator, (n_cameras, 4), -2, 2, like)
    many = {
        "pixels": pixels,
        "camera_indices": any_camera,
        "camera_to_worlds": poses(n_cameras),
        "intrinsics": pinholes,
    }
    phone = lens(0.0578421, -0.0805099, 0, 0, 0, 0, -0.000980296, 0.00015575).repeat(n_cameras, 1)
    models = torch.tensor([PINHOLE, OPENCV, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC], dtype=torch.int32)
    every = {
        "pixels": pixels,
        "camera_indices": torch.randint(0, 5, (n,), generator=generator, dtype=torch.int32),
        "camera_to_worlds": poses(5),
        "intrinsics": torch.stack(
            [
                lens(60, 62, 32, 24),
                lens(55, 54, 33, 23),
                lens(27, 28, 31, 25),
                lens(64 / 2 / torch.pi, 48 / torch.pi, 32, 24),
                lens(20, 21, 30, 22),
            ]
        ),
        "distortion": torch.stack(
            [
                torch.zeros(8, dtype=dtype),
                lens(0.12, 0.03, 0.01, 0.05, 0.02, 0.01, 0.003, -0.002),
                lens(-0.02, 0.008, -0.003, 0.0004, 0, 0, 0, 0),
                torch.zeros(8, dtype=dtype),
                torch.zeros(8, dtype=dtype),
            ]
        ),
        "camera_models": models,
    }
    gradients = ("pixels", "camera_to_worlds", "intrinsics")
    return [
        Example("generate_rays", many, gradients, "many pinhole cameras"),
        Example("generate_rays", {**many, "distortion": phone}, (*gradients, "distortion"), "a phone's lens"),
        Example("generate_rays", every, (*gradients, "distortion"), "every camera model"),
    ]
