"""Real spherical harmonics in plain torch: the table of polynomials in x, y, z on the unit sphere, up to band 4.

Column l² + l + m holds Y_lm, with the signs of PlenOctrees, instant-ngp and 3D Gaussian splatting. On the sphere
x² + y² = 1 - z², so a table can be written in several ways that differ off it; here z alone carries what can be so written.
"""

from math import pi, sqrt

import torch
from torch import Generator, Tensor

from taichi_nerf.reference.example import Example, uniform


def spherical_harmonics(
    directions: Tensor,  # [n_directions, 3]
    *,
    degree: int = 3,
) -> Tensor:  # [n_directions, (degree + 1)²]
    """All real spherical harmonics up to band `degree` (0 to 4) in each direction, which is not normalized."""
    x, y, z = directions.unbind(-1)
    bands = [[torch.full_like(x, sqrt(1 / pi) / 2)]]
    c = sqrt(3 / pi) / 2
    bands += [[-c * y, c * z, -c * x]]
    c = sqrt(15 / pi) / 2
    bands += [[c * x * y, -c * y * z, sqrt(5 / pi) / 4 * (3 * z**2 - 1), -c * x * z, c / 2 * (x**2 - y**2)]]
    c_1, c_2, c_3 = sqrt(42 / pi) / 8, sqrt(105 / pi) / 4, sqrt(70 / pi) / 8
    bands += [
        [
            -c_3 * y * (3 * x**2 - y**2),
            2 * c_2 * x * y * z,
            -c_1 * y * (5 * z**2 - 1),
            sqrt(7 / pi) / 4 * z * (5 * z**2 - 3),
            -c_1 * x * (5 * z**2 - 1),
            c_2 * z * (x**2 - y**2),
            -c_3 * x * (x**2 - 3 * y**2),
        ]
    ]
    c_1, c_2, c_3, c_4 = 3 * sqrt(10 / pi) / 8, 3 * sqrt(5 / pi) / 8, 3 * sqrt(70 / pi) / 8, 3 * sqrt(35 / pi) / 16
    bands += [
        [
            4 * c_4 * x * y * (x**2 - y**2),
            -c_3 * y * z * (3 * x**2 - y**2),
            2 * c_2 * x * y * (7 * z**2 - 1),
            -c_1 * y * z * (7 * z**2 - 3),
            3 / sqrt(pi) / 16 * (35 * z**4 - 30 * z**2 + 3),
            -c_1 * x * z * (7 * z**2 - 3),
            c_2 * (x**2 - y**2) * (7 * z**2 - 1),
            -c_3 * x * z * (x**2 - 3 * y**2),
            c_4 * (x**4 - 6 * x**2 * y**2 + y**4),
        ]
    ]
    return torch.stack([value for band in bands[: degree + 1] for value in band], dim=-1)


def examples(n: int, generator: Generator, dtype: torch.dtype = torch.float32) -> list[Example]:
    """Unit directions for every degree, and some that are not unit."""
    like = torch.empty(0, dtype=dtype)
    vectors = uniform(generator, (n, 3), -1, 1, like)
    directions = torch.nn.functional.normalize(vectors, dim=-1)
    calls = [
        Example("spherical_harmonics", {"directions": directions, "degree": degree}, ("directions",), f"degree {degree}")
        for degree in (3, 4, 2, 1, 0)
    ]
    return [*calls, Example("spherical_harmonics", {"directions": vectors, "degree": 4}, ("directions",), "not unit")]
