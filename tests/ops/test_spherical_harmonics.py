"""Spherical harmonics against their defining laws, and against a table of a few values.

Measured against the reference in float32: forward 7e-7, gradients 3e-7 on cpu and lavapipe.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.spherical_harmonics import spherical_harmonics

DEGREE = 4


def on_the_sphere(n, generator):
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)


def legendre(degree, x):
    """P_l by Bonnet's recurrence."""
    previous, value = torch.zeros_like(x), torch.ones_like(x)
    for k in range(degree):
        previous, value = value, ((2 * k + 1) * x * value - k * previous) / (k + 1)
    return value


def quadrature(n=12):
    """Directions and weights that integrate polynomials up to degree 2n - 1 over the sphere exactly."""
    i = torch.arange(1, n, dtype=torch.float64)
    jacobi = torch.diag(i / torch.sqrt(4 * i**2 - 1), 1)
    z, vectors = torch.linalg.eigh(jacobi + jacobi.T)  # Golub-Welsch: nodes and weights of Gauss-Legendre
    azimuth = 2 * math.pi * torch.arange(2 * n, dtype=torch.float64) / (2 * n)
    z, azimuth = (grid.flatten() for grid in torch.meshgrid(z, azimuth, indexing="ij"))
    rho = torch.sqrt(1 - z**2)
    weights = (2 * vectors[0] ** 2).repeat_interleave(2 * n) * math.pi / n
    return torch.stack([rho * torch.cos(azimuth), rho * torch.sin(azimuth), z], -1), weights


def test_they_are_orthonormal_over_the_sphere(cpu):
    directions, weights = quadrature()
    values = spherical_harmonics(directions, degree=DEGREE)
    assert_close(values.T @ (weights[:, None] * values), torch.eye(25, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_squares_of_a_band_sum_to_the_same_in_every_direction(backend, generator):
    values = spherical_harmonics(on_the_sphere(200, generator).float(), degree=DEGREE)
    for band in range(DEGREE + 1):
        sums = (values[:, band**2 : (band + 1) ** 2] ** 2).sum(-1)
        assert_close(sums, torch.full_like(sums, (2 * band + 1) / (4 * math.pi)), atol=2e-6, rtol=0)


def test_addition_theorem(backend, generator):
    """Σ_m Y_lm(a) Y_lm(b) = (2l + 1) / 4π P_l(a · b): a band rotates within itself."""
    a, b = on_the_sphere(200, generator), on_the_sphere(200, generator)
    products = spherical_harmonics(a.float(), degree=DEGREE) * spherical_harmonics(b.float(), degree=DEGREE)
    for band in range(DEGREE + 1):
        expected = (2 * band + 1) / (4 * math.pi) * legendre(band, (a * b).sum(-1))
        assert_close(products[:, band**2 : (band + 1) ** 2].sum(-1).double(), expected, atol=2e-6, rtol=0)


def test_even_bands_are_even_and_odd_bands_are_odd(backend, generator):
    directions = on_the_sphere(50, generator).float()
    signs = torch.cat([torch.full((2 * band + 1,), (-1.0) ** band) for band in range(DEGREE + 1)])
    mirrored = spherical_harmonics(-directions, degree=DEGREE)
    assert_close(mirrored, signs * spherical_harmonics(directions, degree=DEGREE), atol=1e-7, rtol=0)


def test_order_and_signs_are_those_of_the_field(backend):
    """Constants as printed in PlenOctrees, instant-ngp and 3D Gaussian splatting."""
    directions = torch.eye(3)
    values = spherical_harmonics(directions, degree=2)
    of_x, of_y, of_z = values[0], values[1], values[2]
    assert_close(values[:, 0], torch.full((3,), 0.28209479))
    assert_close(of_x[1:4], torch.tensor([0, 0, -0.48860251]))
    assert_close(of_y[1:4], torch.tensor([-0.48860251, 0, 0]))
    assert_close(of_z[1:4], torch.tensor([0, 0.48860251, 0]))
    assert_close(of_x[4:], torch.tensor([0, 0, -0.31539157, 0, 0.54627422]))
    assert_close(of_z[4:], torch.tensor([0, 0, 0.63078313, 0, 0]))
    diagonal = torch.full((1, 3), 3**-0.5)
    assert_close(spherical_harmonics(diagonal, degree=2)[0, [4, 5, 7]], torch.tensor([1, -1, -1]) * 1.09254843 / 3)
    assert_close(spherical_harmonics(diagonal, degree=3)[0, 10], torch.tensor(2.89061144 * 3**-1.5))


def test_lower_degrees_are_the_first_columns(backend, generator):
    directions = on_the_sphere(20, generator).float()
    most = spherical_harmonics(directions, degree=DEGREE)
    for degree in range(DEGREE):
        assert_close(spherical_harmonics(directions, degree=degree), most[:, : (degree + 1) ** 2], atol=1e-7, rtol=0)


def test_band_one_is_the_direction_itself_not_its_half(backend, generator):
    """Peers feed (d + 1) / 2 to harmonics, which then see an eighth of the space."""
    directions = on_the_sphere(20, generator).float()
    _, *band = spherical_harmonics(directions, degree=1).T
    y, z, x = (value / 0.48860251 for value in band)
    assert_close(torch.stack([-x, -y, z], -1), directions, atol=1e-6, rtol=0)


def test_each_band_is_an_eigenspace_of_the_angular_laplacian(cpu, generator):
    """Σ_i (d × ∇)_i² Y = -l (l + 1) Y: the gradient, differenced once more around each axis, on the sphere."""
    d, step = on_the_sphere(10, generator), 1e-4

    def turned(values_of, axis):
        cross = torch.linalg.cross(torch.eye(3, dtype=torch.float64)[axis].expand_as(d), d, dim=-1)
        return [values_of(torch.nn.functional.normalize(d + sign * step * cross, dim=-1), axis) for sign in (1, -1)]

    def momentum(directions, axis):
        """(axis × d) · ∇Y for each column, from the op's gradient."""
        leaf = directions.clone().requires_grad_()
        values = spherical_harmonics(leaf, degree=DEGREE)
        columns = [torch.autograd.grad(values[:, i].sum(), leaf, retain_graph=True)[0] for i in range(25)]
        along = torch.linalg.cross(torch.eye(3, dtype=torch.float64)[axis].expand_as(d), directions, dim=-1)
        return torch.stack([(along * column).sum(-1) for column in columns], -1)

    laplacian = 0
    for axis in range(3):
        ahead, behind = turned(momentum, axis)
        laplacian = laplacian + (ahead - behind) / (2 * step)
    eigenvalues = torch.cat([torch.full((2 * band + 1,), -float(band * (band + 1))) for band in range(DEGREE + 1)])
    assert_close(laplacian, eigenvalues * spherical_harmonics(d, degree=DEGREE), atol=1e-6, rtol=0)


@pytest.mark.parametrize("degree", [-1, 5, 2.5])
def test_refuses_degrees_it_does_not_know(degree, cpu):
    with pytest.raises(ValueError, match="degree has to be 0 to 4"):
        spherical_harmonics(torch.zeros(1, 3), degree=degree)
