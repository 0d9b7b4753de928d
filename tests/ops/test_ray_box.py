"""Boxes and spheres against walks along the rays, known hits, and the awkward rays: parallel, grazing, inside, missing.

Measured against the reference: float32 forward 4e-7, gradients 7e-5 (of a sphere that a ray grazes; of boxes 1e-6) on cpu and
lavapipe; float64 1e-13, but for near and far, which reach the kernels in 32 bits (4e-8).
"""

import math

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from taichi_nerf.ops.ray_box import intersect_boxes, intersect_sphere

BOX = torch.tensor([[-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]])


def rays(*pairs):
    origins, directions = zip(*pairs, strict=True)
    return torch.tensor(origins, dtype=torch.float32), torch.tensor(directions, dtype=torch.float32)


def random_rays(n, generator):
    """From around a solid of size one or two, and from within it, in every direction."""
    origins = 4 * torch.rand(n, 3, generator=generator) - 2
    return origins, normalize(torch.randn(n, 3, generator=generator), dim=-1)


def test_a_ray_through_the_middle_enters_and_leaves_by_opposite_faces(backend):
    origins, directions = rays(((-5, 0.5, 1), (1, 0, 0)), ((0.5, 10, 1), (0, -1, 0)), ((0, 0, -4), (0, 0, 0.5)))
    t_near, t_far = intersect_boxes(origins, directions, BOX)
    assert_close(t_near, torch.tensor([4.0, 8.0, 2.0]))
    assert_close(t_far, torch.tensor([6.0, 12.0, 14.0]))


@pytest.mark.parametrize("solid", ["box", "sphere"])
def test_the_points_of_a_walk_are_inside_exactly_between_near_and_far(solid, backend, generator):
    origins, directions = random_rays(400, generator)
    t = torch.linspace(0, 8, 801)
    points = origins[:, None] + t[:, None] * directions[:, None]
    if solid == "box":
        box = torch.tensor([[-1.0, -0.5, -1.2], [0.7, 1.0, 0.4]])
        t_near, t_far = intersect_boxes(origins, directions, box)
        inside = ((points > box[0]) & (points < box[1])).all(-1)
    else:
        t_near, t_far = intersect_sphere(origins, directions, radius=1.1)
        inside = points.norm(dim=-1) < 1.1
    told = (t > t_near[:, None]) & (t < t_far[:, None])
    at_an_end = ((t - t_near[:, None]).abs() < 1e-4) | ((t - t_far[:, None]).abs() < 1e-4)
    assert ((inside == told) | at_an_end).all()
    assert 50 < inside.any(-1).sum() < 350  # both hits and misses


@pytest.mark.parametrize("intersect", [lambda o, d, **cut: intersect_boxes(o, d, BOX, **cut), intersect_sphere])
def test_from_inside_a_ray_starts_at_near(intersect, backend, generator):
    _, directions = random_rays(100, generator)
    origins = 0.5 * directions.roll(1, 0)
    for near in (0.0, 0.125):
        t_near, t_far = intersect(origins, directions, near=near)
        assert torch.equal(t_near, torch.full_like(t_near, near))
        assert (t_far > near).all()


@pytest.mark.parametrize("intersect", [lambda o, d, **cut: intersect_boxes(o, d, BOX, **cut), intersect_sphere])
def test_a_miss_is_an_empty_interval_at_near_even_with_an_infinite_far(intersect, backend):
    missing = rays(((-5, 9, 0), (1, 0, 0)), ((-5, 0, 0), (-1, 0, 0)), ((5, 5, 5), (0.6, 0, -0.8)))
    t_near, t_far = intersect(*missing, near=0.25)
    assert torch.equal(t_near, torch.full((3,), 0.25))
    assert torch.equal(t_far, t_near)


@pytest.mark.parametrize("intersect", [lambda o, d, **cut: intersect_boxes(o, d, BOX, **cut), intersect_sphere])
def test_the_interval_is_cut_to_near_and_far(intersect, backend, generator):
    origins, directions = random_rays(300, generator)
    t_near, t_far = intersect(origins, directions)
    cut_near, cut_far = intersect(origins, directions, near=0.5, far=1.5)
    overlap = t_near.clamp(min=0.5) < t_far.clamp(max=1.5)
    assert_close(cut_near, torch.where(overlap, t_near.clamp(min=0.5), 0.5))
    assert_close(cut_far, torch.where(overlap, t_far.clamp(max=1.5), 0.5))
    assert overlap.any()
    assert not overlap.all()


def test_a_ray_within_a_face_is_inside_and_one_beside_it_is_not(backend):
    """0 / 0 in a naive slab test."""
    within, beside, edge = ((-5, 2, 0), (1, 0, 0)), ((-5, 2.0001, 0), (1, 0, 0)), ((-5, 2, 3), (1, 0, 0))
    negative_zero = ((-5, 2, 0), (1, -0.0, -0.0))
    t_near, t_far = intersect_boxes(*rays(within, beside, edge, negative_zero), BOX)
    assert torch.equal(t_near, torch.tensor([4.0, 0.0, 4.0, 4.0]))
    assert torch.equal(t_far, torch.tensor([6.0, 0.0, 6.0, 6.0]))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_rays_along_an_axis_have_finite_hits_and_gradients(axis, sign, backend, generator):
    origins = (6 * torch.rand(200, 3, generator=generator) - 3).requires_grad_()
    directions = torch.zeros(200, 3)
    directions[:, axis] = sign
    directions.requires_grad_()
    for t_near, t_far in (intersect_boxes(origins, directions, BOX), intersect_sphere(origins, directions, radius=2.0)):
        of_origins, of_directions = torch.autograd.grad((t_near + 2 * t_far).sum(), (origins, directions))
        assert torch.isfinite(t_near).all()
        assert torch.isfinite(t_far).all()
        assert torch.isfinite(of_origins).all()
        assert torch.isfinite(of_directions).all()
        assert of_origins.any()


def test_a_ray_without_direction_meets_the_box_for_ever_or_never_and_nothing_is_nan(backend):
    origins, directions = rays(((0, 0, 0), (0, 0, 0)), ((9, 0, 0), (0, 0, 0)))
    directions.requires_grad_()
    t_near, t_far = intersect_boxes(origins, directions, BOX, near=0.5)
    assert torch.equal(t_near.detach(), torch.tensor([0.5, 0.5]))
    assert torch.equal(t_far.detach(), torch.tensor([math.inf, 0.5]))
    (t_near + t_far).sum().backward()
    assert torch.equal(directions.grad, torch.zeros(2, 3))


def test_tiny_slopes_are_not_infinities_on_the_face(backend):
    origins, directions = rays(((-5, 2, 0), (1, 1e-37, -1e-37)), ((-5, 2, 0), (1, -1e-37, 0)))
    t_near, t_far = intersect_boxes(origins, directions, BOX)
    assert not t_near.isnan().any()
    assert torch.equal(t_far[1:], torch.tensor([6.0]))
    assert t_near[1] == 4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_turned_inside_out_is_empty(axis, backend, generator):
    """Sorting the two planes of an axis, as is often done, would turn it right again."""
    box = BOX.clone()
    box[:, axis] = box[:, axis].flip(0)
    origins, directions = random_rays(100, generator)
    directions[::4, axis] = 0
    t_near, t_far = intersect_boxes(origins, directions, box)
    assert torch.equal(t_near, torch.zeros(100))
    assert torch.equal(t_far, torch.zeros(100))


def test_a_box_without_volume_gives_empty_intervals(backend, generator):
    origins, directions = random_rays(100, generator)
    flat = torch.tensor([[-1.0, 0.3, -1.0], [1.0, 0.3, 1.0]])
    t_near, t_far = intersect_boxes(origins, directions, flat)
    assert torch.equal(t_near, t_far)


def test_a_longer_direction_has_shorter_distances(backend, generator):
    origins, directions = random_rays(200, generator)
    for intersect in (lambda o, d: intersect_boxes(o, d, BOX), lambda o, d: intersect_sphere(o, d, radius=1.5)):
        once, twice = intersect(origins, directions), intersect(origins, 2 * directions)
        for t, half in zip(once, twice, strict=True):
            assert_close(half, t / 2, atol=2e-6, rtol=1e-5)


def test_permuting_rays_permutes_the_output(backend, generator):
    origins, directions = random_rays(200, generator)
    order = torch.randperm(200, generator=generator)
    for intersect in (lambda o, d: intersect_boxes(o, d, BOX), intersect_sphere):
        straight, permuted = intersect(origins, directions), intersect(origins[order], directions[order])
        for t, moved in zip(straight, permuted, strict=True):
            assert torch.equal(t[order], moved)


def test_an_end_follows_its_face_and_a_cut_end_stays(backend):
    """t = (face - o) / d: here d = (0.5, 0, 0), o.x = -2, faces at -1 and 1, t = 2 and 6."""
    cases = {(0.0, math.inf): (-2.0, -2.0), (3.0, math.inf): (0.0, -2.0), (0.0, 5.0): (-2.0, 0.0), (3.0, 5.0): (0.0, 0.0)}
    for (near, far), wanted in cases.items():
        origins, directions = rays(((-2, 0.1, 0.2), (0.5, 0, 0)))
        origins.requires_grad_()
        directions.requires_grad_()
        t = intersect_boxes(origins, directions, BOX, near=near, far=far)
        for end, slope, face in zip(t, wanted, (2.0, 6.0), strict=True):
            of_origin, of_direction = torch.autograd.grad(end.sum(), (origins, directions), retain_graph=True)
            assert_close(of_origin, torch.tensor([[slope, 0, 0]]))
            assert_close(of_direction, torch.tensor([[slope * face, 0, 0]]))


@pytest.mark.parametrize("intersect", [lambda o, d: intersect_boxes(o, d, BOX), intersect_sphere])
def test_a_step_along_the_ray_is_a_step_off_both_ends(intersect, backend, generator):
    """∂t/∂o · d = -1 for every end on a surface, whichever it is."""
    origins, directions = random_rays(300, generator)
    origins = (origins - 6 * directions).requires_grad_()
    t_near, t_far = intersect(origins, directions)
    thick = t_far - t_near > 0.3  # where the ray grazes, the sphere's ends are infinitely steep
    assert thick.sum() > 30
    for t in (t_near, t_far):
        (of_origins,) = torch.autograd.grad(t.sum(), origins, retain_graph=True)
        assert_close((of_origins * directions).sum(-1)[thick], -torch.ones(int(thick.sum())), atol=1e-4, rtol=0)
        assert not of_origins[t_near == t_far].any()


def test_a_sphere_is_hit_at_its_radius(backend):
    origins, directions = rays(((-5, 0, 0), (1, 0, 0)), ((-5, 0.6, 0), (1, 0, 0)), ((0, 0, 0), (0, 0.6, 0.8)))
    t_near, t_far = intersect_sphere(origins, directions)
    assert_close(t_near, torch.tensor([4.0, 4.2, 0.0]))
    assert_close(t_far, torch.tensor([6.0, 5.8, 1.0]))


def test_a_far_origin_costs_a_sphere_no_digits(backend):
    """From 1000 radii away, b² - 4ac of the textbook formula keeps one digit of the chord."""
    origins, directions = rays(((-1024, 0.8, 0), (1, 0, 0)))
    t_near, t_far = intersect_sphere(origins, directions)
    assert_close(t_far - t_near, torch.tensor([1.2]), atol=2e-4, rtol=0)  # 1024 itself is stored to 1.2e-4


def test_a_tangent_is_a_miss_with_zero_gradient(backend):
    origins, directions = rays(((-5, 1, 0), (1, 0, 0)))
    origins.requires_grad_()
    t_near, t_far = intersect_sphere(origins, directions)
    assert t_near.item() == t_far.item() == 0
    (t_near + t_far).sum().backward()
    assert torch.equal(origins.grad, torch.zeros(1, 3))


def test_64_bits_are_kept(cpu):
    origins = torch.tensor([[-5.0, 0.1, 0.0]], dtype=torch.float64)
    directions = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    box = torch.tensor([[-1 / 3, -1, -1], [0.7, 1, 1]], dtype=torch.float64)
    t_near, t_far = intersect_boxes(origins, directions, box)
    assert_close(t_near.item(), 5 - 1 / 3, rtol=1e-15, atol=0)
    assert_close(t_far.item(), 5.7, rtol=1e-15, atol=0)
    t_near, t_far = intersect_sphere(origins, directions, radius=0.3)
    assert_close(t_near.item(), 5 - math.sqrt(0.09 - 0.01), rtol=1e-15, atol=0)
    assert_close(t_far.item(), 5 + math.sqrt(0.09 - 0.01), rtol=1e-15, atol=0)


def test_a_direction_of_zero_that_misses_the_sphere_has_no_gradient(backend):
    origins = torch.full((1, 3), 5.0, requires_grad=True)
    directions = torch.zeros(1, 3, requires_grad=True)
    sum(t.sum() for t in intersect_sphere(origins, directions)).backward()
    assert torch.equal(origins.grad, torch.zeros(1, 3))
    assert torch.equal(directions.grad, torch.zeros(1, 3))
