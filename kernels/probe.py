"""The smallest kernel that shows a backend computes: x becomes x squared."""

import taichi as ti


@ti.kernel
def square(x: ti.types.ndarray(ndim=1)):
    for i in range(x.shape[0]):
        x[i] = x[i] * x[i]
