"""Trilinear lookup in a dense grid of features (the voxel fields of DVGO and Plenoxels), and its adjoints.

Grid points lie on the corners of the unit cube: position x in [0, 1] is x (width - 1) in units of the spacing, between the
points i = floor and i + 1 with weights 1 - f and f. Positions outside take the value of the border and, along that axis,
have no gradient. NaN counts as 0.

A store through one array makes the compiler reload the address and sizes of all the others, so channels go in groups of
`lanes` (a divisor of their number): all loads of a group, then its stores. `log_parts` spreads the groups of a position
over 2^log_parts threads, for neighbouring threads of a GPU to read neighbouring memory; 0 on the CPU.
"""

import taichi as ti

from taichi_nerf.kernels.device_functions import lattice, real, weight_of


@ti.kernel
def sample_voxel_grid(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grid: ti.types.ndarray(ndim=4),  # [depth, height, width, n_channels]
    lanes: ti.template(),
    log_parts: ti.i32,
    out: ti.types.ndarray(ndim=2),  # [n, n_channels]
):
    for q in range(positions.shape[0] << log_parts):
        i = q >> log_parts
        part = q - (i << log_parts)
        x0, fx, _sx = lattice(positions[i, 0], grid.shape[2])
        y0, fy, _sy = lattice(positions[i, 1], grid.shape[1])
        z0, fz, _sz = lattice(positions[i, 2], grid.shape[0])
        n_groups = grid.shape[3] // lanes
        share = (n_groups + (1 << log_parts) - 1) >> log_parts
        for group in range(part * share, ti.min((part + 1) * share, n_groups)):
            first = group * lanes
            sample = ti.Vector([real(grid, 0) for _ in range(lanes)])
            for dz, dy, dx in ti.static(ti.ndrange(2, 2, 2)):
                z = ti.min(z0 + dz, grid.shape[0] - 1)
                y = ti.min(y0 + dy, grid.shape[1] - 1)
                x = ti.min(x0 + dx, grid.shape[2] - 1)
                weight = weight_of(fz, dz) * weight_of(fy, dy) * weight_of(fx, dx)
                for lane in ti.static(range(lanes)):
                    sample[lane] += weight * grid[z, y, x, first + lane]
            for lane in ti.static(range(lanes)):
                out[i, first + lane] = sample[lane]


@ti.kernel
def sample_voxel_grid_positions_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grid: ti.types.ndarray(ndim=4),  # [depth, height, width, n_channels]
    grad_out: ti.types.ndarray(ndim=2),  # [n, n_channels]
    out_positions: ti.types.ndarray(ndim=2),  # [n, 3]
):
    """With the products p of the cotangent and each corner's features, ∂L/∂x = slope Σ ±(weights along y and z) p."""
    for i in range(positions.shape[0]):
        x0, fx, sx = lattice(positions[i, 0], grid.shape[2])
        y0, fy, sy = lattice(positions[i, 1], grid.shape[1])
        z0, fz, sz = lattice(positions[i, 2], grid.shape[0])
        x1 = ti.min(x0 + 1, grid.shape[2] - 1)
        y1 = ti.min(y0 + 1, grid.shape[1] - 1)
        z1 = ti.min(z0 + 1, grid.shape[0] - 1)
        products = ti.Vector([real(grid, 0) for _ in range(8)])
        for channel in range(grid.shape[3]):
            cotangent = grad_out[i, channel]
            for dz, dy, dx in ti.static(ti.ndrange(2, 2, 2)):
                value = grid[z1 if ti.static(dz) else z0, y1 if ti.static(dy) else y0, x1 if ti.static(dx) else x0, channel]
                products[dz * 4 + dy * 2 + dx] += cotangent * value
        of_x, of_y, of_z = real(grid, 0), real(grid, 0), real(grid, 0)
        for dz, dy, dx in ti.static(ti.ndrange(2, 2, 2)):
            product = products[dz * 4 + dy * 2 + dx]
            of_x += (2 * dx - 1) * weight_of(fy, dy) * weight_of(fz, dz) * product
            of_y += (2 * dy - 1) * weight_of(fx, dx) * weight_of(fz, dz) * product
            of_z += (2 * dz - 1) * weight_of(fx, dx) * weight_of(fy, dy) * product
        out_positions[i, 0] = sx * of_x
        out_positions[i, 1] = sy * of_y
        out_positions[i, 2] = sz * of_z


@ti.kernel
def sample_voxel_grid_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grad_out: ti.types.ndarray(ndim=2),  # [n, n_channels]
    lanes: ti.template(),
    log_parts: ti.i32,
    out_grid: ti.types.ndarray(ndim=4),  # [depth, height, width, n_channels], added to
):
    """The gradient of the grid, with atomic additions: for GPUs."""
    for q in range(positions.shape[0] << log_parts):
        i = q >> log_parts
        part = q - (i << log_parts)
        x0, fx, _sx = lattice(positions[i, 0], out_grid.shape[2])
        y0, fy, _sy = lattice(positions[i, 1], out_grid.shape[1])
        z0, fz, _sz = lattice(positions[i, 2], out_grid.shape[0])
        n_groups = out_grid.shape[3] // lanes
        share = (n_groups + (1 << log_parts) - 1) >> log_parts
        for group in range(part * share, ti.min((part + 1) * share, n_groups)):
            first = group * lanes
            for dz, dy, dx in ti.static(ti.ndrange(2, 2, 2)):
                z = ti.min(z0 + dz, out_grid.shape[0] - 1)
                y = ti.min(y0 + dy, out_grid.shape[1] - 1)
                x = ti.min(x0 + dx, out_grid.shape[2] - 1)
                weight = weight_of(fz, dz) * weight_of(fy, dy) * weight_of(fx, dx)
                for lane in ti.static(range(lanes)):
                    out_grid[z, y, x, first + lane] += weight * grad_out[i, first + lane]


@ti.kernel
def sample_voxel_grid_owned_adjoint(
    positions: ti.types.ndarray(ndim=2),  # [n, 3]
    grad_out: ti.types.ndarray(ndim=2),  # [n, n_channels]
    owners: ti.types.ndarray(ndim=1),  # [depth] int32
    n_owners: ti.i32,
    lanes: ti.template(),
    out_grid: ti.types.ndarray(ndim=4),  # [depth, height, width, n_channels], added to
):
    """The gradient of the grid without atomics: layer z belongs to thread owners[z].

    A thread reads all positions and adds what falls on its own layers. 512 iterations a thread, of which one works,
    because Taichi runs shorter loops on one core.
    """
    for q in range(n_owners * 512):
        if q % 512 == 0:
            for i in range(positions.shape[0]):
                z0, fz, _sz = lattice(positions[i, 2], out_grid.shape[0])
                z1 = ti.min(z0 + 1, out_grid.shape[0] - 1)
                owns0, owns1 = owners[z0] == q // 512, owners[z1] == q // 512
                if owns0 or owns1:
                    x0, fx, _sx = lattice(positions[i, 0], out_grid.shape[2])
                    y0, fy, _sy = lattice(positions[i, 1], out_grid.shape[1])
                    x1 = ti.min(x0 + 1, out_grid.shape[2] - 1)
                    y1 = ti.min(y0 + 1, out_grid.shape[1] - 1)
                    for group in range(out_grid.shape[3] // lanes):
                        first = group * lanes
                        cotangent = ti.Vector([grad_out[i, first + lane] for lane in range(lanes)])
                        for dz in ti.static(range(2)):
                            z = z1 if ti.static(dz) else z0
                            if owns1 if ti.static(dz) else owns0:
                                for dy, dx in ti.static(ti.ndrange(2, 2)):
                                    y = y1 if ti.static(dy) else y0
                                    x = x1 if ti.static(dx) else x0
                                    weight = weight_of(fz, dz) * weight_of(fy, dy) * weight_of(fx, dx)
                                    total = ti.Vector(
                                        [out_grid[z, y, x, first + k] + weight * cotangent[k] for k in range(lanes)]
                                    )
                                    for lane in ti.static(range(lanes)):
                                        out_grid[z, y, x, first + lane] = total[lane]
