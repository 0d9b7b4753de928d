"""Colors of the procedural scenes: patterns in the solid's own frame, the sky, and the tone curve.

A material is a row: 0-2 first color, 3-5 second color (linear light), 6 pattern, 7-9 frequency along x, y, z, 10 strength and
11 exponent of the highlight (Blinn), 12 how much of the sky it mirrors, 13 by how much noise bends the pattern, 14 phase,
15 light of its own.

Patterns are averaged over the pixel's footprint on the surface: for what repeats by its integral, for noise by leaving out what
is finer. `width` holds the footprint's extent along each axis, in periods of the pattern.
"""

import taichi as ti

PLAIN, CHECKER, STRIPES, NOISE, MARBLE, RINGS, DOTS, TILES = range(8)
GROUT = 0.06  # of a tile


@ti.func
def hashed(x, y, z):
    """A number from 0 to 1 for a point of the integer lattice; the same on every backend."""
    h = (
        (ti.cast(x, ti.u32) * ti.u32(73856093))
        ^ (ti.cast(y, ti.u32) * ti.u32(19349663))
        ^ (ti.cast(z, ti.u32) * ti.u32(83492791))
    )
    h = (h ^ (h >> ti.u32(15))) * ti.u32(739982445)
    h = (h ^ (h >> ti.u32(12))) * ti.u32(695872825)
    h = h ^ (h >> ti.u32(15))
    return ti.cast(h >> ti.u32(8), ti.f32) * (1.0 / 16777216.0)


@ti.func
def value_noise(p):
    """From -1 to 1: values at the integer lattice, joined smoothly."""
    base = ti.floor(p)
    f = p - base
    f = f * f * (3 - 2 * f)
    cell = ti.cast(base, ti.i32)
    found = 0.0
    for corner in range(8):
        i, j, k = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = ti.select(i == 1, f[0], 1 - f[0]) * ti.select(j == 1, f[1], 1 - f[1]) * ti.select(k == 1, f[2], 1 - f[2])
        found += weight * hashed(cell[0] + i, cell[1] + j, cell[2] + k)
    return 2 * found - 1


@ti.func
def layered_noise(p, width):
    """Four octaves of value noise, those finer than the footprint faded out; about -1 to 1."""
    found, size, frequency = 0.0, 0.55, 1.0
    for octave in range(4):
        fade = ti.min(ti.max(1.5 - width * frequency, 0.0), 1.0)
        if fade > 0:
            found += fade * size * value_noise(p * frequency + 17.0 * ti.cast(octave, ti.f32))
        size *= 0.5
        frequency *= 2.03
    return found


@ti.func
def triangle(x):
    """The integral of the square wave that is 1 on [0, 1), -1 on [1, 2)."""
    return 1 - ti.abs(x - 2 * ti.floor(x / 2) - 1)


@ti.func
def square_wave(x, width):
    """Its average over a box of that width."""
    w = ti.max(width, 0.004)
    return (triangle(x + w / 2) - triangle(x - w / 2)) / w


@ti.func
def pulse(x, width):
    """How much of a box lies in the grout, which is the first part of every unit interval."""
    w = ti.max(width, 0.004)
    low, high = x - w / 2, x + w / 2
    below_low = ti.floor(low) * GROUT + ti.min(low - ti.floor(low), GROUT)
    below_high = ti.floor(high) * GROUT + ti.min(high - ti.floor(high), GROUT)
    return (below_high - below_low) / w


@ti.func
def share_of_second(pattern, p, width, bend):
    """How much of the second color a point has, from 0 to 1; p and width are in periods of the pattern."""
    widest = ti.max(width[0], width[1], width[2])
    bent = 0.0
    if bend > 0 or pattern == NOISE:
        bent = layered_noise(ti.select(pattern == NOISE, p, p * 0.5), widest)
    share = 0.0
    if pattern == CHECKER:
        share = 0.5 - 0.5 * square_wave(p[0], width[0]) * square_wave(p[1], width[1]) * square_wave(p[2], width[2])
    elif pattern == STRIPES:
        share = 0.5 - 0.5 * square_wave(p[0] + p[1] + p[2] + bend * bent, width[0] + width[1] + width[2])
    elif pattern == NOISE:
        share = 0.5 + 0.9 * bent
    elif pattern == MARBLE:
        along = p[0] + p[1] + p[2] + bend * bent
        share = 0.5 + 0.5 * ti.sin(3.14159265 * along) * ti.max(1 - 0.4 * widest, 0.0)
        share *= share
    elif pattern == RINGS:
        x = ti.sqrt(p[0] * p[0] + p[1] * p[1]) + 0.3 * p[2] + bend * bent
        x -= ti.floor(x)
        saw = x * ti.min((1 - x) * 6, 1.0)  # slowly darker, quickly light again, as wood grows
        blur = ti.min(widest, 1.0)
        share = saw * (1 - blur) + 0.42 * blur
    elif pattern == DOTS:
        q = p - ti.floor(p) - 0.5
        q = ti.select(width > 0, q, 0.0)  # an axis without frequency takes no part
        edge = ti.max(widest, 0.02)
        dot = ti.min(ti.max((0.3 - q.norm()) / edge + 0.5, 0.0), 1.0)
        blur = ti.min(ti.max(widest - 0.5, 0.0), 1.0)
        share = dot * (1 - blur) + 0.28 * blur
    elif pattern == TILES:
        clear = (1 - pulse(p[0], width[0])) * (1 - pulse(p[1], width[1])) * (1 - pulse(p[2], width[2]))
        share = 1 - clear
    return ti.min(ti.max(share, 0.0), 1.0)


@ti.func
def color_of(materials: ti.template(), m, p, spread):
    """The color of a material at p in its solid's frame; `spread` is the footprint's extent along that frame's axes."""
    frequency = ti.Vector([materials[m, 7], materials[m, 8], materials[m, 9]])
    pattern = ti.cast(materials[m, 6], ti.i32)
    at = p * frequency + ti.select(frequency != 0, materials[m, 14], 0.37)
    width = spread * frequency
    share = 0.0
    tone = 1.0
    if pattern != PLAIN:
        share = share_of_second(pattern, at, width, materials[m, 13])
    if pattern == TILES:  # no two tiles are of quite the same color
        cell = ti.cast(ti.floor(at), ti.i32)
        blur = ti.min(ti.max(width[0], width[1], width[2]), 1.0)
        tone = 1 + materials[m, 13] * (hashed(cell[0], cell[1], cell[2]) - 0.5) * (1 - blur)
    first = ti.Vector([materials[m, 0], materials[m, 1], materials[m, 2]]) * tone
    second = ti.Vector([materials[m, 3], materials[m, 4], materials[m, 5]])
    return first * (1 - share) + second * share


@ti.func
def sky(surrounding: ti.template(), d):
    """The sky in direction d: rows 0 zenith, 1 horizon, 2 ground; column 3 of row 0 is the amount of clouds."""
    up = ti.Vector([surrounding[0, 0], surrounding[0, 1], surrounding[0, 2]])
    level = ti.Vector([surrounding[1, 0], surrounding[1, 1], surrounding[1, 2]])
    down = ti.Vector([surrounding[2, 0], surrounding[2, 1], surrounding[2, 2]])
    height = ti.sqrt(ti.max(d[2], 0.0))
    below = ti.min(ti.max(-4 * d[2], 0.0), 1.0)
    found = level * (1 - height) + up * height
    found = found * (1 - below) + down * below
    clouds = surrounding[0, 3]
    if clouds > 0 and d[2] > 0.02:
        at = ti.Vector([d[0], d[1], 0.0]) * (1.6 / (d[2] + 0.25))
        cover = ti.min(ti.max(layered_noise(at, 0.0) * 1.6 + clouds - 0.5, 0.0), 1.0) * ti.min(d[2] * 6, 1.0)
        found = found * (1 - cover) + ti.Vector([1.0, 0.98, 0.95]) * cover
    return found


@ti.func
def displayed(light):
    """Linear light to what a screen shows, 0 to 1: Narkowicz' fit of the film curve, then gamma 2.2."""
    x = ti.max(light, 0.0)
    film = (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)
    return ti.pow(ti.min(ti.max(film, 0.0), 1.0), 1 / 2.2)
