"""Rays through the pixels of cameras with lenses, and their adjoint.

A camera looks along +z, x right, y down; its camera-to-world [R | t] maps camera points to the world. A pixel (x, y) has
the image point (a, b) = ((x - cx) / fx, (y - cy) / fy), and a lens gives it the camera-space direction d:

    PINHOLE          d = (a, b, 1)
    OPENCV           d = (p, q, 1), (a, b) = F(p, q): radial (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶)
                     and tangential p1, p2 (Brown 1966)
    FISHEYE          d = (e sin θ, cos θ), (a, b) = e θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸), |e| = 1 (Kannala, Brandt 2006)
    EQUIRECTANGULAR  longitude a (to the right), latitude b (downwards), in radians
    ORTHOGRAPHIC     d = (0, 0, 1) from the camera point (a, b, 0)

The ray is R d / |R d| from t. Its radius is the pixel's width at distance one, |∂ray/∂x|, times 2/√12 (Barron et al. 2021,
§3.1): the disc has the variance of the pixel. The derivative replaces a difference to the next column: they agree to second
order in the pixel's angle, and it costs no second inversion and cancels no digits. mip-NeRF measures the width in the picture's
plane, here it is that across the ray: less by the sine of the angle between the ray and the row, 5 % in a corner of a 40° view.

Lenses are inverted by Newton's method from the axis outwards, a step being halved until it comes closer to the image point
and stays where the lens map is invertible. A step may still jump over a fold or pole to where it is invertible again; then
the search is repeated with steps that end before. A point that no direction within the lens' fold maps to stays at the last of
these steps, near the fold: finite, but no gradient passes through the lens there, and its radius is that of the principal
point. Gradients do not follow the iterations. Where (a, b) = F(d; k), the implicit function theorem gives
∂d/∂(a, b) as the inverse Jacobian, and ∂L/∂k = -λ ∂F/∂k for λ = ∂L/∂(a, b).
"""

import math

import taichi as ti

from taichi_nerf.kernels.device_functions import real

PINHOLE, OPENCV, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC = range(5)
N_ITERATIONS = 40  # four or five are usual; all of them only beyond the fold
N_LOOKS = 64  # for a fold, along the radius
DISC_OF_PIXEL = 2 / math.sqrt(12)


@ti.func
def distort(p, q, k):
    """OPENCV's image point of the direction (p, q, 1), its symmetric Jacobian [[a_p, a_q], [a_q, b_q]], the denominator."""
    r2 = p * p + q * q
    denominator = 1 + r2 * (k[3] + r2 * (k[4] + r2 * k[5]))
    radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[2]))) / denominator
    of_numerator = k[0] + r2 * (2 * k[1] + r2 * 3 * k[2])
    of_denominator = k[3] + r2 * (2 * k[4] + r2 * 3 * k[5])
    slope = (of_numerator - radial * of_denominator) / denominator  # ∂radial / ∂r²
    p1, p2 = k[6], k[7]
    a = p * radial + 2 * p1 * p * q + p2 * (r2 + 2 * p * p)
    b = q * radial + p1 * (r2 + 2 * q * q) + 2 * p2 * p * q
    a_p = radial + 2 * p * p * slope + 2 * p1 * q + 6 * p2 * p
    a_q = 2 * p * q * slope + 2 * p1 * p + 2 * p2 * q
    b_q = radial + 2 * q * q * slope + 6 * p1 * q + 2 * p2 * p
    return a, b, a_p, a_q, b_q, denominator


@ti.func
def behind_fold(r2, k):
    """r² somewhere behind the first fold or pole that lies before r2, if the radial factor has one and r2 is on another branch.

    Else twice r2. With r the direction's radius and N / D the radial factor, D² ∂(r N / D) / ∂r is a polynomial in r²; where
    its negative terms cannot outweigh the first, which is usual, no place needs to be looked at.
    """
    p = ti.Vector(
        [
            3 * k[0] - k[3],
            5 * k[1] + k[0] * k[3] - 3 * k[4],
            7 * k[2] + 3 * k[1] * k[3] - k[0] * k[4] - 5 * k[5],
            5 * k[2] * k[3] + k[1] * k[4] - 3 * k[0] * k[5],
            3 * k[2] * k[4] - k[1] * k[5],
            k[2] * k[5],
        ]
    )
    slope, least, least_denominator = real(r2, 0), real(r2, 0), real(r2, 0)
    for i in ti.static(range(5, -1, -1)):
        slope = r2 * (p[i] + slope)
        least = r2 * (ti.min(p[i], 0) + least)
    for i in ti.static(range(5, 2, -1)):
        least_denominator = r2 * (ti.min(k[i], 0) + least_denominator)
    found = 2 * r2
    if 1 + slope > 0 and (1 + least <= 0 or 1 + least_denominator <= 0):
        for look in range(1, N_LOOKS):
            t = r2 * look * look / (N_LOOKS * N_LOOKS)
            slope_there = 1 + t * (p[0] + t * (p[1] + t * (p[2] + t * (p[3] + t * (p[4] + t * p[5])))))
            denominator = 1 + t * (k[3] + t * (k[4] + t * k[5]))
            if slope_there <= 0 or denominator <= 0:
                found = t
                break
    return found


@ti.func
def undistort(a, b, k, tolerance):
    """(p, q) with distort(p, q) = (a, b), its inverse Jacobian [[p_a, p_b], [p_b, q_b]], and whether it was found."""
    p, q, error = real(a, 0), real(a, 0), real(a, 0)
    p_a, p_b, q_b = real(a, 1), real(a, 0), real(a, 1)
    enough = tolerance * (1 + ti.abs(a) + ti.abs(b))
    limit = real(a, 1e30)  # of p² + q²
    for _attempt in range(2):
        p, q, error = real(a, 0), real(a, 0), a * a + b * b
        p_a, p_b, q_b = real(a, 1), real(a, 0), real(a, 1)
        step_p, step_q = a, b  # Newton's from the axis, where the Jacobian is the identity
        fraction = real(a, 1)
        for _ in range(N_ITERATIONS):
            new_p, new_q = p + fraction * step_p, q + fraction * step_q
            new_a, new_b, a_p, a_q, b_q, denominator = distort(new_p, new_q, k)
            miss_a, miss_b = a - new_a, b - new_b
            new_error = miss_a * miss_a + miss_b * miss_b
            determinant = a_p * b_q - a_q * a_q
            inside = new_p * new_p + new_q * new_q < limit and denominator > 0
            if new_error < error and inside and determinant > 0 and a_p + b_q > 0:
                p, q, error = new_p, new_q, new_error
                p_a, p_b, q_b = b_q / determinant, -a_q / determinant, a_p / determinant
                step_p, step_q = p_a * miss_a + p_b * miss_b, p_b * miss_a + q_b * miss_b
                fraction = real(a, 1)
            else:
                fraction /= 2
            if fraction * (ti.abs(step_p) + ti.abs(step_q)) <= enough:
                break
        limit = behind_fold(p * p + q * q, k)
        if limit >= p * p + q * q:
            break
    return p, q, p_a, p_b, q_b, error <= real(a, 1e-10) * (1 + a * a + b * b)


@ti.func
def fisheye_radius(theta, k):
    """Image radius of the angle θ from the axis, and its derivative."""
    t2 = theta * theta
    k1, k2, k3, k4 = k[0], k[1], k[2], k[3]
    radius = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    return radius, 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


@ti.func
def fisheye_angle(radius, k, tolerance):
    """θ in [0, π] with fisheye_radius(θ) = radius, the derivative there, and whether it was found."""
    theta, slope = real(radius, 0), real(radius, 1)
    step, error, fraction = radius, radius, real(radius, 1)
    for _ in range(N_ITERATIONS):
        new_theta = theta + fraction * step
        new_radius, new_slope = fisheye_radius(new_theta, k)
        new_error = ti.abs(radius - new_radius)
        if new_error < error and new_slope > 0 and new_theta <= real(radius, math.pi):
            theta, slope, error = new_theta, new_slope, new_error
            step = (radius - new_radius) / slope
            fraction = real(radius, 1)
        else:
            fraction /= 2
        if fraction * ti.abs(step) <= tolerance * (1 + radius):
            break
    return theta, slope, error <= real(radius, 1e-5) * (1 + radius)


@ti.func
def through_lens(model, a, b, k, tolerance):
    """The matrix [d, ∂d/∂a, ∂d/∂b] for the image point (a, b), and whether the lens has a direction for it."""
    x, y, z = a, b, real(a, 1)
    x_a, y_a, z_a = real(a, 1), real(a, 0), real(a, 0)
    x_b, y_b, z_b = real(a, 0), real(a, 1), real(a, 0)
    found = True
    if model == OPENCV:
        x, y, x_a, y_a, y_b, found = undistort(a, b, k, tolerance)
        x_b = y_a
    elif model == FISHEYE:
        radius = ti.sqrt(a * a + b * b)
        theta, slope, found = fisheye_angle(radius, k, tolerance)
        inverse = 1 / ti.max(radius, real(a, 1e-30))
        e_x, e_y = a * inverse, b * inverse
        sine, cosine = ti.sin(theta), ti.cos(theta)
        stretch = ti.select(radius > real(a, 1e-15), sine * inverse, real(a, 1))  # sin θ / radius
        across = cosine / slope - stretch
        x, y, z = stretch * a, stretch * b, cosine
        x_a, y_a, z_a = stretch + e_x * e_x * across, e_x * e_y * across, -sine / slope * e_x
        x_b, y_b, z_b = e_x * e_y * across, stretch + e_y * e_y * across, -sine / slope * e_y
    elif model == EQUIRECTANGULAR:
        sine_a, cosine_a, sine_b, cosine_b = ti.sin(a), ti.cos(a), ti.sin(b), ti.cos(b)
        x, y, z = sine_a * cosine_b, sine_b, cosine_a * cosine_b
        x_a, y_a, z_a = cosine_a * cosine_b, real(a, 0), -sine_a * cosine_b
        x_b, y_b, z_b = -sine_a * sine_b, cosine_b, -cosine_a * sine_b
    elif model == ORTHOGRAPHIC:
        x, y, x_a, y_b = real(a, 0), real(a, 0), real(a, 0), real(a, 0)
    return ti.Matrix([[x, x_a, x_b], [y, y_a, y_b], [z, z_a, z_b]]), found


@ti.func
def image_point(pixels: ti.template(), ray, intrinsics: ti.template(), camera):
    a = (pixels[ray, 0] - intrinsics[camera, 2]) / intrinsics[camera, 0]
    b = (pixels[ray, 1] - intrinsics[camera, 3]) / intrinsics[camera, 1]
    return a, b


@ti.func
def coefficients_of(distortion: ti.template(), camera):
    return ti.Vector([distortion[camera, i] for i in range(8)])


@ti.func
def column_of(poses: ti.template(), camera, column: ti.template()):
    return ti.Vector([poses[camera, 0, column], poses[camera, 1, column], poses[camera, 2, column]])


@ti.kernel
def generate_rays(
    pixels: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    camera_indices: ti.types.ndarray(ndim=1),  # [n_rays]
    camera_to_worlds: ti.types.ndarray(ndim=3),  # [n_cameras, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_cameras, 4]
    distortion: ti.types.ndarray(ndim=2),  # [n_cameras, 8]
    camera_models: ti.types.ndarray(ndim=1),  # [n_cameras]
    tolerance: ti.f32,
    out_origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_radii: ti.types.ndarray(ndim=1),  # [n_rays]
):
    for ray in range(pixels.shape[0]):
        camera = camera_indices[ray]
        model = camera_models[camera]
        a, b = image_point(pixels, ray, intrinsics, camera)
        lens, found = through_lens(model, a, b, coefficients_of(distortion, camera), tolerance)
        right, down = column_of(camera_to_worlds, camera, 0), column_of(camera_to_worlds, camera, 1)
        forward = column_of(camera_to_worlds, camera, 2)
        world = right * lens[0, 0] + down * lens[1, 0] + forward * lens[2, 0]
        inverse = 1 / world.norm()
        direction = world * inverse
        turn = (right * lens[0, 1] + down * lens[1, 1] + forward * lens[2, 1]) * inverse
        turn -= direction * direction.dot(turn)
        moves = ti.select(model == ORTHOGRAPHIC, real(a, 1), real(a, 0))
        width = ti.select(found, (turn + moves * right).norm(), 1) / ti.abs(intrinsics[camera, 0])
        for i in ti.static(range(3)):
            out_origins[ray, i] = camera_to_worlds[camera, i, 3] + moves * (right[i] * a + down[i] * b)
            out_directions[ray, i] = direction[i]
        out_radii[ray] = width * real(a, DISC_OF_PIXEL)


@ti.func
def add(totals: ti.template(), table, camera, column, value, atomic: ti.template()):
    """totals[table, camera, column] += value. Taichi makes every `+=` on an array atomic, which is slow on the CPU."""
    if ti.static(atomic):
        ti.atomic_add(totals[table, camera, column], value)
    else:
        totals[table, camera, column] = totals[table, camera, column] + value


@ti.func
def add_distortion(totals: ti.template(), table, camera, model, k, d, of_a, of_b, atomic: ti.template()):
    """-λ ∂F/∂k with λ = (of_a, of_b), for the direction d."""
    if model == OPENCV:
        r2 = d[0] * d[0] + d[1] * d[1]
        denominator = 1 + r2 * (k[3] + r2 * (k[4] + r2 * k[5]))
        radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[2]))) / denominator
        power = -(of_a * d[0] + of_b * d[1]) / denominator
        for i in ti.static(range(3)):
            power *= r2
            add(totals, table, camera, 16 + i, power, atomic)
            add(totals, table, camera, 19 + i, -power * radial, atomic)
        cross = 2 * d[0] * d[1]
        add(totals, table, camera, 22, -of_a * cross - of_b * (r2 + 2 * d[1] * d[1]), atomic)
        add(totals, table, camera, 23, -of_b * cross - of_a * (r2 + 2 * d[0] * d[0]), atomic)
    elif model == FISHEYE:
        sine = ti.sqrt(d[0] * d[0] + d[1] * d[1])
        theta = ti.atan2(sine, d[2])
        power = -(of_a * d[0] + of_b * d[1]) / ti.max(sine, real(sine, 1e-30)) * theta
        for i in ti.static(range(4)):
            power *= theta * theta
            add(totals, table, camera, 16 + i, power, atomic)


@ti.kernel
def generate_rays_adjoint(
    pixels: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    camera_indices: ti.types.ndarray(ndim=1),  # [n_rays]
    camera_to_worlds: ti.types.ndarray(ndim=3),  # [n_cameras, 3, 4]
    intrinsics: ti.types.ndarray(ndim=2),  # [n_cameras, 4]
    distortion: ti.types.ndarray(ndim=2),  # [n_cameras, 8]
    camera_models: ti.types.ndarray(ndim=1),  # [n_cameras]
    tolerance: ti.f32,
    grad_origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    grad_directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_pixels: ti.types.ndarray(ndim=2),  # [n_rays, 2]
    out_cameras: ti.types.ndarray(ndim=3),  # [n_tables, n_cameras, 24] zeros: pose 3 x 4, intrinsics 4, distortion 8
    atomic: ti.template(),
):
    """Each table is added to by one worker with a stretch of rays of its own; `atomic`, by all workers, each with one ray.

    The sum over the tables is the gradient of the cameras.
    """
    n_workers = pixels.shape[0] if ti.static(atomic) else out_cameras.shape[0]
    stretch = (pixels.shape[0] + n_workers - 1) // n_workers
    spread = 1 if ti.static(atomic) else 512  # a loop of 512 iterations or fewer would run on one thread
    for q in range(n_workers * spread):
        worker = q // spread
        table = 0 if ti.static(atomic) else worker
        first = worker * stretch
        n_own = ti.min(stretch, pixels.shape[0] - first) if q % spread == 0 else 0
        for ray in range(first, first + n_own):
            camera = camera_indices[ray]
            model = camera_models[camera]
            k = coefficients_of(distortion, camera)
            a, b = image_point(pixels, ray, intrinsics, camera)
            lens, found = through_lens(model, a, b, k, tolerance)
            right, down = column_of(camera_to_worlds, camera, 0), column_of(camera_to_worlds, camera, 1)
            forward = column_of(camera_to_worlds, camera, 2)
            world = right * lens[0, 0] + down * lens[1, 0] + forward * lens[2, 0]
            inverse = 1 / world.norm()
            direction = world * inverse
            of_origin = ti.Vector([grad_origins[ray, 0], grad_origins[ray, 1], grad_origins[ray, 2]])
            of_direction = ti.Vector([grad_directions[ray, 0], grad_directions[ray, 1], grad_directions[ray, 2]])
            of_world = (of_direction - direction * direction.dot(of_direction)) * inverse
            moves = ti.select(model == ORTHOGRAPHIC, real(a, 1), real(a, 0))
            for i in ti.static(range(3)):
                add(out_cameras, table, camera, 4 * i, of_world[i] * lens[0, 0] + of_origin[i] * moves * a, atomic)
                add(out_cameras, table, camera, 4 * i + 1, of_world[i] * lens[1, 0] + of_origin[i] * moves * b, atomic)
                add(out_cameras, table, camera, 4 * i + 2, of_world[i] * lens[2, 0], atomic)
                add(out_cameras, table, camera, 4 * i + 3, of_origin[i], atomic)
            of_camera = ti.Vector([of_world.dot(right), of_world.dot(down), of_world.dot(forward)])
            of_point = ti.Vector([of_origin.dot(right), of_origin.dot(down)]) * moves
            if found:
                for i in ti.static(range(3)):
                    of_point[0] += of_camera[i] * lens[i, 1]
                    of_point[1] += of_camera[i] * lens[i, 2]
            add_distortion(out_cameras, table, camera, model, k, lens[:, 0], of_point[0], of_point[1], atomic)
            of_pixel = of_point / ti.Vector([intrinsics[camera, 0], intrinsics[camera, 1]])
            for i in ti.static(range(2)):
                out_pixels[ray, i] = of_pixel[i]
                add(out_cameras, table, camera, 12 + i, -of_pixel[i] * (b if ti.static(i) else a), atomic)
                add(out_cameras, table, camera, 14 + i, -of_pixel[i], atomic)
