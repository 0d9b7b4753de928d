"""Solids for the procedural scenes: signed distance, its gradient, and where a ray enters, in a primitive's own frame.

    kind        sizes s0, s1, s2, s3                               entered by
    ELLIPSOID   semi-axes                                          a quadratic
    BOX         half sizes, radius of rounded edges                slabs; rounded ones by sphere tracing
    CONE        radius at the bottom, at the top, half height      a quadratic and two caps; a cylinder where the radii agree
    CAPSULE     radius, half length along z                        a quadratic and two spheres
    TORUS       radius of the ring, of its tube, around z          sphere tracing: a quartic loses its digits in 32 bits
    PLANE       the half space z < 0                               a division

Distances are exact but for ellipsoids (first order, exact where the axes agree). Several solids melt together by
Quilez' quadratic smooth minimum; as its weight h is where it is stationary, gradients and colors of the parts mix with
that same weight. Ray origins are the point of the ray closest to the solid, for 32 bits to suffice from any distance.
"""

import taichi as ti

ELLIPSOID, BOX, CONE, CAPSULE, TORUS, PLANE = range(6)
NOWHERE = 1e30
EDGE = 1e-4  # closer to a solid's corner than this, the nearest face decides what the normal is


@ti.func
def to_local(primitives: ti.template(), i, v):
    """A world vector in the axes of primitive i."""
    return ti.Vector(
        [
            primitives[i, 0] * v[0] + primitives[i, 1] * v[1] + primitives[i, 2] * v[2],
            primitives[i, 3] * v[0] + primitives[i, 4] * v[1] + primitives[i, 5] * v[2],
            primitives[i, 6] * v[0] + primitives[i, 7] * v[1] + primitives[i, 8] * v[2],
        ]
    )


@ti.func
def to_world(primitives: ti.template(), i, v):
    return ti.Vector(
        [
            primitives[i, 0] * v[0] + primitives[i, 3] * v[1] + primitives[i, 6] * v[2],
            primitives[i, 1] * v[0] + primitives[i, 4] * v[1] + primitives[i, 7] * v[2],
            primitives[i, 2] * v[0] + primitives[i, 5] * v[1] + primitives[i, 8] * v[2],
        ]
    )


@ti.func
def center_of(primitives: ti.template(), i):
    return ti.Vector([primitives[i, 9], primitives[i, 10], primitives[i, 11]])


@ti.func
def sizes_of(primitives: ti.template(), i):
    return ti.Vector([primitives[i, 12], primitives[i, 13], primitives[i, 14], primitives[i, 15]])


@ti.func
def cone_offsets(p, s):
    """From the cap and from the side of a capped cone to p, in the plane of p and the axis, and the sign of the distance."""
    q = ti.Vector([ti.sqrt(p[0] * p[0] + p[1] * p[1]), p[2]])
    rim = ti.select(q[1] < 0, s[0], s[1])
    cap = ti.Vector([q[0] - ti.min(q[0], rim), ti.abs(q[1]) - s[2]])
    along = ti.Vector([s[1] - s[0], 2 * s[2]])
    back = ti.Vector([s[1] - q[0], s[2] - q[1]])
    share = ti.min(ti.max(back.dot(along) / along.dot(along), 0.0), 1.0)
    side = along * share - back
    return cap, side, ti.select(side[0] < 0 and cap[1] < 0, -1.0, 1.0)


@ti.func
def distance(kind, p, s):
    """Signed distance of p in the solid's own frame; negative inside."""
    found = p[2]
    if kind == ELLIPSOID:
        scaled = ti.Vector([p[0] / s[0], p[1] / s[1], p[2] / s[2]])
        slope = ti.Vector([scaled[0] / s[0], scaled[1] / s[1], scaled[2] / s[2]]).norm()
        length = scaled.norm()
        found = ti.select(slope > 1e-9, length * (length - 1) / ti.max(slope, 1e-9), -ti.min(s[0], s[1], s[2]))
    elif kind == BOX:
        q = ti.abs(p) - (ti.Vector([s[0], s[1], s[2]]) - s[3])
        found = ti.max(q, 0.0).norm() + ti.min(ti.max(q[0], q[1], q[2]), 0.0) - s[3]
    elif kind == CONE:
        cap, side, sign = cone_offsets(p, s)
        found = sign * ti.sqrt(ti.min(cap.dot(cap), side.dot(side)))
    elif kind == CAPSULE:
        found = ti.Vector([p[0], p[1], p[2] - ti.min(ti.max(p[2], -s[1]), s[1])]).norm() - s[0]
    elif kind == TORUS:
        found = ti.Vector([ti.sqrt(p[0] * p[0] + p[1] * p[1]) - s[0], p[2]]).norm() - s[1]
    return found


@ti.func
def gradient(kind, p, s):
    """The unit gradient of the distance: on the surface, the outward normal."""
    found = ti.Vector([0.0, 0.0, 1.0])
    if kind == ELLIPSOID:
        found = ti.Vector([p[0] / (s[0] * s[0]), p[1] / (s[1] * s[1]), p[2] / (s[2] * s[2])])
    elif kind == BOX:
        q = ti.abs(p) - (ti.Vector([s[0], s[1], s[2]]) - s[3])
        outside = ti.max(q, 0.0)
        if outside.norm() > EDGE:
            found = outside
        else:
            face = ti.max(q[0], q[1], q[2])
            x_face = ti.cast(q[0] == face, ti.f32)
            y_face = ti.cast(q[1] == face, ti.f32) * (1 - x_face)
            found = ti.Vector([x_face, y_face, 1 - x_face - y_face])
        found *= ti.select(p < 0, -1.0, 1.0)
    elif kind == CONE:
        cap, side, sign = cone_offsets(p, s)
        flat = ti.Vector([2 * s[2], s[0] - s[1]]).normalized()  # the side's normal: outward, upward
        if side.dot(side) < cap.dot(cap):
            flat = ti.select(side.norm() > EDGE, sign * side, flat)
        else:
            upward = ti.select(p[2] < 0, -1.0, 1.0)
            away = ti.Vector([cap[0], ti.max(cap[1], 0.0) * upward])
            flat = ti.select(away.norm() > EDGE, away, ti.Vector([0.0, upward]))
        r = ti.max(ti.sqrt(p[0] * p[0] + p[1] * p[1]), 1e-12)
        found = ti.Vector([flat[0] * p[0] / r, flat[0] * p[1] / r, flat[1]])
    elif kind == CAPSULE:
        found = ti.Vector([p[0], p[1], p[2] - ti.min(ti.max(p[2], -s[1]), s[1])])
    elif kind == TORUS:
        r = ti.max(ti.sqrt(p[0] * p[0] + p[1] * p[1]), 1e-12)
        found = ti.Vector([p[0] * (1 - s[0] / r), p[1] * (1 - s[0] / r), p[2]])
    return found / ti.max(found.norm(), 1e-12)


@ti.func
def enter_ball(o, d, radius):
    """Where a ray enters a ball around the origin; NOWHERE if it misses. Also of use for directions that are no units."""
    a = d.dot(d)
    middle = -o.dot(d) / a
    closest = o + middle * d
    left = radius * radius - closest.dot(closest)
    return ti.select(left > 0, middle - ti.sqrt(ti.max(left, 0.0) / a), NOWHERE)


@ti.func
def nearer(t, best, near, holds):
    return ti.select(holds and t > near and t < best, t, best)


@ti.func
def enter_cone(o, d, s, near):
    slope = (s[1] - s[0]) / (2 * s[2])
    radius = (s[0] + s[1]) / 2 + slope * o[2]
    a = d[0] * d[0] + d[1] * d[1] - slope * slope * d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] - slope * d[2] * radius
    c = o[0] * o[0] + o[1] * o[1] - radius * radius
    root = ti.sqrt(ti.max(b * b - a * c, 0.0))
    q = -(b + ti.select(b < 0, -root, root))  # no difference of close numbers in either root
    best = NOWHERE
    for k in ti.static(range(2)):
        upper = q if k == 0 else c
        lower = a if k == 0 else q
        t = upper / ti.select(ti.abs(lower) < 1e-12, 1e-12, lower)
        holds = b * b > a * c and ti.abs(o[2] + t * d[2]) <= s[2] and radius + slope * t * d[2] >= 0
        best = nearer(t, best, near, holds)
    for k in ti.static(range(2)):
        height = -s[2] if k == 0 else s[2]
        rim = s[0] if k == 0 else s[1]
        t = (height - o[2]) / ti.select(ti.abs(d[2]) < 1e-12, 1e-12, d[2])
        x, y = o[0] + t * d[0], o[1] + t * d[1]
        best = nearer(t, best, near, x * x + y * y <= rim * rim)
    return best


@ti.func
def enter(kind, o, d, s, near):
    """The first t > near at which o + t d is on the surface; NOWHERE if there is none. Tori and rounded boxes excepted."""
    best = NOWHERE
    if kind == ELLIPSOID:
        scaled_o = ti.Vector([o[0] / s[0], o[1] / s[1], o[2] / s[2]])
        scaled_d = ti.Vector([d[0] / s[0], d[1] / s[1], d[2] / s[2]])
        t = enter_ball(scaled_o, scaled_d, 1.0)
        best = nearer(t, best, near, True)
    elif kind == BOX:
        safe = ti.select(ti.abs(d) < 1e-12, 1e-12, d)
        half = ti.Vector([s[0], s[1], s[2]])
        first, second = (-half - o) / safe, (half - o) / safe
        into, out = ti.min(first, second), ti.max(first, second)
        t = ti.max(into[0], into[1], into[2])
        best = nearer(t, best, near, t < ti.min(out[0], out[1], out[2]))
    elif kind == CONE:
        best = enter_cone(o, d, s, near)
    elif kind == CAPSULE:
        flat = ti.Vector([d[0], d[1]])
        across = ti.max(flat.norm(), 1e-9)
        t = enter_ball(ti.Vector([o[0], o[1]]), ti.select(flat.norm() < 1e-9, ti.Vector([1e-9, 0.0]), flat), s[0])
        best = nearer(t, best, near, across > 1e-8 and ti.abs(o[2] + t * d[2]) <= s[1])
        for k in ti.static((-1, 1)):
            best = nearer(enter_ball(o - ti.Vector([0.0, 0.0, k * s[1]]), d, s[0]), best, near, True)
    elif kind == PLANE:
        t = -o[2] / ti.select(d[2] < -1e-12, d[2], -1e-12)
        best = nearer(t, best, near, d[2] < -1e-12)
    return best


@ti.func
def blend_weight(found, other, blend):
    """The weight h of `found` in the smooth minimum of `found` and `other`."""
    return ti.min(ti.max(0.5 + 0.5 * (other - found) / ti.max(blend, 1e-7), 0.0), 1.0)


@ti.func
def blended_distance(primitives: ti.template(), kinds: ti.template(), first, count, blend, p):
    """Signed distance of the world point p to solids melted together; one with kinds[i, 2] = 1 is carved out of those before."""
    found = NOWHERE
    for i in range(first, first + count):
        other = distance(kinds[i, 0], to_local(primitives, i, p - center_of(primitives, i)), sizes_of(primitives, i))
        if i == first:
            found = other
        else:
            sign = ti.select(kinds[i, 2] == 1, -1.0, 1.0)
            kept = sign * found
            h = blend_weight(kept, other, blend)
            found = sign * (other + (kept - other) * h - ti.max(blend, 1e-7) * h * (1 - h))
    return found
