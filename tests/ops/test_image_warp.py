"""Projection, lookup and warp against closed forms of simple cameras and scenes, and against grid_sample.

Measured against the reference in float32 on cpu and lavapipe: projection and lookup 3e-6; the warp of images 141 pixels wide
forward 2e-5, gradients 3e-5 (noise has unit slope per pixel, and a pixel is known to 1e-5).
"""

import pytest
import torch
from torch.nn.functional import grid_sample
from torch.testing import assert_close

from taichi_nerf.kernels import image_warp as kernels
from taichi_nerf.ops import image_warp
from taichi_nerf.ops.image_warp import gather_features, inverse_warp, project_points

IDENTITY = torch.eye(4)[None, :3]


def random_cameras(n_views, generator):
    skew = 0.3 * torch.randn(n_views, 3, 3, generator=generator)
    away = torch.tensor([0.2, -0.1, 5.0]).expand(n_views, 3)
    world_to_cameras = torch.cat([torch.linalg.matrix_exp(skew - skew.mT), away[..., None]], -1)
    intrinsics = torch.tensor([90.0, 110.0, 31.0, 25.0]) + torch.rand(n_views, 4, generator=generator)
    return world_to_cameras, intrinsics


def test_the_optical_axis_meets_the_principal_point(backend):
    intrinsics = torch.tensor([[100.0, 120.0, 32.5, 24.5]])
    pixels, depths = project_points(torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.5, 4.0]]), IDENTITY, intrinsics)
    assert_close(pixels, torch.tensor([[[32.5, 24.5], [32.5 + 25, 24.5 + 15]]]))
    assert_close(depths, torch.tensor([[2.0, 4.0]]))


def test_projecting_then_unprojecting_is_the_identity(backend, generator):
    points = torch.rand(100, 3, generator=generator) * 2 - 1
    world_to_cameras, intrinsics = random_cameras(3, generator)
    pixels, depths = project_points(points, world_to_cameras, intrinsics)
    rays = (pixels - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]
    in_cameras = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * depths[..., None]
    in_world = (in_cameras - world_to_cameras[:, None, :, 3]) @ world_to_cameras[:, :, :3]
    assert_close(in_world, points.expand(3, -1, -1), atol=2e-5, rtol=0)


def test_points_behind_are_finite_marked_and_without_gradient(backend):
    points = torch.tensor([[0.1, 0.2, -3.0], [0.5, 0.5, 0.0], [0.1, 0.1, 1e-7], [float("nan")] * 3, [0.1, 0.2, 2.0]])
    inputs = [points.requires_grad_(), IDENTITY.clone().requires_grad_(), torch.tensor([[9.0, 9, 5, 5]]).requires_grad_()]
    pixels, depths = project_points(*inputs)
    assert torch.equal(pixels[0, :4], torch.full((4, 2), -1e4))
    assert torch.equal(depths[0], torch.tensor([0.0, 0, 0, 0, 2]))
    (pixels.sum() + depths.sum()).backward()
    assert torch.equal(points.grad[:4], torch.zeros(4, 3))
    alone = [tensor.detach()[4:] if tensor is points else tensor.detach() for tensor in inputs]
    alone = [tensor.requires_grad_() for tensor in alone]
    pixels, depths = project_points(*alone)
    (pixels.sum() + depths.sum()).backward()
    for mixed, single in zip(inputs[1:], alone[1:], strict=True):
        assert_close(mixed.grad, single.grad)


def test_permuting_views_permutes_outputs(backend, generator):
    points = torch.rand(50, 3, generator=generator)
    world_to_cameras, intrinsics = random_cameras(4, generator)
    features = torch.randn(4, 12, 14, 6, generator=generator)
    order = torch.tensor([2, 0, 3, 1])
    pixels, depths = project_points(points, world_to_cameras, intrinsics)
    permuted, permuted_depths = project_points(points, world_to_cameras[order], intrinsics[order])
    assert torch.equal(pixels[order], permuted)
    assert torch.equal(depths[order], permuted_depths)
    assert torch.equal(gather_features(features, pixels / 5)[order], gather_features(features[order], permuted / 5))


def test_camera_gradients_of_many_points_keep_their_digits(backend, generator):
    """Sums over 20000 points; the chunks of the kernel do not divide that number."""
    points = torch.rand(19999, 3, generator=generator)
    inputs = [points, *random_cameras(2, generator)]
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    in_cameras = exact[0] @ exact[1][:, :, :3].mT + exact[1][:, None, :, 3]
    wanted = in_cameras[..., :2] / in_cameras[..., 2:] * exact[2][:, None, :2] + exact[2][:, None, 2:]
    wanted.square().sum().backward()
    project_points(*inputs)[0].square().sum().backward()
    for ours, theirs in zip(inputs, exact, strict=True):
        assert_close(ours.grad, theirs.grad.float(), atol=2e-6 * float(theirs.grad.abs().max()), rtol=0)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("align", ["pixel_centers", "corners"])
@pytest.mark.parametrize("n_channels", [1, 13, 16])
def test_equals_grid_sample_and_its_gradients(padding, align, n_channels, backend, generator):
    height, width = 5, 7
    features = torch.randn(3, height, width, n_channels, generator=generator).requires_grad_()
    pixels = (torch.rand(3, 90, 2, generator=generator) * 14 - 4).requires_grad_()
    corners = align == "corners"
    size = torch.tensor([width, height]) - int(corners)
    theirs = grid_sample(features.permute(0, 3, 1, 2), (2 * pixels / size - 1)[:, None], "bilinear", padding, corners)
    theirs = theirs[:, :, 0].mT
    ours = gather_features(features, pixels, padding=padding, align=align)
    assert_close(ours, theirs, atol=1e-5, rtol=0)
    weights = torch.randn(theirs.shape, generator=generator)
    gradients = (torch.autograd.grad(outputs, (features, pixels), weights) for outputs in (ours, theirs))
    for mine, wanted in zip(*gradients, strict=True):
        assert_close(mine, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_reproduces_the_lookup_of_pixelnerf(backend, generator):
    """Image coordinates uv, features of half the resolution, scaled to [-1, 1] as uv * 2 S / (S - 1) / W - 1, corners aligned."""
    width, height = 64, 48
    features = torch.randn(2, height // 2, width // 2, 4, generator=generator)
    uv = torch.rand(2, 80, 2, generator=generator) * 80 - 8
    sizes, image = torch.tensor([width / 2, height / 2]), torch.tensor([width, height])
    on_grid = uv * (2 * sizes / (sizes - 1) / image) - 1
    theirs = grid_sample(features.permute(0, 3, 1, 2), on_grid[:, None], "bilinear", "border", align_corners=True)[:, :, 0].mT
    assert_close(gather_features(features, uv * sizes / image, align="corners"), theirs, atol=2e-5, rtol=0)
    assert_close(gather_features(features, uv * sizes / image + 0.5), theirs, atol=2e-5, rtol=0)


def test_lookup_reproduces_bilinear_functions(backend, generator):
    v, u = torch.meshgrid(torch.arange(9) + 0.5, torch.arange(11) + 0.5, indexing="ij")
    features = torch.stack([2 * u - v, u * v], -1)[None]
    pixels = torch.rand(1, 100, 2, generator=generator) * 8 + 0.5
    x, y = pixels.unbind(-1)
    assert_close(gather_features(features, pixels), torch.stack([2 * x - y, x * y], -1), atol=2e-5, rtol=0)


def test_nan_and_far_pixels_read_and_write_inside_the_features(backend):
    features = torch.ones(1, 3, 4, 2, requires_grad=True)
    pixels = torch.tensor([[[float("nan"), 1.0], [1e30, -1e30], [float("inf"), float("nan")], [-1e4, -1e4]]], requires_grad=True)
    bordered, zeroed = gather_features(features, pixels), gather_features(features, pixels, padding="zeros")
    assert torch.equal(bordered.detach(), torch.ones(1, 4, 2))
    assert torch.equal(zeroed.detach(), torch.zeros(1, 4, 2))
    (bordered.sum() + zeroed.sum()).backward()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(pixels.grad).all()
    assert_close(features.grad.sum(), torch.tensor(8.0))


@pytest.mark.parametrize(("n_views", "n_threads"), [(2, 2), (3, 2), (1, 3), (4, 40)])
@pytest.mark.parametrize("zeros", [False, True])
def test_owners_add_up_what_atomics_do(n_views, n_threads, zeros, cpu, generator):
    """Whole views a thread, or bands of rows, also with more threads than rows."""
    pixels = torch.rand(n_views, 200, 2, generator=generator) * 16 - 3
    weights, features = torch.randn(n_views, 200, 6, generator=generator), torch.randn(n_views, 10, 9, 6, generator=generator)
    atomic, owned = torch.zeros_like(features), torch.zeros_like(features)
    flat = (pixels.view(-1), weights.view(-1), 200, 10, 9, 6, 0.5, zeros)
    kernels.gather_features_adjoint(*flat, 3, atomic.view(-1))
    owners, of_pixels = image_warp._owners(n_views, 10, n_threads), torch.empty_like(pixels)
    outputs = (owned.view(-1), of_pixels.view(-1))
    kernels.gather_features_owned_adjoint(features.view(-1), *flat, *owners, 16, 2, True, *outputs)
    assert atomic.abs().max() > 0.1
    assert_close(owned, atomic, atol=1e-5, rtol=0)
    alone = torch.empty_like(pixels)
    kernels.gather_features_pixels_adjoint(features.view(-1), *flat, 200, 1, 3, alone.view(-1))
    assert_close(of_pixels, alone, atol=1e-5, rtol=0)


def test_an_owner_leaves_the_rows_of_others_alone(cpu, generator):
    """Only thread 0 runs; a race would seldom show."""
    pixels = torch.rand(2, 200, 2, generator=generator) * 6
    weights = torch.randn(2, 200, 3, generator=generator)
    owners = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 1]], dtype=torch.int32)
    atomic, owned = torch.zeros(2, 5, 6, 3), torch.zeros(2, 5, 6, 3)
    flat = (pixels.view(-1), weights.view(-1), 200, 5, 6, 3, 0.5, False)
    kernels.gather_features_adjoint(*flat, 0, atomic.view(-1))
    views, outputs = torch.tensor([[0, 2]], dtype=torch.int32), (owned.view(-1), torch.empty(1))
    kernels.gather_features_owned_adjoint(torch.empty(180), *flat, owners, views, 16, 1, False, *outputs)
    assert_close(owned, atomic * (owners == 0)[:, :, None, None], atol=1e-5, rtol=0)


def test_sharing_channels_between_threads_changes_nothing(cpu, generator):
    """The GPUs' split of the forward pass; twelve channels do not fill eight threads of two."""
    features, pixels = torch.randn(2, 4, 5, 12, generator=generator), torch.rand(2, 50, 2, generator=generator) * 5
    split = torch.empty(2, 50, 12)
    flat = (features.view(-1), pixels.view(-1), 50, 4, 5, 12, 0.5, False)
    kernels.gather_features(*flat, 1, 50, 1, 1, 3, split.view(-1))
    assert torch.equal(split, gather_features(features, pixels))


def test_a_camera_that_did_not_move_returns_the_image(backend, generator):
    source = torch.rand(2, 6, 8, 3, generator=generator)
    depth = 1 + torch.rand(2, 6, 8, generator=generator)
    intrinsics = torch.tensor([[7.0, 8.0, 4.2, 2.9]]).expand(2, 4)
    warped, valid = inverse_warp(source, depth, IDENTITY.expand(2, 3, 4), intrinsics)
    assert_close(warped, source, atol=5e-6, rtol=0)
    assert valid[:, 1:-1, 1:-1].all()


def test_images_warp_together_as_they_do_alone(backend, generator):
    """Every view has its own depth, motion and camera, and keeps their gradients to itself."""
    motion = random_cameras(3, generator)[0] * torch.tensor([1, 1, 1, 0.1])
    intrinsics = torch.tensor([9.0, 8.0, 4.5, 3.1]) + torch.rand(3, 4, generator=generator)
    source, depth = torch.rand(3, 6, 8, 2, generator=generator), 2 + torch.rand(3, 6, 8, generator=generator)
    together = [tensor.requires_grad_() for tensor in (source, depth, motion, intrinsics)]
    warped, valid = inverse_warp(*together)
    assert valid.float().mean() > 0.2
    warped.square().sum().backward()
    for view in range(3):
        alone = [tensor.detach()[view : view + 1].clone().requires_grad_() for tensor in together]
        one, one_valid = inverse_warp(*alone)
        one.square().sum().backward()
        assert_close(one[0], warped[view], atol=1e-6, rtol=0)
        assert torch.equal(one_valid[0], valid[view])
        for mine, all_views in zip(alone, together, strict=True):
            assert_close(mine.grad[0], all_views.grad[view], atol=1e-5 * float(mine.grad.abs().max()) + 1e-7, rtol=0)


def test_moving_along_a_wall_shifts_by_focal_length_times_distance_over_depth(backend):
    """fx tx / z = 10 * 0.6 / 2 = 3 pixels to the right in the source, so the target sees the image 3 pixels to the left."""
    source = torch.arange(12.0).expand(1, 5, 12)[..., None].contiguous()
    motion = IDENTITY.clone()
    motion[0, 0, 3] = 0.6
    warped, valid = inverse_warp(source, torch.full((1, 5, 12), 2.0), motion, torch.tensor([[10.0, 10.0, 6.0, 2.5]]))
    assert_close(warped[0, :, :9], source[0, :, 3:], atol=1e-5, rtol=0)
    assert_close(warped[0, :, 9:], torch.full((5, 3, 1), 11.0))
    assert torch.equal(valid, (torch.arange(12) < 9).expand(1, 5, 12))


def test_a_wall_behind_the_source_camera_is_not_valid_and_has_no_gradient(backend):
    motion = IDENTITY.clone()
    motion[0, 2, 3] = -3.0
    depth = torch.full((1, 4, 4), 2.0, requires_grad=True)
    warped, valid = inverse_warp(torch.rand(1, 4, 4, 3), depth, motion, torch.tensor([[4.0, 4.0, 2.0, 2.0]]))
    assert not valid.any()
    warped.sum().backward()
    assert torch.equal(depth.grad, torch.zeros(1, 4, 4))


def test_descending_the_photometric_error_finds_the_depth(backend):
    """A tilted ramp seen by two cameras: the depth's gradient points to the wall's true distance from both sides."""
    v, u = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    source = torch.stack([u, v, u + v], -1)[None]
    motion = IDENTITY.clone()
    motion[0, 0, 3] = 0.4
    intrinsics = torch.tensor([[10.0, 10.0, 8.0, 4.0]])
    target, _ = inverse_warp(source, torch.full((1, 8, 16), 2.0), motion, intrinsics)
    for guess, sign in ((1.8, -1), (2.3, 1)):
        depth = torch.full((1, 8, 16), guess, requires_grad=True)
        warped, valid = inverse_warp(source, depth, motion, intrinsics)
        ((warped - target).square().sum(-1) * valid).sum().backward()
        assert (sign * depth.grad[0, :, 2:10] > 0).all()


def test_refuses_unknown_options(cpu):
    features, pixels = torch.zeros(1, 2, 2, 1), torch.zeros(1, 1, 2)
    with pytest.raises(ValueError, match="padding has to be border or zeros"):
        gather_features(features, pixels, padding="reflection")
    with pytest.raises(ValueError, match="align pixel_centers or corners"):
        gather_features(features, pixels, align="center")


def test_refuses_features_without_pixels(cpu):
    with pytest.raises(ValueError, match="at least one pixel and channel"):
        gather_features(torch.zeros(1, 0, 2, 1), torch.zeros(1, 1, 2))
