"""Small functions that several kernels share."""

import taichi as ti
from taichi.lang.expr import Expr


def real(like, value):
    """The constant `value` in the precision of `like` (an array argument or an expression).

    A bare literal such as 0.1 in a kernel is a 32-bit float, whatever the arrays are, which would spoil 64-bit kernels.
    """
    dtype = like.ptr.get_rvalue_type() if isinstance(like, Expr) else like.get_type().element_type
    return Expr(float(value), dtype=dtype)


# Runs while Taichi traces a kernel, like its own built-ins; without this mark Taichi warns at every call.
real._is_wrapped_kernel = True


@ti.func
def one_minus_exp(x):
    """1 - exp(-x) for x >= 0 without cancellation: its Taylor series where x is small."""
    series = x * (1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5 * (1 - x / 6)))))
    return ti.select(x < real(x, 0.02), series, 1 - ti.exp(-x))


@ti.func
def sincos(x):
    """(sin x, cos x) by Cody-Waite reduction and minimax polynomials (Cephes); 1e-7 for |x| < 8192, twice libm's speed.

    32-bit only in accuracy; 64-bit arguments take the library functions.
    """
    n = ti.round(x * real(x, 0.6366197723675814))
    r = ((x - n * real(x, 1.5703125)) - n * real(x, 4.837512969970703125e-4)) - n * real(x, 7.54978995489188216e-8)
    quadrant = ti.cast(n, ti.i32)
    r2 = r * r
    s = r + r * r2 * (real(x, -1.6666654611e-1) + r2 * (real(x, 8.3321608736e-3) - r2 * real(x, 1.9515295891e-4)))
    c = 1 - r2 / 2 + r2 * r2 * (real(x, 4.166664568298827e-2)
                                + r2 * (real(x, -1.388731625493765e-3) + r2 * real(x, 2.443315711809948e-5)))
    swap = (quadrant & 1) != 0
    sine = ti.select(swap, c, s)
    cosine = ti.select(swap, s, c)
    return ti.select((quadrant & 2) != 0, -sine, sine), ti.select(((quadrant + 1) & 2) != 0, -cosine, cosine)
