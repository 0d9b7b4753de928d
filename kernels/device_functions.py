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


def is_double(x):
    """Whether an expression has 64 bits; decided while Taichi traces the kernel, so for use inside `ti.static`."""
    return x.ptr.get_rvalue_type() == ti.f64


is_double._is_wrapped_kernel = True


@ti.func
def quarter_turns(x):
    """The angle x in quarter turns, x · 2/π, as the sum of two words (high, low): together good to 2^-47 of x.

    Multiples by powers of two stay exact, so one reduction serves all frequencies of an encoding. The upper 12 bits of x
    times the 12-bit pieces of 2/π are exact, with or without fused multiply-adds. A 64-bit angle stays as it is, (x, 0).
    """
    high, low = x, x * 0
    if ti.static(not is_double(x)):
        upper = ti.bit_cast(ti.bit_cast(x, ti.i32) & -4096, ti.f32)
        lower = x - upper
        first, second, third = upper * 0.636474609375, upper * 1.4513731002807617e-4, lower * 0.636474609375
        partial = first + second
        high = partial + third
        dropped = ((first - partial) + second) + ((partial - high) + third)  # what the two sums rounded away, exactly
        low = dropped + (lower * 1.4513731002807617e-4 + x * 2.5682552973194106e-8)
    return high, low


@ti.func
def sincos_of_quarter_turns(high, low):
    """(sin, cos) of an angle from `quarter_turns`, also after multiplying both words by a power of two.

    32 bits: reduced to an eighth turn, then minimax polynomials (Cephes); twice libm's speed, and as exact on Vulkan, whose
    own sine may be wrong by 5e-4. The second rounding is for angles so large that the low word holds quarters, too.
    """
    sine, cosine = high, low
    if ti.static(is_double(high)):
        sine, cosine = ti.sin(high), ti.cos(high)
    else:
        n_high = ti.round(high)
        remainder = (high - n_high) + low
        n_low = ti.round(remainder)
        quadrant = ti.cast(n_high, ti.i32) + ti.cast(n_low, ti.i32)
        r = (remainder - n_low) * 1.5707963267948966
        r2 = r * r
        s = r + r * r2 * (-1.6666654611e-1 + r2 * (8.3321608736e-3 - r2 * 1.9515295891e-4))
        c = 1 - r2 / 2 + r2 * r2 * (4.166664568298827e-2 + r2 * (-1.388731625493765e-3 + r2 * 2.443315711809948e-5))
        swap = (quadrant & 1) != 0
        up = ti.select(swap, c, s)
        right = ti.select(swap, s, c)
        sine = ti.select((quadrant & 2) != 0, -up, up)
        cosine = ti.select(((quadrant + 1) & 2) != 0, -right, right)
    return sine, cosine


@ti.func
def sincos(x):
    """(sin x, cos x) to 1.2e-7 for any |x| < 1e8 in 32 bits, on every backend; the library's functions in 64 bits."""
    high, low = quarter_turns(x)
    return sincos_of_quarter_turns(high, low)
