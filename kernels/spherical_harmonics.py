"""Real spherical harmonics of directions, up to degree 4, and their adjoint (see any table, e.g. Green 2003).

    Y_lm = N_l|m| Q_l|m|(z) a_m(x, y) for m >= 0,  N_l|m| Q_l|m|(z) b_|m|(x, y) for m < 0,  in column l² + l + m
    a_m + i b_m = (x + i y)^m      Q_lm(z) = d^m P_l(z) / dz^m
    N_lm = (-1)^m √((2 - [m = 0]) (2l + 1) (l - m)! / (4π (l + m)!))

The order and the signs (Condon-Shortley's, so Y_1 = √(3/4π) (-y, z, -x)) are those of PlenOctrees, instant-ngp and 3D
Gaussian splatting. Directions are taken as they are: the polynomials are evaluated, and differentiated, off the sphere too.
"""

import math

import taichi as ti

from taichi_nerf.kernels.device_functions import real


def scaled_legendre(degree, order):
    """Coefficients of N_lm Q_lm(z), lowest power first, from P_l = (1 / 2^l) Σ_k (-1)^k C(l, k) C(2l - 2k, l) z^(l - 2k)."""
    orthonormal = (1 if order == 0 else 2) * (2 * degree + 1) / (4 * math.pi)
    orthonormal *= math.factorial(degree - order) / math.factorial(degree + order)
    coefficients = [0.0] * (degree - order + 1)
    for k in range((degree - order) // 2 + 1):
        power = degree - 2 * k
        value = (-1) ** (k + order) * math.comb(degree, k) * math.comb(2 * degree - 2 * k, degree) / 2**degree
        coefficients[power - order] = value * math.perm(power, order) * math.sqrt(orthonormal)
    return coefficients


LEGENDRE = [[scaled_legendre(degree, order) for order in range(degree + 1)] for degree in range(5)]
LEGENDRE_SLOPE = [[[i * c for i, c in enumerate(row)][1:] or [0.0] for row in rows] for rows in LEGENDRE]


@ti.func
def polynomial(z, coefficients: ti.template()):
    value = real(z, coefficients[-1])
    for i in ti.static(range(len(coefficients) - 2, -1, -1)):
        value = value * z + real(z, coefficients[i])
    return value


@ti.func
def powers(x, y):
    """Real and imaginary parts of (x + i y)^m, m = 0 … 4."""
    one, zero = x * 0 + 1, x * 0
    x2, y2 = x * x - y * y, 2 * x * y
    x3, y3 = x2 * x - y2 * y, x2 * y + y2 * x
    return ti.Vector([one, x, x2, x3, x2 * x2 - y2 * y2]), ti.Vector([zero, y, y2, y3, 2 * x2 * y2])


@ti.func
def write_harmonics(x, y, z, degree: ti.template(), out: ti.template(), row, column):
    """All harmonics of a direction, into a row of `out` from `column` on."""
    a, b = powers(x, y)
    for l in ti.static(range(degree + 1)):  # noqa: E741 - the band, in everyone's notation
        for m in ti.static(range(l + 1)):
            q = polynomial(z, LEGENDRE[l][m])
            out[row, column + l * l + l + m] = q * a[m]
            if ti.static(m > 0):
                out[row, column + l * l + l - m] = q * b[m]


@ti.kernel
def evaluate_harmonics(
    directions: ti.types.ndarray(ndim=2),  # [n_directions, 3]
    degree: ti.template(),
    out: ti.types.ndarray(ndim=2),  # [n_directions, (degree + 1)²]
):
    for i in range(directions.shape[0]):
        write_harmonics(directions[i, 0], directions[i, 1], directions[i, 2], degree, out, i, 0)


@ti.kernel
def evaluate_harmonics_adjoint(
    directions: ti.types.ndarray(ndim=2),  # [n_directions, 3]
    grad_out: ti.types.ndarray(ndim=2),  # [n_directions, (degree + 1)²]
    degree: ti.template(),
    out_directions: ti.types.ndarray(ndim=2),  # [n_directions, 3]
):
    """∂a_m/∂x = m a_{m-1}, ∂a_m/∂y = -m b_{m-1}, ∂b_m/∂x = m b_{m-1}, ∂b_m/∂y = m a_{m-1}."""
    for i in range(directions.shape[0]):
        z = directions[i, 2]
        a, b = powers(directions[i, 0], directions[i, 1])
        of_x, of_y, of_z = z * 0, z * 0, z * 0
        for l in ti.static(range(degree + 1)):  # noqa: E741
            of_z += polynomial(z, LEGENDRE_SLOPE[l][0]) * grad_out[i, l * l + l]
            for m in ti.static(range(1, l + 1)):
                of_a, of_b = grad_out[i, l * l + l + m], grad_out[i, l * l + l - m]
                mq = m * polynomial(z, LEGENDRE[l][m])
                of_x += mq * (of_a * a[m - 1] + of_b * b[m - 1])
                of_y += mq * (of_b * a[m - 1] - of_a * b[m - 1])
                of_z += polynomial(z, LEGENDRE_SLOPE[l][m]) * (of_a * a[m] + of_b * b[m])
        out_directions[i, 0] = of_x
        out_directions[i, 1] = of_y
        out_directions[i, 2] = of_z
