"""Rendering against plain compositing of every sample, and against balls whose pictures are known in closed form."""

import math

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from taichi_nerf import reference, rendering
from taichi_nerf import rooms as rooms_of
from taichi_nerf.fields.field import Field, Glance
from taichi_nerf.fields.hash_grid_field import HashGridField, HashGridSettings
from taichi_nerf.ops.compositing import packed_indices, visible_samples
from taichi_nerf.ops.ray_marching import sample_positions
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Culling, normals_of, render_picture, render_rays
from taichi_nerf.rooms import Rooms
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancyGridSampler, OccupancySettings

BOX = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
EVERYTHING = Culling(early_stop=0.0, least_weight=0.0, chance=0.0)
STEP = 0.01


class Ball(Field):
    """Constant density in a ball around the origin, or one that fades over `soft` at its border."""

    def __init__(self, density=3.0, radius=0.6, soft=0.0):
        super().__init__()
        self.density, self.radius, self.soft = density, radius, soft
        self.n_looked_at = 0

    def density_at(self, positions):
        inside = self.radius - positions.norm(dim=-1)
        return self.density * (torch.sigmoid(inside / self.soft) if self.soft else (inside > 0).float())

    def forward(self, positions, directions, image_ids=None, features=None):
        self.n_looked_at += len(positions)
        return self.density_at(positions), (positions + 1) / 2

    def glance(self, positions):
        return Glance(self.density_at(positions.detach()), None)


def sampler(step=STEP, **settings):
    made = OccupancySettings(**{"resolution": 32, "step_size": step, **settings})
    return OccupancyGridSampler(made, BOX, "none", 0.05, 10.0)  # before its first update, which is: everywhere


def hash_field(n_images=0):
    settings = HashGridSettings(
        n_levels=4, log2_table_size=12, base_resolution=4, max_resolution=32, n_hidden=16, log_density=1.0
    )
    field = HashGridField(settings, BOX, "none", n_images, torch.Generator().manual_seed(0))
    torch.nn.init.uniform_(field.table, -2, 2, generator=torch.Generator().manual_seed(1))
    return field


def random_rays(n, seed=2):
    generator = torch.Generator().manual_seed(seed)
    origins = 2.5 * normalize(torch.randn(n, 3, generator=generator), dim=-1)
    directions = normalize(0.4 * torch.randn(n, 3, generator=generator) - origins, dim=-1)
    return Rays(origins, directions, torch.zeros(n))


def parallel_rays(width, height):
    """An orthographic camera far up the z axis."""
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) / height * 2 - 1, (torch.arange(width) + 0.5) / width * 2 - 1, indexing="ij"
    )
    origins = torch.stack([x, y, torch.full_like(x, 3.0)], -1).view(-1, 3)
    return Rays(origins, torch.tensor([[0.0, 0, -1]]).expand_as(origins).contiguous(), torch.zeros(len(origins)))


def dense(field, rays, samples, background):
    """Every sample looked at, composited by the reference."""
    positions = sample_positions(rays.origins, rays.directions, *samples)
    density, color = field(positions, rays.directions[samples.ray_indices.long()])
    return reference.compositing.composite_rays(density, color, samples.t_starts, samples.t_ends, samples.spans, background)


def test_without_culling_rays_are_the_dense_compositing_of_all_samples(backend):
    """Values, and gradients to the table, the networks and the rays."""
    field, march, rays = hash_field(), sampler(0.05), random_rays(80)
    background = torch.rand(80, 3, generator=torch.Generator().manual_seed(3))
    jitter = torch.rand(80, generator=torch.Generator().manual_seed(4))
    found = []
    for ours in (True, False):
        field.zero_grad()
        seen = Rays(*(x.clone().requires_grad_() for x in rays[:2]), rays.radii)
        if ours:
            batch = render_rays(field, march, seen, background, EVERYTHING, jitter=jitter)
            assert batch.n_marched == len(batch.samples.t_starts)
            out = batch.rendered
        else:
            out = dense(field, seen, march(rays, jitter), background)
        color, opacity, depth = out[:3]
        (color.square().sum() + opacity.sum() + depth.sin().sum()).backward()
        gradients = [seen.origins.grad, seen.directions.grad, *(p.grad for p in field.parameters() if p.numel())]
        found.append([*(x.detach() for x in out), *gradients])
    for ours, expected in zip(*found, strict=True):
        assert (ours - expected).abs().max() <= 3e-5 * expected.abs().max()
    assert (found[0][4] != 0).any()


@pytest.mark.parametrize("culling", [Culling(1e-2, 1e-2, 0.0), Culling(0.0, 3e-2, 0.0), Culling(0.1, 0.0, 0.0)])
def test_culling_changes_a_picture_by_less_than_the_weights_that_it_drops(backend, culling):
    """Dropping a weight w lets as much light through to what lies behind: a color changes by w at most."""
    field, march, rays = hash_field(), sampler(0.02), random_rays(200)
    background = torch.rand(200, 3, generator=torch.Generator().manual_seed(5))
    whole, culled = (render_rays(field, march, rays, background, c) for c in (EVERYTHING, culling))
    density = field.glance(sample_positions(rays.origins, rays.directions, *whole.samples)).density
    s = whole.samples
    kept, _ = visible_samples(
        density, s.t_starts, s.t_ends, s.spans, early_stop=culling.early_stop, least_weight=culling.least_weight
    )
    dropped = whole.rendered.weights.detach().clone()
    dropped[kept.long()] = 0
    bound = torch.zeros(200).index_add(0, s.ray_indices.long(), dropped)
    change = (culled.rendered.color - whole.rendered.color).abs().amax(-1)
    assert 0 < len(kept) < len(dropped)
    assert (change <= bound + 1e-5).all()
    assert change.max() > 1e-4
    assert culled.n_marched == len(dropped)
    assert len(culled.samples.t_starts) == len(kept)


def visible_by_hand(density, starts, ends, spans, draws, early_stop, least_weight, chance):
    kept = []
    for first, count in spans.tolist():
        light = 1.0
        for i in range(first, first + count):
            if light < early_stop:
                break
            alpha = 1 - math.exp(-float(density[i] * (ends[i] - starts[i])))
            if light * alpha >= least_weight or (draws is not None and draws[i] < chance):
                kept.append(i)
            light *= 1 - alpha
    return kept


@pytest.mark.parametrize("drawn", [False, True])
def test_visible_samples_are_those_of_a_walk_along_each_ray(backend, drawn):
    generator = torch.Generator().manual_seed(6)
    counts = torch.tensor([0, 7, 30, 0, 1, 22])
    spans = torch.stack([counts.cumsum(0) - counts, counts], -1).int()
    density = 5 * torch.rand(60, generator=generator) ** 4
    starts = torch.rand(60, generator=generator)
    ends = starts + torch.rand(60, generator=generator)
    draws = torch.rand(60, generator=generator) if drawn else None
    kept, found = visible_samples(density, starts, ends, spans, draws, early_stop=0.01, least_weight=0.02, chance=0.3)
    by_hand = visible_by_hand(density, starts, ends, spans, draws, 0.01, 0.02, 0.3)
    assert kept.tolist() == by_hand
    per_ray = [sum(first <= i < first + count for i in by_hand) for first, count in spans.tolist()]
    assert found[:, 1].tolist() == per_ray
    assert found[:, 0].tolist() == [sum(per_ray[:r]) for r in range(6)]
    assert 0 < len(by_hand) < 60


def test_chance_looks_at_its_share_of_what_would_be_culled(backend):
    """In empty space all samples are without weight."""
    rays, culling = random_rays(400), Culling(1e-3, 1e-3, 0.1)
    n_looked_at = {}
    for draws in (None, torch.Generator().manual_seed(7)):
        batch = render_rays(Ball(0.0), sampler(), rays, None, culling, draws=draws)
        n_looked_at[draws is None] = len(batch.samples.t_starts) / batch.n_marched
    assert n_looked_at[True] == 0
    assert n_looked_at[False] == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / batch.n_marched))


def test_a_ball_lets_light_through_by_its_chord(backend):
    """opacity = 1 - exp(-σ L); the mean depth of what is absorbed in [t, t + L] is t + 1/σ - L / (exp(σ L) - 1)."""
    sigma, radius, step = 3.0, 0.6, 0.002
    rays = parallel_rays(24, 16)
    picture = render_picture(Ball(sigma, radius), sampler(step, max_samples_per_ray=4096), rays, (24, 16), 0.25, EVERYTHING)
    off_axis = rays.origins[:, :2].norm(dim=-1).view(16, 24)
    chord = 2 * (radius**2 - off_axis**2).clamp_min(0).sqrt()
    opacity = 1 - torch.exp(-sigma * chord)
    assert (picture.opacity - opacity).abs().max() < sigma * step
    hit = chord > 0.05
    depth = 3 - chord / 2 + 1 / sigma - chord / torch.expm1(sigma * chord)
    assert (picture.depth - depth)[hit].abs().max() < step
    assert (picture.depth[chord == 0] == 0).all()
    assert (picture.color[chord == 0] == 0.25).all()
    x = rays.origins[:, 0].view(16, 24)
    red = opacity * (x + 1) / 2 + (1 - opacity) * 0.25
    assert (picture.color[..., 0] - red).abs().max() < sigma * step
    assert picture.normals is None


def test_normals_of_a_ball_point_outwards(backend, generator):
    positions = 0.6 * normalize(torch.randn(100, 3, generator=generator), dim=-1)
    assert_close(normals_of(lambda at: Ball(soft=0.1)(at, at)[0], positions), normalize(positions, dim=-1), atol=1e-5, rtol=0)


def test_normals_in_inference_mode_are_those_outside_of_it(backend, generator):
    rays = parallel_rays(4, 4)
    for field, decimals in ((Ball(soft=0.1), 0.0), (hash_field(), 1e-6)):
        wanted = render_picture(field, sampler(0.05), rays, (4, 4), with_normals=True).normals
        with torch.inference_mode():
            found = render_picture(field, sampler(0.05), Rays(*(x.clone() for x in rays)), (4, 4), with_normals=True).normals
        assert_close(found.clone(), wanted, atol=decimals, rtol=0)
        assert wanted.any()


def test_a_picture_has_the_normals_of_what_it_shows(backend):
    field, rays = Ball(500.0, 0.7, soft=0.02), parallel_rays(16, 16)
    picture = render_picture(field, sampler(), rays, (16, 16), 1.0, Culling(), with_normals=True)
    x, y = (rays.origins[:, axis].view(16, 16) for axis in (0, 1))
    middle = x.square() + y.square() < 0.3**2
    expected = torch.stack([x, y, (0.7**2 - x * x - y * y).clamp_min(0).sqrt()], -1)
    found = normalize(picture.normals, dim=-1)
    assert ((found * normalize(expected, dim=-1)).sum(-1)[middle] > 0.99).all()
    assert (picture.opacity[middle] > 0.99).all()
    outside = x.square() + y.square() > 0.95**2
    assert picture.normals[outside].abs().max() < 1e-3
    plain = render_picture(field, sampler(), rays, (16, 16), 1.0, Culling())
    assert_close(picture.color, plain.color)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_a_grid_wrongly_takes_for_dark_is_marched_through_all_the_same(backend, generator, share):
    """Rays end at random cells that are said to be opaque, and go on from there: with every sample once."""
    rays, march, field = random_rays(150), sampler(0.05), Ball(1.0)  # no light is lost
    rays.directions[::7] = normalize(rays.origins[::7], dim=-1)  # these see nothing
    whole = march(rays, None)
    opaque = torch.rand(len(march.least_density), generator=generator) < share
    march.least_density.copy_(1e9 * opaque)
    first = march(rays, None, until_dark=True)
    assert len(first.t_starts) < len(whole.t_starts) if share else len(first.t_starts) == len(whole.t_starts)
    found = rendering.find_visible(field, march, rays, EVERYTHING, None, None)
    assert found.n_marched == len(whole.t_starts)
    assert torch.equal(found.samples.spans, whole.spans)
    assert torch.equal(found.samples.t_starts, whole.t_starts)


def test_what_lies_behind_the_dark_is_not_marched_through(backend):
    """A ball whose inside the grid knows to be opaque: all of its occupied cells hold more than twice the samples."""
    field, rays, march = Ball(1e3), random_rays(150), sampler(0.02)
    for _ in range(40):
        march.update(lambda at: field.glance(at).density, 1.0, torch.Generator().manual_seed(1))
    knowing = rendering.find_visible(field, march, rays, Culling(), None, None)
    march.least_density.zero_()
    ignorant = rendering.find_visible(field, march, rays, Culling(), None, None)
    assert torch.equal(knowing.samples.t_starts, ignorant.samples.t_starts)
    assert 2 * knowing.n_marched < ignorant.n_marched


def test_a_picture_does_not_depend_on_how_it_was_cut(backend, monkeypatch):
    field, rays = hash_field(), parallel_rays(20, 15)
    found = []
    for n_rays in (2**15, 17):
        monkeypatch.setattr(rendering, "RAYS_AT_ONCE", n_rays)
        found.append(render_picture(field, sampler(0.05), rays, (20, 15), 1.0, EVERYTHING))
    for other in found[1:]:
        for ours, expected in zip(other[:3], found[0][:3], strict=True):
            assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_a_picture_of_many_samples_is_looked_at_in_pieces(backend, monkeypatch):
    """Of a fog, a ball of it and rays that miss it; none but a ray's own samples is over the bound."""
    rays, field = parallel_rays(20, 15), Ball(0.5, 0.6, soft=0.1)
    rays.origins[100:140] += 10.0  # past the box: no samples
    march = sampler(0.02)
    whole = render_picture(field, march, rays, (20, 15), 0.3, EVERYTHING, with_normals=True)
    longest, n_samples = int(march(rays, None).spans[:, 1].max()), len(march(rays, None).t_starts)

    def untidy(*arguments):
        """Where a ray has no samples, these may begin anywhere."""
        samples = march(*arguments)
        return samples._replace(spans=samples.spans.where(samples.spans[:, 1:] > 0, 0))

    assert (march(rays, None).spans[:, 1] == 0).sum() > 20
    glanced = []
    glance = Ball.glance
    monkeypatch.setattr(Ball, "glance", lambda field, at: glanced.append(len(at)) or glance(field, at))
    for most, marching in ((2000, march), (1, march), (2000, untidy)):
        monkeypatch.setattr(rendering, "MARCHED_AT_ONCE", most)
        glanced.clear()
        found = render_picture(field, marching, rays, (20, 15), 0.3, EVERYTHING, with_normals=True)
        assert sum(glanced) == n_samples > 3 * most
        assert max(glanced) <= most + longest
        for ours, expected in zip(found, whole, strict=True):
            assert_close(ours, expected, atol=1e-6, rtol=1e-6)  # measured: equal, but for the last bit of normals


def test_rays_that_meet_nothing_show_the_background(backend):
    rays = random_rays(5)._replace(directions=normalize(random_rays(5).origins, dim=-1))
    picture = render_picture(hash_field(), sampler(), rays, (5, 1), 0.75, with_normals=True)
    assert (picture.color == 0.75).all()
    assert not picture.opacity.any()
    assert not picture.normals.any()


def test_a_full_look_happens_only_where_light_ends(backend):
    """Behind the front of an opaque ball nothing is looked at."""
    field, rays = Ball(1e4), random_rays(100)
    batch = render_rays(field, sampler(), rays, None, Culling())
    hit = batch.rendered.opacity > 0.5
    assert batch.samples.spans[:, 1].max() == 1
    assert torch.equal(batch.samples.spans[:, 1].bool(), hit)
    assert field.n_looked_at == hit.sum() < batch.n_marched / 20


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_rendering_into_room_is_that_which_counts_its_samples(backend, generator, share):
    """Values and gradients, where rays end at random cells that are said to be opaque, and some see nothing."""
    field, march, rays = hash_field(), sampler(0.05), random_rays(300)
    rays.directions[::7] = normalize(rays.origins[::7], dim=-1)
    march.least_density.copy_(1e9 * (torch.rand(len(march.least_density), generator=generator) < share))
    background, jitter = (torch.rand(300, *n, generator=generator) for n in ((3,), ()))
    culling, rooms, found = Culling(1e-2, 1e-2, 0.0), Rooms(), []
    for given in (None, rooms, rooms):  # the second rendering counts, and the third has room for half as many again
        field.zero_grad()
        seen = Rays(*(x.clone().requires_grad_() for x in rays[:2]), rays.radii)
        batch = render_rays(field, march, seen, background, culling, jitter=jitter, rooms=given)
        (batch.rendered.color.square().sum() + batch.rendered.depth.sin().sum()).backward()
        gradients = [seen.origins.grad, seen.directions.grad, *(p.grad for p in field.parameters() if p.numel())]
        found.append((batch, [*(x.detach() for x in batch.rendered[:3]), *gradients]))
    (counted, expected), _, (batch, values) = found
    assert batch.is_whole
    assert len(batch.samples.t_starts) > len(counted.samples.t_starts)
    assert int(batch.n_marched) == counted.n_marched
    assert torch.equal(batch.samples.spans, counted.samples.spans)
    n = len(counted.samples.t_starts)
    for ours, wanted in zip(batch.samples[:3], counted.samples[:3], strict=True):
        assert torch.equal(ours[:n], wanted)
    assert not batch.rendered.weights[n:].any()
    for ours, wanted in zip(values, expected, strict=True):
        assert (ours - wanted).abs().max() <= 3e-5 * wanted.abs().max()


@pytest.mark.parametrize("lacking", range(5))
def test_a_rendering_without_enough_room_says_so_and_the_next_has_more(backend, monkeypatch, lacking):
    """Of each kind in turn: samples, those of them that are kept, rays that go on, their samples and what is kept of these."""
    monkeypatch.setattr(rooms_of, "LEAST", 1)
    monkeypatch.setattr(rooms_of, "MULTIPLE", 1)
    field, march, rays = Ball(1.0), sampler(0.05), random_rays(300)
    march.least_density.copy_(1e9 * (torch.rand(len(march.least_density), generator=torch.Generator().manual_seed(1)) < 0.3))
    rooms, found = Rooms(), []
    for number in range(6):
        if number == 1:
            _, wanted = rooms._told
            assert min(wanted.read()) > 0
            wanted.read()[lacking] //= 3
        batch = render_rays(field, march, rays, None, EVERYTHING, rooms=rooms)
        found.append((bool(batch.is_whole), batch.rendered.color))
    assert [whole for whole, _ in found[:2]] == [True, False]
    assert found[-1][0]
    for whole, color in found:
        assert whole == torch.allclose(color, found[0][1], atol=1e-6)


def test_packed_indices_are_those_of_what_is_true_as_far_as_there_is_room(backend, generator):
    for share in (0.0, 0.1, 1.0):
        mask = torch.rand(500, generator=generator) < share
        n = int(mask.sum())
        for room in (1, 20, 499, 500, 900):
            found = packed_indices(mask, room)
            assert len(found) == min(room, 500)
            assert found[: min(n, room)].tolist() == mask.nonzero()[: min(n, room), 0].tolist()
            assert found.min() >= 0
            assert found.max() < 500


def test_room_follows_samples_and_never_grows_for_what_rays_had_before():
    """A grid that empties: each ray has a tenth of the samples that it had, and there are twice as many rays."""
    rooms, n_rays, took = Rooms(), 1000, torch.tensor([400_000, 100_000, 500, 20_000, 10_000])
    assert rooms.room(n_rays) is None
    _, is_whole = rooms.tell(n_rays, None, took)
    assert is_whole
    first = rooms.room(n_rays)
    assert first == (600_064, 150_528, 1000, 30_720, 15_360)  # half as many again, in multiples of 1024
    rooms.tell(n_rays, first, took // 10)
    later = rooms.room(2 * n_rays)
    assert all(now <= max(0.9 * before + 1024, 1024) for now, before in zip(later, first, strict=True))
    assert later.marched > 1.5 * 2 * 40_000
    rooms.forget()
    assert rooms.room(n_rays) is None


def test_what_fills_its_room_is_taken_to_be_twice_as_much():
    room = rooms_of.Room(2048, 1024, 100, 1024, 1024)
    took = torch.tensor([2048, 10, 100, 7, 8])
    wanted, is_whole = Rooms().tell(100, room, took)
    assert wanted.tolist() == [4096, 10, 100, 7, 8]  # there are no more rays
    assert not is_whole
    assert Rooms().tell(200, room, took)[0].tolist() == [4096, 10, 200, 7, 8]
