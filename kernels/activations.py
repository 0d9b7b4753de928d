"""What follows the layers of a multilayer perceptron: activations of the output by number, and the ReLU between layers."""

import taichi as ti

from taichi_nerf.kernels.device_functions import real

OUTPUT = {"none": 0, "sigmoid": 1, "exp": 2}
LARGEST_EXPONENT = 12.0  # exp is cut off there, and its gradients go on as at the border


@ti.func
def activated(x, output):
    y = x
    if output == OUTPUT["sigmoid"]:
        y = 1 / (1 + ti.exp(-x))
    elif output == OUTPUT["exp"]:
        y = ti.exp(ti.min(x, real(x, LARGEST_EXPONENT)))
    return y


@ti.func
def slope(y, output):
    """The derivative of the output's activation, told by its value."""
    derivative = real(y, 1)
    if output == OUTPUT["sigmoid"]:
        derivative = y * (1 - y)
    elif output == OUTPUT["exp"]:
        derivative = y
    return derivative


@ti.func
def rectified(x):
    return ti.select(x < 0, real(x, 0), x)  # a NaN stays one
