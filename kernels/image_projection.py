"""Projection of points and of depth images into views, and the adjoints: the first half of the family `image_warp`.

Cameras are OpenCV's (x right, y down, z forward). With p' = R p + t in camera coordinates and intrinsics (fx, fy, cx, cy),
    u = fx p'x / p'z + cx      v = fy p'y / p'z + cy      depth = p'z
where pixel centres lie at +0.5. A point with p'z <= NEAREST (NaN, too) is not seen: its pixel is (BEHIND, BEHIND), outside of
every image, its depth is 0, and it has no gradient.

A thread works on a chunk of the points of one view, whose camera it has in registers. The gradients of the camera are sums
over all points: a thread writes the sums of its chunk, for torch to add. Nothing is atomic, and sums stay short and exact.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import lanes_of, real

NEAREST = 1e-6
BEHIND = -1e4


@ti.func
def row_of(pose: ti.template(), view, k: ti.template()):
    return ti.Vector([pose[view, k, 0], pose[view, k, 1], pose[view, k, 2], pose[view, k, 3]])


@ti.func
def moved(row, x, y, z):
    return row[0] * x + row[1] * y + row[2] * z + row[3]


@ti.kernel
def project_points(
    points: ti.types.ndarray(ndim=2),  # [n_points, 3]
    world_to_cameras: ti.types.ndarray(ndim=3),  # [n_views, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_views, 4] fx, fy, cx, cy
    chunk: ti.i32,
    n_chunks: ti.i32,
    out_pixels: ti.types.ndarray(ndim=3),  # [n_views, n_points, 2]
    out_depths: ti.types.ndarray(ndim=2),  # [n_views, n_points]
):
    for q in range(out_depths.shape[0] * n_chunks):
        view = q // n_chunks
        first = (q - view * n_chunks) * chunk
        to_x, to_y, to_z = row_of(world_to_cameras, view, 0), row_of(world_to_cameras, view, 1), row_of(world_to_cameras, view, 2)
        fx, fy, cx, cy = intrinsics[view, 0], intrinsics[view, 1], intrinsics[view, 2], intrinsics[view, 3]
        for i in range(first, ti.min(first + chunk, points.shape[0])):
            x, y, z = points[i, 0], points[i, 1], points[i, 2]
            depth = moved(to_z, x, y, z)
            seen = depth > real(points, NEAREST)
            near = real(points, 1) / ti.select(seen, depth, real(points, 1))
            u = ti.select(seen, fx * (moved(to_x, x, y, z) * near) + cx, real(points, BEHIND))
            v = ti.select(seen, fy * (moved(to_y, x, y, z) * near) + cy, real(points, BEHIND))
            out_pixels[view, i, 0] = u
            out_pixels[view, i, 1] = v
            out_depths[view, i] = ti.select(seen, depth, real(points, 0))


@ti.kernel
def project_points_adjoint(
    points: ti.types.ndarray(ndim=2),  # [n_points, 3]
    world_to_cameras: ti.types.ndarray(ndim=3),  # [n_views, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_views, 4]
    grad_pixels: ti.types.ndarray(ndim=3),  # [n_views, n_points, 2]
    grad_depths: ti.types.ndarray(ndim=2),  # [n_views, n_points]
    chunk: ti.i32,
    out_points: ti.types.ndarray(ndim=2),  # [n_points, 3], added to
    out_sums: ti.types.ndarray(ndim=3),  # [n_views, n_chunks, 16]: world_to_camera, then intrinsics
):
    """A thread owns a chunk of the points and walks it once for every view."""
    for q in range(out_sums.shape[1]):
        first = q * chunk
        for view in range(out_sums.shape[0]):
            to_x, to_y = row_of(world_to_cameras, view, 0), row_of(world_to_cameras, view, 1)
            to_z = row_of(world_to_cameras, view, 2)
            fx, fy = intrinsics[view, 0], intrinsics[view, 1]
            sums = ti.Vector([real(points, 0) for _ in range(16)])
            for i in range(first, ti.min(first + chunk, points.shape[0])):
                p = ti.Vector([points[i, 0], points[i, 1], points[i, 2], real(points, 1)])
                depth = moved(to_z, p[0], p[1], p[2])
                if depth > real(points, NEAREST):
                    near = real(points, 1) / depth
                    x, y = moved(to_x, p[0], p[1], p[2]) * near, moved(to_y, p[0], p[1], p[2]) * near
                    of_u, of_v = grad_pixels[view, i, 0], grad_pixels[view, i, 1]
                    of_x, of_y = of_u * fx * near, of_v * fy * near
                    of_z = grad_depths[view, i] - (of_x * x + of_y * y)
                    for axis in ti.static(range(4)):
                        sums[axis] += of_x * p[axis]
                        sums[4 + axis] += of_y * p[axis]
                        sums[8 + axis] += of_z * p[axis]
                    sums[12] += of_u * x
                    sums[13] += of_v * y
                    sums[14] += of_u
                    sums[15] += of_v
                    for axis in ti.static(range(3)):
                        of_p = to_x[axis] * of_x + to_y[axis] * of_y + to_z[axis] * of_z
                        out_points[i, axis] = out_points[i, axis] + of_p
            for k in ti.static(range(16)):
                out_sums[view, q, k] = sums[k]


@ti.kernel
def project_depth(
    depth: ti.types.ndarray(ndim=1),  # [n_views * n_pixels] of the target
    source_from_target: ti.types.ndarray(ndim=3),  # [n_views, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_views, 4] of both cameras
    height: ti.i32,
    width: ti.i32,
    chunk: ti.i32,
    n_chunks: ti.i32,
    n_lanes: ti.template(),
    out_pixels: ti.types.ndarray(ndim=1),  # [n_views * n_pixels * 2] in the source
    out_valid: ti.types.ndarray(ndim=1),  # [n_views * n_pixels] uint8: seen, and inside the source image
):
    """Lift every pixel of the target to its depth and project it into the source."""
    n_pixels = height * width
    for q in range(source_from_target.shape[0] * n_chunks):
        view = q // n_chunks
        begin = (q - view * n_chunks) * chunk
        end = ti.min(begin + chunk, n_pixels)
        to_x, to_y = row_of(source_from_target, view, 0), row_of(source_from_target, view, 1)
        to_z = row_of(source_from_target, view, 2)
        fx, fy, cx, cy = intrinsics[view, 0], intrinsics[view, 1], intrinsics[view, 2], intrinsics[view, 3]
        for block in range((end - begin + n_lanes - 1) // n_lanes):
            first = begin + block * n_lanes
            z = lanes_of(real(depth, 0), n_lanes)
            if first + n_lanes <= end:  # without a minimum in the index the loads are vectors, too
                for lane in range(n_lanes):
                    z[lane] = depth[view * n_pixels + first + lane]
            else:
                for lane in range(n_lanes):
                    z[lane] = depth[view * n_pixels + ti.min(first + lane, end - 1)]
            u, v = lanes_of(real(depth, 0), n_lanes), lanes_of(real(depth, 0), n_lanes)
            valid = lanes_of(0, n_lanes)
            for lane in range(n_lanes):
                row = (first + lane) // width
                x = z[lane] * ((first + lane - row * width + real(depth, 0.5) - cx) / fx)
                y = z[lane] * ((row + real(depth, 0.5) - cy) / fy)
                distance = moved(to_z, x, y, z[lane])
                seen = distance > real(depth, NEAREST)
                near = real(depth, 1) / ti.select(seen, distance, real(depth, 1))
                u[lane] = ti.select(seen, fx * (moved(to_x, x, y, z[lane]) * near) + cx, real(depth, BEHIND))
                v[lane] = ti.select(seen, fy * (moved(to_y, x, y, z[lane]) * near) + cy, real(depth, BEHIND))
                valid[lane] = ti.cast(seen & (u[lane] >= 0) & (u[lane] <= width) & (v[lane] >= 0) & (v[lane] <= height), ti.i32)
            for lane in range(ti.min(n_lanes, end - first)):
                i = view * n_pixels + first + lane
                out_pixels[2 * i] = u[lane]
                out_pixels[2 * i + 1] = v[lane]
                out_valid[i] = ti.cast(valid[lane], ti.u8)


@ti.kernel
def project_depth_adjoint(
    depth: ti.types.ndarray(ndim=2),  # [n_views, height * width]
    source_from_target: ti.types.ndarray(ndim=3),  # [n_views, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_views, 4]
    grad_pixels: ti.types.ndarray(ndim=3),  # [n_views, height * width, 2]
    width: ti.i32,
    chunk: ti.i32,
    out_depth: ti.types.ndarray(ndim=2),  # [n_views, height * width]
    out_sums: ti.types.ndarray(ndim=3),  # [n_views, n_chunks, 16]: source_from_target, then intrinsics
):
    n_chunks = out_sums.shape[1]
    for q in range(depth.shape[0] * n_chunks):
        view = q // n_chunks
        first = (q - view * n_chunks) * chunk
        to_x, to_y = row_of(source_from_target, view, 0), row_of(source_from_target, view, 1)
        to_z = row_of(source_from_target, view, 2)
        fx, fy, cx, cy = intrinsics[view, 0], intrinsics[view, 1], intrinsics[view, 2], intrinsics[view, 3]
        sums = ti.Vector([real(depth, 0) for _ in range(16)])
        for i in range(first, ti.min(first + chunk, depth.shape[1])):
            row = i // width
            z = depth[view, i]
            ray_x = (i - row * width + real(depth, 0.5) - cx) / fx
            ray_y = (row + real(depth, 0.5) - cy) / fy
            p = ti.Vector([z * ray_x, z * ray_y, z, real(depth, 1)])
            distance = moved(to_z, p[0], p[1], p[2])
            of_depth = real(depth, 0)
            if distance > real(depth, NEAREST):
                near = real(depth, 1) / distance
                x, y = moved(to_x, p[0], p[1], p[2]) * near, moved(to_y, p[0], p[1], p[2]) * near
                of_u, of_v = grad_pixels[view, i, 0], grad_pixels[view, i, 1]
                of_x, of_y = of_u * fx * near, of_v * fy * near
                of_z = -(of_x * x + of_y * y)
                for axis in ti.static(range(4)):
                    sums[axis] += of_x * p[axis]
                    sums[4 + axis] += of_y * p[axis]
                    sums[8 + axis] += of_z * p[axis]
                of_p = ti.Vector([to_x[axis] * of_x + to_y[axis] * of_y + to_z[axis] * of_z for axis in ti.static(range(3))])
                of_depth = of_p[0] * ray_x + of_p[1] * ray_y + of_p[2]
                # The intrinsics project into the source, and lift from the target.
                sums[12] += of_u * x - of_p[0] * p[0] / fx
                sums[13] += of_v * y - of_p[1] * p[1] / fy
                sums[14] += of_u - of_p[0] * z / fx
                sums[15] += of_v - of_p[1] * z / fy
            out_depth[view, i] = of_depth
        for k in ti.static(range(16)):
            out_sums[view, q - view * n_chunks, k] = sums[k]
