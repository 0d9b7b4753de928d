"""Ray tracing of the procedural scenes: one set of kernels for every family, driven by plain arrays.

    primitives [n, 16]   rotation from world to the solid's frame (9), center (3), sizes (4); see procedural_shapes
    kinds [n, 3]         which solid, material, 1 if it is carved out of the ones before it
    shapes [m, 5]        ball around the shape: center, radius (negative: unbounded); how softly its solids melt together
    spans [m, 3]         first primitive, how many, 1 if a single solid with a closed form
    materials [k, 16]    see procedural_textures
    lights [l, 7]        position (or direction, unit), 1 for a point and 0 for the sun, light at distance one
    surrounding [4, 4]   sky (3 rows, see procedural_textures); row 3: sky light on surfaces, occlusion's reach and strength

`trace_rays` finds what a ray hits first, exactly: closed forms, or steps of nine tenths of the signed distance. The same kernel
finds shadows. One thread follows one ray; nothing is atomic. 32 bits on every backend.
"""

import taichi as ti

from taichi_nerf.kernels import procedural_shapes as solids
from taichi_nerf.kernels import procedural_textures as textures

N_STEPS = 192
LEAST_STEP = 3e-4  # so that a grazing ray arrives; what it goes too far, the secant takes back
REACHED = 1e-5  # distance to a surface that ends the steps, times the distance from the eye where that is above one
N_PROBES = 3


@ti.func
def step_along(primitives: ti.template(), kinds: ti.template(), first, count, blend, origin, direction, enter, leave):
    """The first t in [enter, leave] on the surface of melted solids; NOWHERE if there is none."""
    t = enter
    found = solids.NOWHERE
    last, step = 0.0, 1.0
    for _ in range(N_STEPS):
        left = solids.blended_distance(primitives, kinds, first, count, blend, origin + t * direction)
        if left < REACHED * ti.max(t, 1.0):
            slope = ti.select(last > 0, (last - left) / step, 1.0)
            found = t + left / ti.min(ti.max(slope, 0.02), 1.0)  # the rest by the secant: rays may graze
            break
        last = left
        step = ti.max(0.9 * left, LEAST_STEP * ti.max(t, 1.0))
        t += step
        if t > leave:
            break
    return found


@ti.kernel
def trace_rays(
    primitives: ti.types.ndarray(ndim=2),  # [n_primitives, 16]
    kinds: ti.types.ndarray(ndim=2),  # [n_primitives, 3] int32
    shapes: ti.types.ndarray(ndim=2),  # [n_shapes, 5]
    spans: ti.types.ndarray(ndim=2),  # [n_shapes, 3] int32
    origins: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    near: ti.f32,
    far: ti.types.ndarray(ndim=1),  # [n_rays] hits count before it
    any_will_do: ti.i32,
    out_depth: ti.types.ndarray(ndim=1),  # [n_rays] NOWHERE where nothing is hit
    out_shape: ti.types.ndarray(ndim=1),  # [n_rays] int32, -1 where nothing is hit
):
    for ray in range(origins.shape[0]):
        origin = ti.Vector([origins[ray, 0], origins[ray, 1], origins[ray, 2]])
        direction = ti.Vector([directions[ray, 0], directions[ray, 1], directions[ray, 2]])
        best = far[ray]
        hit = -1
        shape = 0
        while shape < shapes.shape[0]:
            radius = shapes[shape, 3]
            to_center = ti.Vector([shapes[shape, 0], shapes[shape, 1], shapes[shape, 2]]) - origin
            middle = to_center.dot(direction)
            aside = to_center - middle * direction
            reach = radius * radius - aside.dot(aside)
            half = ti.sqrt(ti.max(reach, 0.0))
            if radius < 0 or (reach > 0 and middle + half > near and middle - half < best):
                first, t = spans[shape, 0], solids.NOWHERE
                if spans[shape, 2] == 1:
                    start = ti.select(radius < 0, 0.0, middle)
                    o = solids.to_local(primitives, first, origin + start * direction - solids.center_of(primitives, first))
                    d = solids.to_local(primitives, first, direction)
                    t = start + solids.enter(kinds[first, 0], o, d, solids.sizes_of(primitives, first), near - start)
                else:
                    begin, end = ti.max(near, middle - half), ti.min(best, middle + half)
                    t = step_along(primitives, kinds, first, spans[shape, 1], shapes[shape, 4], origin, direction, begin, end)
                if t < best and t > near:
                    best = t
                    hit = shape
            shape = ti.select(any_will_do == 1 and hit >= 0, shapes.shape[0], shape + 1)
        out_depth[ray] = ti.select(hit >= 0, best, solids.NOWHERE)
        out_shape[ray] = hit


@ti.kernel
def find_normals(
    primitives: ti.types.ndarray(ndim=2),  # [n_primitives, 16]
    kinds: ti.types.ndarray(ndim=2),  # [n_primitives, 3] int32
    shapes: ti.types.ndarray(ndim=2),  # [n_shapes, 5]
    spans: ti.types.ndarray(ndim=2),  # [n_shapes, 3] int32
    materials: ti.types.ndarray(ndim=2),  # [n_materials, 16]
    points: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_hits, 3] towards which the rays went
    shape_of: ti.types.ndarray(ndim=1),  # [n_hits] int32
    footprints: ti.types.ndarray(ndim=1),  # [n_hits] width of the pixel there, across the ray
    out_normals: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    out_albedo: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    out_materials: ti.types.ndarray(ndim=1),  # [n_hits] int32, of the solid that weighs most
):
    """Normals and colors; where solids melt together, both with the weights of the smooth minimum."""
    for i in range(points.shape[0]):
        point = ti.Vector([points[i, 0], points[i, 1], points[i, 2]])
        direction = ti.Vector([directions[i, 0], directions[i, 1], directions[i, 2]])
        shape = shape_of[i]
        first, count, blend = spans[shape, 0], spans[shape, 1], shapes[shape, 4]
        found = solids.NOWHERE
        normal, albedo, material = ti.Vector([0.0, 0.0, 0.0]), ti.Vector([0.0, 0.0, 0.0]), kinds[first, 1]
        for j in range(first, first + count):
            sizes = solids.sizes_of(primitives, j)
            at = solids.to_local(primitives, j, point - solids.center_of(primitives, j))
            local_normal = solids.gradient(kinds[j, 0], at, sizes)
            # A step across the ray moves the point on the surface along axis a by |a - n (a·d) / (n·d)| times as much.
            d = solids.to_local(primitives, j, direction)
            facing = local_normal.dot(d)
            facing = ti.select(ti.abs(facing) < 0.03, 0.03, facing)
            stretch = ti.Vector([0.0, 0.0, 0.0])
            for axis in ti.static(range(3)):
                along = -local_normal * (d[axis] / facing)
                along[axis] += 1.0
                stretch[axis] = along.norm()
            outward = solids.to_world(primitives, j, local_normal)
            weight = 0.0  # of what was there before
            if j == first:
                found = solids.distance(kinds[j, 0], at, sizes)
            else:
                sign = ti.select(kinds[j, 2] == 1, -1.0, 1.0)
                kept, other = sign * found, solids.distance(kinds[j, 0], at, sizes)
                weight = solids.blend_weight(kept, other, blend)
                found = sign * (other + (kept - other) * weight - ti.max(blend, 1e-7) * weight * (1 - weight))
                outward *= sign
            normal = normal * weight + outward * (1 - weight)
            if weight < 1:
                color = textures.color_of(materials, kinds[j, 1], at, stretch * footprints[i])
                albedo = albedo * weight + color * (1 - weight)
            material = ti.select(weight < 0.5, kinds[j, 1], material)
        normal /= ti.max(normal.norm(), 1e-12)
        for k in ti.static(range(3)):
            out_normals[i, k] = normal[k]
            out_albedo[i, k] = albedo[k]
        out_materials[i] = material


@ti.kernel
def find_occlusion(
    primitives: ti.types.ndarray(ndim=2),  # [n_primitives, 16]
    kinds: ti.types.ndarray(ndim=2),  # [n_primitives, 3] int32
    shapes: ti.types.ndarray(ndim=2),  # [n_shapes, 5]
    spans: ti.types.ndarray(ndim=2),  # [n_shapes, 3] int32
    points: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    normals: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    reach: ti.f32,
    strength: ti.f32,
    out_open: ti.types.ndarray(ndim=1),  # [n_hits]
):
    """How open a place is, 1 to 0: distances to all shapes at a few heights above the surface, the lower the heavier."""
    for i in range(points.shape[0]):
        point = ti.Vector([points[i, 0], points[i, 1], points[i, 2]])
        normal = ti.Vector([normals[i, 0], normals[i, 1], normals[i, 2]])
        closed, weight, total = 0.0, 1.0, 0.0
        for probe in range(N_PROBES):
            height = reach * (ti.cast(probe, ti.f32) + 1) / N_PROBES
            at = point + normal * height
            free = height
            for shape in range(shapes.shape[0]):
                offset = at - ti.Vector([shapes[shape, 0], shapes[shape, 1], shapes[shape, 2]])
                around = shapes[shape, 3] + free
                if shapes[shape, 3] < 0 or offset.dot(offset) < around * around:
                    left = solids.blended_distance(primitives, kinds, spans[shape, 0], spans[shape, 1], shapes[shape, 4], at)
                    free = ti.min(free, ti.max(left, 0.0))
            closed += weight * (height - free) / height
            total += weight
            weight *= 0.7
        out_open[i] = ti.max(1 - strength * closed / total, 0.0)


@ti.kernel
def shade(
    materials: ti.types.ndarray(ndim=2),  # [n_materials, 16]
    lights: ti.types.ndarray(ndim=2),  # [n_lights, 7]
    surrounding: ti.types.ndarray(ndim=2),  # [4, 4]
    points: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    directions: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    normals: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    albedo: ti.types.ndarray(ndim=2),  # [n_hits, 3]
    material_of: ti.types.ndarray(ndim=1),  # [n_hits] int32
    open_sky: ti.types.ndarray(ndim=1),  # [n_hits]
    visible: ti.types.ndarray(ndim=2),  # [n_hits, n_lights]
    out_color: ti.types.ndarray(ndim=2),  # [n_hits, 3] as displayed
):
    """Lambert and Blinn-Phong for every light that is seen, light of the sky, and its mirror image (Schlick)."""
    for i in range(points.shape[0]):
        point = ti.Vector([points[i, 0], points[i, 1], points[i, 2]])
        direction = ti.Vector([directions[i, 0], directions[i, 1], directions[i, 2]])
        normal = ti.Vector([normals[i, 0], normals[i, 1], normals[i, 2]])
        color = ti.Vector([albedo[i, 0], albedo[i, 1], albedo[i, 2]])
        m = material_of[i]
        diffuse = textures.sky(surrounding, ti.Vector([0.0, 0.0, normal[2] * 0.5 + 0.3])) * 0.5
        diffuse = (diffuse + ti.Vector([0.5, 0.5, 0.5])) * surrounding[3, 0] * (0.75 + 0.25 * normal[2]) * open_sky[i]
        shine = ti.Vector([0.0, 0.0, 0.0])
        for light in range(lights.shape[0]):
            to_light = ti.Vector([lights[light, 0], lights[light, 1], lights[light, 2]])
            glow = ti.Vector([lights[light, 4], lights[light, 5], lights[light, 6]]) * visible[i, light]
            if lights[light, 3] > 0:
                offset = to_light - point
                to_light = offset.normalized()
                glow /= ti.max(offset.dot(offset), 1e-4)
            facing = ti.max(normal.dot(to_light), 0.0)
            half = to_light - direction
            half /= ti.max(half.norm(), 1e-9)
            exponent = materials[m, 11]
            diffuse += glow * facing
            if facing > 0:
                lobe = ti.pow(ti.max(normal.dot(half), 1e-6), exponent) * (exponent + 8) / 25
                shine += glow * facing * lobe * materials[m, 10]
        cosine = ti.min(ti.max(-normal.dot(direction), 0.0), 1.0)
        mirrored = direction + 2 * cosine * normal
        fresnel = materials[m, 12] * (0.06 + 0.94 * ti.pow(1 - cosine, 5.0))
        shine += fresnel * open_sky[i] * textures.sky(surrounding, mirrored)
        light_sum = color * (diffuse * (1 - fresnel) + materials[m, 15]) + shine
        final = textures.displayed(light_sum)
        for k in ti.static(range(3)):
            out_color[i, k] = final[k]


@ti.kernel
def paint_sky(
    surrounding: ti.types.ndarray(ndim=2),  # [4, 4]
    directions: ti.types.ndarray(ndim=2),  # [n_rays, 3]
    out_color: ti.types.ndarray(ndim=2),  # [n_rays, 3] as displayed
):
    for i in range(directions.shape[0]):
        color = textures.displayed(textures.sky(surrounding, ti.Vector([directions[i, 0], directions[i, 1], directions[i, 2]])))
        for k in ti.static(range(3)):
            out_color[i, k] = color[k]
