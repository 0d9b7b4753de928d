"""Rays against known pixels, the documented distortion formulas written out again, and the geometry of rigid motion.

Measured against the reference: float32 forward 5e-7, radii 2e-6, gradients 8e-6 on cpu and lavapipe; float64 2e-15.
Through a lens and back, at 1000 pixels of focal length: 7e-13 px in float64, 4e-4 px in float32.
"""

import math

import pytest
import torch
from folding_lenses import folding_lenses
from torch.testing import assert_close

from taichi_nerf import runtime
from taichi_nerf.kernels import ray_generation as kernels
from taichi_nerf.ops import ray_generation as ops
from taichi_nerf.ops.ray_generation import (
    EQUIRECTANGULAR,
    FISHEYE,
    OPENCV,
    ORTHOGRAPHIC,
    PINHOLE,
    generate_rays,
    n_tables,
)
from taichi_nerf.reference import ray_generation as reference

MODELS = [PINHOLE, OPENCV, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC]
# Focal length 1000 px; lenses as calibrations give them: k1 to k6, p1, p2.
LENSES = {
    "phone": (OPENCV, [0.0578421, -0.0805099, 0, 0, 0, 0, -0.000980296, 0.00015575]),
    "barrel": (OPENCV, [-0.28, 0.09, -0.012, 0, 0, 0, 0.0008, -0.0005]),
    "rational": (OPENCV, [0.12, 0.03, 0.01, 0.05, 0.02, 0.01, 0.003, -0.002]),
    "fisheye": (FISHEYE, [-0.03, 0.006, -0.004, 0.0007, 0, 0, 0, 0]),
    "equidistant": (FISHEYE, [0] * 8),
}


def camera(model, pixels, *, intrinsics=(100, 100, 50, 40), distortion=(0,) * 8, pose=None, dtype=torch.float32):
    """Rays of one camera, at the origin unless told."""
    pixels = torch.as_tensor(pixels, dtype=dtype)
    pose = torch.eye(4, dtype=dtype)[None, :3] if pose is None else pose
    return generate_rays(
        pixels,
        torch.zeros(len(pixels), dtype=torch.int32),
        pose,
        intrinsics if isinstance(intrinsics, torch.Tensor) else torch.tensor([intrinsics], dtype=dtype),
        distortion if isinstance(distortion, torch.Tensor) else torch.tensor([distortion], dtype=dtype),
        torch.tensor([model], dtype=torch.int32),
    )


def rotation(axis, angle, dtype=torch.float32):
    """Rodrigues' rotation as the exponential of a cross product."""
    x, y, z = (torch.tensor(axis, dtype=torch.float64) / math.hypot(*axis) * angle).tolist()
    return torch.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)).to(dtype)


def project(model, direction, intrinsics, distortion):
    """Directions to pixels, by the formulas of OpenCV's manual: calib3d and fisheye."""
    x, y, z = direction.unbind(-1)
    k1, k2, k3, k4, k5, k6, p1, p2 = distortion
    if model == OPENCV:
        x, y = x / z, y / z
        r = torch.hypot(x, y)
        factor = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        a = x * factor + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
        b = y * factor + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    else:
        angle, turn = torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x)
        r = angle * (1 + k1 * angle**2 + k2 * angle**4 + k3 * angle**6 + k4 * angle**8)
        a, b = r * turn.cos(), r * turn.sin()
    fx, fy, cx, cy = intrinsics
    return torch.stack([fx * a + cx, fy * b + cy], -1)


@pytest.mark.parametrize("model", MODELS)
def test_the_principal_point_looks_along_z(model, backend):
    rays = camera(model, [[50.0, 40.0]], distortion=[0.1, -0.02, 0, 0, 0, 0, 0.01, 0.01])
    assert_close(rays.directions, torch.tensor([[0.0, 0, 1]]))
    assert_close(rays.origins, torch.zeros(1, 3))


@pytest.mark.parametrize("model", MODELS)
def test_right_in_the_image_is_x_and_down_is_y(model, backend):
    rays = camera(model, [[60.0, 40], [50, 50]])
    moved = rays.origins + rays.directions
    assert moved[0, 0] > 0.05
    assert moved[1, 1] > 0.05
    assert_close(moved[0, 1], torch.tensor(0.0))
    assert_close(moved[1, 0], torch.tensor(0.0))


def test_a_pixel_one_focal_length_aside_looks_45_degrees_aside(backend):
    half = math.sqrt(0.5)
    assert_close(camera(PINHOLE, [[150.0, 40], [50, -60]]).directions, torch.tensor([[half, 0, half], [0, -half, half]]))


def test_a_panorama_turns_by_its_columns_and_tilts_by_its_rows(backend):
    width, height = 400.0, 200.0
    whole = (width / (2 * math.pi), height / math.pi, width / 2, height / 2)
    pixels = [[300.0, 100], [100, 100], [400, 100], [200, 0], [200, 200], [200, 50]]
    half = math.sqrt(0.5)
    wanted = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 0, -1], [0, -1, 0], [0, 1, 0], [0, -half, half]])
    assert_close(camera(EQUIRECTANGULAR, pixels, intrinsics=whole).directions, wanted, atol=5e-7, rtol=0)


def test_a_fisheye_without_coefficients_is_equidistant_and_sees_behind_itself(backend):
    angle = torch.tensor([0.1, 0.8, 1.5, 2.0, 3.0])
    pixels = torch.stack([50 + 100 * angle * 0.6, 40 + 100 * angle * 0.8], -1)
    wanted = torch.stack([0.6 * angle.sin(), 0.8 * angle.sin(), angle.cos()], -1)
    assert_close(camera(FISHEYE, pixels).directions, wanted, atol=1e-6, rtol=0)


def test_a_lens_with_zero_coefficients_is_a_pinhole(backend, generator):
    pixels = 100 * torch.rand(200, 2, generator=generator)
    assert_close(camera(OPENCV, pixels), camera(PINHOLE, pixels), atol=2e-7, rtol=0)


def test_distortion_without_a_model_is_that_of_opencv_and_not_dropped(backend):
    """Peers read lens coefficients from files and then made pinhole rays."""
    pixels, first = torch.tensor([[90.0, 10.0]]), torch.zeros(1, dtype=torch.int32)
    pose, intrinsics = torch.eye(4)[None, :3], torch.tensor([[100.0, 100, 50, 40]])
    distortion = torch.tensor([LENSES["barrel"][1]])
    wanted = camera(OPENCV, pixels, distortion=distortion)
    assert torch.equal(generate_rays(pixels, first, pose, intrinsics, distortion).directions, wanted.directions)
    plain = generate_rays(pixels, first, pose, intrinsics)
    assert torch.equal(plain.directions, camera(PINHOLE, pixels).directions)
    assert (wanted.directions - plain.directions).abs().max() > 0.005


def test_orthographic_rays_are_parallel_and_a_pixel_apart(backend):
    turn = rotation([1, 2, 3], 0.7)
    pose = torch.cat([turn, torch.tensor([[1.0], [2], [3]])], -1)[None]
    rays = camera(ORTHOGRAPHIC, [[50.0, 40], [51, 40], [50, 41]], intrinsics=(20, 10, 50, 40), pose=pose)
    assert_close(rays.directions, turn[:, 2].expand(3, 3))
    assert_close(rays.origins, torch.tensor([1.0, 2, 3]) + torch.stack([0 * turn[:, 0], turn[:, 0] / 20, turn[:, 1] / 10]))
    assert_close(rays.radii, torch.full((3,), 2 / math.sqrt(12) / 20))


@pytest.mark.parametrize("lens", LENSES)
def test_distorting_the_ray_gives_the_pixel_back(lens, backend, generator):
    model, distortion = LENSES[lens]
    intrinsics = (1000.0, 1010.0, 640.0, 480.0)
    precisions = [(torch.float32, 1e-3)] + [(torch.float64, 1e-6)] * (backend.arch == "cpu")
    for dtype, tolerance in precisions:
        pixels = torch.rand(500, 2, generator=generator, dtype=dtype) * torch.tensor([1280, 960], dtype=dtype)
        rays = camera(model, pixels, intrinsics=intrinsics, distortion=distortion, dtype=dtype)
        back = project(model, rays.directions.double(), intrinsics, distortion)
        assert_close(back, pixels.double(), atol=tolerance, rtol=0)


def test_the_distortion_of_the_reference_is_the_documented_one(generator):
    points = torch.rand(100, 2, generator=generator, dtype=torch.float64) - 0.5
    rows = torch.tensor(LENSES["rational"][1], dtype=torch.float64).expand(100, 8)
    directions = torch.cat([points, torch.ones(100, 1)], -1)
    image, jacobian, _ = reference.opencv_image(points, rows)
    assert_close(image, project(OPENCV, directions, (1, 1, 0, 0), LENSES["rational"][1]))
    moved, _, _ = reference.opencv_image(points + 1e-6 * torch.tensor([1.0, -2.0]), rows)
    assert_close((moved - image) / 1e-6, jacobian @ torch.tensor([1.0, -2.0], dtype=torch.float64), atol=1e-5, rtol=0)
    image, slope = reference.fisheye_image(points[:, 0], rows)
    wanted = torch.stack([points[:, 0].sin(), 0 * image, points[:, 0].cos()], -1)
    assert_close(image, project(FISHEYE, wanted, (1, 1, 0, 0), LENSES["rational"][1])[:, 0])
    assert_close((reference.fisheye_image(points[:, 0] + 1e-6, rows)[0] - image) / 1e-6, slope, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lens", LENSES)
def test_beyond_its_fold_a_lens_gives_finite_rays_and_no_gradient(lens, backend):
    model, distortion = LENSES[lens]
    intrinsics = torch.tensor([[1000.0, 1000, 500, 500]], requires_grad=True)
    coefficients = torch.tensor([distortion], dtype=torch.float32).requires_grad_()
    pose = torch.eye(4)[None, :3].clone().requires_grad_()
    pixels = torch.tensor([[1e5, 500], [-3e5, 1e6], [1e12, -1e12], [1e15, 0], [500, 5e6]], requires_grad=True)
    rays = generate_rays(
        pixels, torch.zeros(5, dtype=torch.int32), pose, intrinsics, coefficients, torch.tensor([model], dtype=torch.int32)
    )
    assert_close(rays.directions.detach().norm(dim=-1), torch.ones(5))
    assert (rays.radii > 0).all()
    assert (rays.radii < 1e-2).all()
    rays.directions.pow(3).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in (pixels, pose, intrinsics, coefficients))
    if lens in ("barrel", "rational"):  # these never fold, so far pixels have rays, if flat ones
        return
    assert all(not x.grad.any() for x in (pixels, intrinsics, coefficients))
    assert pose.grad.any()


def test_beyond_the_fold_rays_stay_at_its_rim(backend):
    """θ - 0.1 θ³ rises until θ = 1.826, where the image ends; r - 0.2 r³ until r = 1.291."""
    rim = math.sqrt(1 / 0.3)
    fisheye = camera(FISHEYE, [[200.0, 40], [300, 40], [1000, 40]], distortion=[-0.1] + [0] * 7)
    angle = torch.atan2(fisheye.directions[:, 0], fisheye.directions[:, 2])
    assert (angle <= rim + 1e-4).all()
    assert (angle > 0.9 * rim).all()
    opencv = camera(OPENCV, [[200.0, 40], [300, 40], [1000, 40]], distortion=[-0.2] + [0] * 7)
    radius = opencv.directions[:, 0] / opencv.directions[:, 2]
    assert (radius <= math.sqrt(1 / 0.6) + 1e-4).all()
    assert (radius > 0.9 * math.sqrt(1 / 0.6)).all()


def test_just_inside_the_fold_the_lens_is_still_inverted(backend):
    """Where plain Newton steps overshoot the fold and end in another branch of the polynomial."""
    angle = torch.linspace(1.5, 1.8, 30)
    pixels = torch.stack([50 + 100 * (angle - 0.1 * angle**3), torch.full((30,), 40.0)], -1)
    rays = camera(FISHEYE, pixels, distortion=[-0.1] + [0] * 7)
    assert_close(torch.atan2(rays.directions[:, 0], rays.directions[:, 2]), angle, atol=1e-4, rtol=0)
    r = torch.linspace(1.0, 1.27, 30)
    pixels = torch.stack([50 + 100 * (r - 0.2 * r**3), torch.full((30,), 40.0)], -1)
    rays = camera(OPENCV, pixels, distortion=[-0.2] + [0] * 7)
    assert_close(rays.directions[:, 0] / rays.directions[:, 2], r, atol=1e-4, rtol=0)


def test_no_step_jumps_over_a_fold_or_pole_to_another_branch_of_the_lens(backend):
    """Measured: 6e-7 by the kernel in 32 bits, 9e-16 by the reference in 64."""
    lenses, points, slopes = (torch.from_numpy(array) for array in folding_lenses())
    n, n_points = points.shape[:2]
    index = torch.arange(n, dtype=torch.int32).repeat_interleave(n_points)
    cameras = torch.eye(4)[None, :3].repeat(n, 1, 1), torch.tensor([[1.0, 1, 0, 0]]).repeat(n, 1), lenses.float()
    rays = generate_rays(points.flatten(0, 1).float(), index, *cameras)
    wanted = torch.nn.functional.normalize(torch.cat([slopes, torch.ones(n, n_points, 1)], -1).flatten(0, 1), dim=-1)
    assert_close(rays.directions.double(), wanted, atol=5e-6, rtol=0)
    exact = reference.generate_rays(points.flatten(0, 1), index, *(array.double() for array in cameras[:2]), lenses)
    assert_close(exact[1], wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_a_radius_is_the_distance_of_the_neighbouring_rays_over_root_three(model, backend, generator):
    pixels = 10 + 60 * torch.rand(100, 2, generator=generator)
    left, right = pixels - torch.tensor([0.5, 0]), pixels + torch.tensor([0.5, 0])
    distortion = LENSES["phone"][1] if model == OPENCV else [-0.03, 0.006, -0.004, 0.0007, 0, 0, 0, 0]
    rays, (o1, d1, _), (o2, d2, _) = (camera(model, p, distortion=distortion) for p in (pixels, left, right))
    spacing = ((o2 + d2) - (o1 + d1)).norm(dim=-1)
    assert_close(rays.radii, spacing / math.sqrt(3), rtol=2e-4, atol=0)


def test_at_the_principal_point_the_radius_is_mip_nerfs(backend):
    x = torch.tensor([[50.0, 40.0], [51.0, 40.0]])
    unnormalised = torch.stack([(x[:, 0] - 50) / 100, (x[:, 1] - 40) / 100, torch.ones(2)], -1)
    wanted = (unnormalised[1] - unnormalised[0]).norm() * 2 / math.sqrt(12)
    assert_close(camera(PINHOLE, x).radii[0], wanted)


def test_the_last_column_has_a_radius_of_its_own(backend):
    """mip-NeRF repeats the one before it. A ray's radius depends on its pixel, not on the batch it is in."""
    pixels = torch.tensor([[0.5, 0.5], [99.5, 0.5]])
    alone, together = (
        camera(PINHOLE, pixels[1:], intrinsics=(30, 30, 50, 40)),
        camera(PINHOLE, pixels, intrinsics=(30, 30, 50, 40)),
    )
    assert torch.equal(alone.radii, together.radii[1:])
    assert_close(together.radii[0], together.radii[1])  # symmetric about cx


@pytest.mark.parametrize("model", MODELS)
def test_moving_the_camera_moves_its_rays(model, backend, generator):
    pixels = 80 * torch.rand(50, 2, generator=generator)
    turn, shift = rotation([1, -2, 0.5], 1.2), torch.tensor([0.3, -2.0, 5.0])
    distortion = [0.02, 0.01, 0, 0, 0, 0, 0, 0]
    still = camera(model, pixels, distortion=distortion)
    moved = camera(model, pixels, distortion=distortion, pose=torch.cat([turn, shift[:, None]], -1)[None])
    assert_close(moved.directions, still.directions @ turn.T, atol=1e-6, rtol=0)
    assert_close(moved.origins, still.origins @ turn.T + shift, atol=1e-6, rtol=0)
    assert_close(moved.radii, still.radii, atol=1e-8, rtol=1e-4)


def test_a_scaled_pose_still_gives_unit_directions(backend):
    pose = 3 * torch.eye(4)[None, :3]
    pixels = [[10.0, 20], [77, 3]]
    assert_close(camera(PINHOLE, pixels, pose=pose), camera(PINHOLE, pixels), atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_of_a_turn_is_the_cross_product_with_its_axis(model, cpu, generator):
    """d/dφ of R(φ) d about an axis n is n × (R d): the pose gradient, paired with dR/dφ, has to say the same."""
    pixels = 80 * torch.rand(40, 2, generator=generator, dtype=torch.float64)
    axis = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    pose = torch.cat([rotation([3, 1, 2], 0.9, torch.float64), torch.ones(3, 1)], -1)[None].requires_grad_()
    rays = camera(model, pixels, distortion=[0.02, 0.01, 0, 0, 0, 0, 0, 0], pose=pose, dtype=torch.float64)
    cotangent = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad(rays.directions, pose, cotangent)
    turning = torch.linalg.cross(axis.expand(3, 3), pose[0, :, :3].detach().T).T
    wanted = (cotangent * torch.linalg.cross(axis.expand(40, 3), rays.directions.detach())).sum()
    assert_close((found[0, :, :3] * turning).sum(), wanted)
    assert not found[0, :, 3].any()


def test_the_gradient_of_a_position_is_the_sum_over_the_camera_s_rays(backend, generator):
    pixels, cotangent = torch.rand(3000, 2, generator=generator), torch.randn(3000, 3, generator=generator)
    cameras = torch.randint(0, 7, (3000,), generator=generator, dtype=torch.int32)
    poses = torch.eye(4)[None, :3].repeat(7, 1, 1).requires_grad_()
    rays = generate_rays(pixels, cameras, poses, torch.tensor([[10.0, 10, 5, 5]]).repeat(7, 1))
    rays.origins.backward(cotangent)
    wanted = torch.zeros(7, 3).index_add(0, cameras.long(), cotangent)
    assert_close(poses.grad[:, :, 3], wanted, atol=1e-4, rtol=0)


def test_tables_and_atomics_sum_the_same_gradient(backend, generator):
    n, n_cameras = 5000, 5
    example = reference.examples(n, generator)[2].arguments
    inputs = [example[name].contiguous() for name in reference.generate_rays.__annotations__ if name in example]
    cotangents = [torch.randn(n, 3, generator=generator) for _ in range(2)]
    sums = []
    for tables, atomic in ((1, True), (1, False), (3, False), (32, False)):
        of_pixels, of_cameras = torch.zeros(n, 2), torch.zeros(tables, n_cameras, 24)
        kernels.generate_rays_adjoint(*inputs, 2.4e-7, *cotangents, of_pixels, of_cameras, atomic)
        sums.append((of_pixels, of_cameras.sum(0)))
    for of_pixels, of_cameras in sums[1:]:
        assert torch.equal(of_pixels, sums[0][0])
        assert_close(of_cameras, sums[0][1], rtol=1e-5, atol=1e-5 * float(of_cameras.abs().max()))


def test_on_the_cpu_a_gradient_has_the_same_last_digit_with_any_number_of_threads(cpu):
    example = reference.examples(20000, torch.Generator().manual_seed(3))[2].arguments
    found = []
    for n_threads in (1, 2, 2):
        runtime.start("cpu", n_threads)
        pose = example["camera_to_worlds"].clone().requires_grad_()
        rays = generate_rays(**{**example, "camera_to_worlds": pose})
        (rays.directions[:, 0].sum() + rays.origins[:, 1].sum()).backward()
        found.append(pose.grad)
    runtime.start("cpu")
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_the_tables_are_smaller_than_the_rays():
    for n_rays in (1, 100, 4096, 262144):
        for n_cameras in (1, 50, 3000, 262144):
            assert n_tables(n_rays, n_cameras) >= 1
            assert n_tables(n_rays, n_cameras) in (1, *range(2, 1 + max(1, min(32, n_rays // (4 * n_cameras)))))


def test_permuting_rays_permutes_the_output(backend, generator):
    example = reference.examples(300, generator)[2].arguments
    order = torch.randperm(300, generator=generator)
    straight = generate_rays(**example)
    permuted = generate_rays(**{**example, **{name: example[name][order] for name in ("pixels", "camera_indices")}})
    for ours, wanted in zip(permuted, straight, strict=True):
        assert torch.equal(ours, wanted[order])


def test_at_the_principal_point_a_fisheye_has_the_gradients_of_a_pinhole(backend):
    """Its formulas divide by the distance from there."""
    found = []
    for model in (PINHOLE, FISHEYE):
        pixels = torch.tensor([[50.0, 40.0]], requires_grad=True)
        rays = camera(model, pixels, distortion=[0.2, -0.1, 0.1, 0.3, 0, 0, 0, 0])
        found.append(torch.autograd.grad(rays.directions, pixels, torch.tensor([[3.0, -2, 5]]))[0])
    assert_close(found[0], torch.tensor([[0.03, -0.02]]))
    assert_close(found[1], found[0])


def test_radii_have_no_gradient(backend):
    intrinsics = torch.tensor([[100.0, 100, 50, 40]], requires_grad=True)
    rays = camera(PINHOLE, [[1.0, 2.0]], intrinsics=intrinsics)
    assert rays.directions.requires_grad
    assert not rays.radii.requires_grad


def test_refuses_cameras_and_models_that_do_not_exist(cpu):
    pose, intrinsics = torch.eye(4)[None, :3], torch.tensor([[100.0, 100, 50, 40]])
    for index in (-1, 1):
        with pytest.raises(ValueError, match=r"camera_indices has to be in 0 to 0, got"):
            generate_rays(torch.zeros(2, 2), torch.tensor([0, index], dtype=torch.int32), pose, intrinsics)
    with pytest.raises(ValueError, match=r"camera_models has to be in 0 to 4, got 5 to 5"):
        camera(5, [[0.0, 0.0]])


def test_op_kernel_and_reference_number_the_models_alike():
    for name in ("PINHOLE", "OPENCV", "FISHEYE", "EQUIRECTANGULAR", "ORTHOGRAPHIC"):
        assert getattr(ops, name) == getattr(kernels, name) == getattr(reference, name)
