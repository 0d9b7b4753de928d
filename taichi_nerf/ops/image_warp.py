"""Projection into views, lookup in their feature images, and the inverse warp. Kernels: `image_projection` and `image_warp`."""

from typing import Any, Literal

import torch
from torch import Tensor

from taichi_nerf.kernels import image_projection, image_warp
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, fresh, plain
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.runtime import current


def project_points(
    points: Tensor,  # [n_points, 3]
    world_to_cameras: Tensor,  # [n_views, 3, 4] OpenCV: x right, y down, z forward
    intrinsics: Tensor,  # [n_views, 4] fx, fy, cx, cy in pixels
) -> tuple[Tensor, Tensor]:
    """Where views see points: pixels [n_views, n_points, 2], centres at +0.5, and z depths [n_views, n_points].

    A point behind a camera, or less than 1e-6 in front of it, has depth 0, pixel (-10000, -10000) and no gradient.
    Gradients flow to all three arguments.
    """
    check(
        "project_points",
        points=(points, "n_points 3"),
        world_to_cameras=(world_to_cameras, "n_views 3 4"),
        intrinsics=(intrinsics, "n_views 4"),
    )
    return _ProjectPoints.apply(points, world_to_cameras, intrinsics)


def gather_features(
    features: Tensor,  # [n_views, height, width, n_channels]
    pixels: Tensor,  # [n_views, n_points, 2]
    *,
    padding: Literal["border", "zeros"] = "border",
    align: Literal["pixel_centers", "corners"] = "pixel_centers",
) -> Tensor:
    """Bilinear lookup: [n_views, n_points, n_channels]. The first feature lies at (0.5, 0.5), with corners at (0, 0).

    "pixel_centers" is grid_sample's align_corners=False, "corners" its align_corners=True, in pixels instead of [-1, 1].
    Beyond the outermost features lies the border's value (no gradient of the pixel there) or a slope to zero.

    Pixels are the features' own: for features of another resolution than the image, scale them first. pixelNeRF's
    mapping, u S / W with W pixels and S features across and no half pixel, is
    `gather_features(features, uv * S / W, align="corners")`.
    Gradients flow to features and pixels.
    """
    check(
        "gather_features",
        features=(features, "n_views height width n_channels"),
        pixels=(pixels, "n_views n_points 2"),
    )
    if 0 in features.shape[1:]:
        raise ValueError(f"gather_features: features has to have at least one pixel and channel, got {list(features.shape)}")
    if padding not in ("border", "zeros") or align not in ("pixel_centers", "corners"):
        raise ValueError(
            "gather_features: padding has to be border or zeros, and align pixel_centers or corners, "
            f"got {padding!r} and {align!r}"
        )
    gathered: Tensor = _GatherFeatures.apply(features, pixels, 0.5 if align == "pixel_centers" else 0.0, padding == "zeros")
    return gathered


def inverse_warp(
    source: Tensor,  # [n_views, height, width, n_channels]
    depth: Tensor,  # [n_views, height, width] z depth of the target view
    source_from_target: Tensor,  # [n_views, 3, 4] target camera -> source camera
    intrinsics: Tensor,  # [n_views, 4] fx, fy, cx, cy of both cameras
) -> tuple[Tensor, Tensor]:
    """The source image as the target camera sees it [n_views, height, width, n_channels], and where that is valid.

    Every target pixel is lifted to its depth, moved into the source camera and looked up there (Zhou et al. 2017; Godard
    et al. 2019), with border padding. `valid` [n_views, height, width] (bool) tells where the point lies in front of the
    source camera and inside its image. Gradients flow to all four arguments.
    """
    check(
        "inverse_warp",
        source=(source, "n_views height width n_channels"),
        depth=(depth, "n_views height width"),
        source_from_target=(source_from_target, "n_views 3 4"),
        intrinsics=(intrinsics, "n_views 4"),
    )
    n_views, height, width, n_channels = source.shape
    pixels, valid = _ProjectDepth.apply(depth, source_from_target, intrinsics)
    warped = gather_features(source, pixels).reshape(n_views, height, width, n_channels)
    return warped, valid.view(n_views, height, width)


def _chunks(n_points: int, n_sets: int, on_gpu: int = 1) -> tuple[int, int]:
    """Points a chunk and chunks a set: chunks long enough to pay, and enough of them to occupy every thread."""
    chunk = min(max(n_points * n_sets // 1024, 1), 256 if current().arch == "cpu" else on_gpu)
    return chunk, -(-n_points // chunk)


class _ProjectPoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points, world_to_cameras, intrinsics):  # type: ignore[no-untyped-def]
        inputs = [plain(x) for x in (points, world_to_cameras, intrinsics)]
        n_views, n_points = len(intrinsics), len(points)
        pixels, depths = points.new_empty(n_views, n_points, 2), points.new_empty(n_views, n_points)
        check("project_points", pixels=(pixels, "n_views n_points 2"))
        if depths.numel():
            launch(image_projection.project_points, *inputs, *_chunks(n_points, n_views), pixels, depths)
        ctx.save_for_backward(*inputs)
        return pixels, depths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_pixels, grad_depths):  # type: ignore[no-untyped-def]
        points, world_to_cameras, intrinsics = (saved.detach() for saved in ctx.saved_tensors)
        of_points = torch.zeros_like(points)
        if not grad_depths.numel():
            return of_points, torch.zeros_like(world_to_cameras), torch.zeros_like(intrinsics)
        chunk, n_chunks = _chunks(len(points), 1, on_gpu=16)
        sums = points.new_empty(len(intrinsics), n_chunks, 16)
        launch(
            image_projection.project_points_adjoint,
            points,
            world_to_cameras,
            intrinsics,
            plain(grad_pixels),
            plain(grad_depths),
            chunk,
            of_points,
            sums,
        )
        of_cameras = sums.sum(1)
        return of_points, of_cameras[:, :12].reshape(-1, 3, 4), of_cameras[:, 12:]


class _ProjectDepth(torch.autograd.Function):
    """The pixels of a target, lifted to their depths and projected into a source: [n_views, height * width, 2], and where."""

    @staticmethod
    def forward(ctx: Any, depth, source_from_target, intrinsics):  # type: ignore[no-untyped-def]
        ctx.shape = n_views, height, width = depth.shape
        inputs = (plain(depth).flatten(1), plain(source_from_target), plain(intrinsics))
        pixels = depth.new_empty(n_views, height * width, 2)
        valid = torch.empty(n_views, height * width, dtype=torch.uint8, device=depth.device)
        check("inverse_warp", pixels=(pixels, "n_views n_pixels 2"))
        if valid.numel():
            split = (height, width, *_chunks(height * width, n_views), 16 if current().arch == "cpu" else 1)
            launch(image_projection.project_depth, inputs[0].view(-1), *inputs[1:], *split, pixels.view(-1), valid.view(-1))
        valid = valid.view(torch.bool)
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(valid)
        return pixels, valid

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_pixels, _grad_valid):  # type: ignore[no-untyped-def]
        depth, source_from_target, intrinsics = (saved.detach() for saved in ctx.saved_tensors)
        of_depth = torch.empty_like(depth)
        if not depth.numel():
            return of_depth.view(ctx.shape), torch.zeros_like(source_from_target), torch.zeros_like(intrinsics)
        chunk, n_chunks = _chunks(depth.shape[1], len(depth), on_gpu=16)
        sums = depth.new_empty(len(depth), n_chunks, 16)
        launch(
            image_projection.project_depth_adjoint,
            depth,
            source_from_target,
            intrinsics,
            plain(grad_pixels),
            ctx.shape[2],
            chunk,
            of_depth,
            sums,
        )
        of_cameras = sums.sum(1)
        return of_depth.view(ctx.shape), of_cameras[:, :12].reshape(-1, 3, 4), of_cameras[:, 12:]


class _GatherFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features, pixels, shift, zeros):  # type: ignore[no-untyped-def]
        features, pixels = plain(features), plain(pixels)
        n_views, n_points, _ = pixels.shape
        out = fresh(features, n_views, n_points, features.shape[3])
        check("gather_features", output=(out, "n_views n_points n_channels"))
        # What every kernel is told: n_points, height, width, n_channels, shift, zeros.
        ctx.options = (n_points, *features.shape[1:], shift, zeros)
        if out.numel():
            split = (*_chunks(n_points, n_views), *_lanes(features.shape[3]), _log_parts(features.shape[3]))
            launch(image_warp.gather_features, features.view(-1), pixels.view(-1), *ctx.options, *split, out.view(-1))
        ctx.save_for_backward(features, pixels)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out):  # type: ignore[no-untyped-def]
        features, pixels = (saved.detach() for saved in ctx.saved_tensors)
        flat = (pixels.view(-1), plain(grad_out).view(-1), *ctx.options)
        n_channels = features.shape[3]
        of_features = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        of_pixels = torch.empty_like(pixels) if ctx.needs_input_grad[1] else None
        if not grad_out.numel():
            return of_features, of_pixels, None, None
        if of_features is not None and current().arch == "cpu":
            owners = _owners(features.shape[0], features.shape[1], current().n_threads)
            with_pixels = of_pixels is not None
            outputs = (of_features.view(-1), (pixels.new_empty(1) if of_pixels is None else of_pixels).view(-1))
            launch(
                image_warp.gather_features_owned_adjoint,
                features.view(-1),
                *flat,
                *owners,
                *_lanes(n_channels),
                with_pixels,
                *outputs,
            )
            return of_features, of_pixels, None, None
        if of_features is not None:
            launch(image_warp.gather_features_adjoint, *flat, _log_parts(n_channels), of_features.view(-1))
        if of_pixels is not None:
            split = (*_chunks(pixels.shape[1], len(pixels)), _lanes(n_channels)[1])
            launch(image_warp.gather_features_pixels_adjoint, features.view(-1), *flat, *split, of_pixels.view(-1))
        return of_features, of_pixels, None, None


def _log_parts(n_channels: int) -> int:
    """On the CPU a thread takes all channels of a pixel, on GPUs four."""
    return 0 if current().arch == "cpu" else ((n_channels - 1) // 4).bit_length()


def _lanes(n_channels: int) -> tuple[int, int]:
    """Pixels and channels that the CPU computes at once; groups of channels have to fill up."""
    return (16, next(d for d in (16, 8, 4, 1) if n_channels % d == 0)) if current().arch == "cpu" else (1, 1)


def _owners(n_views: int, height: int, n_threads: int) -> tuple[Tensor, Tensor]:
    """The thread that every row of every view belongs to, and the span of views in which a thread has rows.

    Whole views where they divide evenly. Otherwise bands of rows, for most pixels to concern one thread only, and four a
    thread and view, for uneven lookups to be shared out.
    """
    if n_views % n_threads == 0:
        share = n_views // n_threads
        first = torch.arange(n_threads, dtype=torch.int32) * share
        rows = (torch.arange(n_views, dtype=torch.int32) // share)[:, None].expand(n_views, height)
        return rows.contiguous(), torch.stack([first, first + share], -1)
    bands = torch.arange(height, dtype=torch.int32) // max(1, height // (4 * n_threads)) % n_threads
    return bands.expand(n_views, height).contiguous(), torch.tensor([[0, n_views]] * n_threads, dtype=torch.int32)
