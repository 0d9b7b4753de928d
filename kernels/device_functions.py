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
    """1 - exp(-x) without cancellation: its Taylor series where x is small."""
    series = x * (1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5 * (1 - x / 6)))))
    return ti.select(ti.abs(x) < real(x, 0.02), series, 1 - ti.exp(-x))


def is_double(x):
    """Whether an expression has 64 bits; decided while Taichi traces the kernel, so for use inside `ti.static`."""
    return x.ptr.get_rvalue_type() == ti.f64


is_double._is_wrapped_kernel = True


@ti.func
def lanes_of(value, n_lanes: ti.template()):
    """A small local array, filled with a value, for a loop over lanes.

    LLVM turns such a loop into SIMD instructions when it touches nothing else: the addresses of kernel arguments are loaded
    anew after every store to one, which stops it. So read arguments, compute and write arguments in separate loops.
    """
    return ti.Vector([value] * n_lanes)


@ti.func
def quarter_turns(x):
    """The angle x in quarter turns, x · 2/π, as the sum of two words (high, low): together good to 2^-46 of x.

    Multiples by powers of two stay exact, so one reduction serves all frequencies of an encoding. The mantissa meets the
    48 bits of 2/π in integers, twelve at a time: compensated sums of floats would be shorter, but shader compilers are free
    to reorder them. A 64-bit angle stays as it is, (x, 0).
    """
    high, low = x, x * 0
    if ti.static(not is_double(x)):
        bits = ti.bit_cast(x, ti.i32)
        power = ti.bit_cast(bits & -0x800000, ti.f32)  # sign and exponent; 0 for x = 0
        mantissa = (bits & 0x7FFFFF) | 0x800000
        upper, lower = mantissa >> 12, mantissa & 4095
        digit_4 = upper * 0xE44 + lower * 0x6E4
        digit_3 = upper * 0x6E4 + lower * 0x983 + (digit_4 >> 12)
        digit_2 = upper * 0x983 + lower * 0xA2F + (digit_3 >> 12)
        digit_1 = upper * 0xA2F + (digit_2 >> 12)
        high = ti.cast(digit_1, ti.f32) * 2.0**-23 * power
        low = ti.cast((digit_2 & 4095) << 12 | (digit_3 & 4095), ti.f32) * 2.0**-47 * power
    return high, low


@ti.func
def sincos_of_quarter_turns(high, low):
    """(sin, cos) of an angle from `quarter_turns`, also after multiplying both words by a power of two.

    32 bits: reduced to an eighth turn, then minimax polynomials (Cephes), alike on every backend; Vulkan's own sine may be
    wrong by 5e-4. The second rounding is for angles so large that the low word holds quarters, too.
    """
    sine, cosine = high, low
    if ti.static(is_double(high)):
        sine, cosine = ti.sin(high), ti.cos(high)
    else:
        n_high = ti.floor(high + 0.5)
        # The maximum changes nothing, but without it shader compilers add high to low first, and low is lost.
        remainder = ti.max(high - n_high, -1.0) + low
        n_low = ti.floor(remainder + 0.5)
        quadrant = ti.cast(n_high, ti.i32) + ti.cast(n_low, ti.i32)
        r = (remainder - n_low) * 1.5707963267948966
        r2 = r * r
        s = r + r * r2 * (-1.6666654611e-1 + r2 * (8.3321608736e-3 - r2 * 1.9515295891e-4))
        c = 1 - r2 * 0.5 + r2 * r2 * (4.166664568298827e-2 + r2 * (-1.388731625493765e-3 + r2 * 2.443315711809948e-5))
        swap = (quadrant & 1) != 0
        # The second bit of the quadrant, moved to the top, is the sign.
        sine = ti.bit_cast(ti.bit_cast(ti.select(swap, c, s), ti.i32) ^ (quadrant & 2) << 30, ti.f32)
        cosine = ti.bit_cast(ti.bit_cast(ti.select(swap, s, c), ti.i32) ^ ((quadrant + 1) & 2) << 30, ti.f32)
    return sine, cosine


@ti.func
def lattice(position, size):
    """A position of the unit cube in a row of `size` features, of which the outer ones lie on the corners.

    Lower neighbour, fraction towards the upper one, and d(index)/d(position), which is 0 where clamping holds it.
    """
    index = position * (size - 1)
    slope = ti.select((index > 0) & (index < size - 1), real(position, 1) * (size - 1), real(position, 0))
    clamped = ti.min(ti.select(index > 0, index, real(position, 0)), real(position, 1) * (size - 1))
    lower = ti.min(ti.cast(clamped, ti.i32), ti.max(size - 2, 0))
    return lower, clamped - lower, slope


@ti.func
def weight_of(fraction, upper: ti.template()):
    return fraction if ti.static(upper) else 1 - fraction
