"""`--method mipnerf` on eight views of a ball: against plain torch, and as a training."""

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball
from resuming import expect_to_learn_and_resume
from torch.testing import assert_close

from taichi_nerf.fields.mip_nerf_field import MipNerfField, MipNetworkSettings
from taichi_nerf.settings import apply_settings, from_json_dict, to_json_dict
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.mipnerf_config import PRESETS, MipNerfConfig
from taichi_nerf.training.model import Shown
from taichi_nerf.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = ["batch.n_rays=128", "mipnerf.n_samples=16", "field.n_layers=3", "field.n_hidden=32", "field.skip_after=1",
         "field.n_frequencies=6", "field.precision=float32"]  # fmt: skip


def trainer(*settings, preset="small"):
    scene, _ = views_of_ball()
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings("mipnerf", preset, steps=300), CPU)
    return Trainer(apply_settings(config, [*SMALL, *settings]), scene, CPU)


def test_the_published_network_has_612740_parameters(generator):
    field = MipNerfField(MipNetworkSettings(), generator)
    assert sum(parameter.numel() for parameter in field.parameters()) == 612_740


def moments(t_0, t_1, radii, origins, directions):
    """Of cones, by the paper's formulas: means and diagonals of covariances, [n, s, 3]."""
    mu, h = (t_0 + t_1) / 2, (t_1 - t_0) / 2
    below = 3 * mu**2 + h**2
    along = mu + 2 * mu * h**2 / below
    of_t = h**2 / 3 - 4 / 15 * h**4 * (12 * mu**2 - h**2) / below**2
    of_r = radii[:, None] ** 2 * (mu**2 / 4 + 5 / 12 * h**2 - 4 / 15 * h**4 / below)
    d = directions[:, None]
    return origins[:, None] + along[..., None] * d, of_t[..., None] * d**2 + of_r[..., None] * (1 - d**2)


def plainly(model, rays, edges):
    """Color and weights of the intervals between edges, over black."""
    means, variances = moments(edges[:, :-1], edges[:, 1:], rays.radii, rays.origins, rays.directions)
    scales = 2.0 ** torch.arange(model.field.settings.n_frequencies)
    y, damping = means[..., None, :] * scales[:, None], torch.exp(-variances[..., None, :] * scales[:, None] ** 2 / 2)
    encoded = torch.cat([(torch.sin(y) * damping).flatten(-2), (torch.cos(y) * damping).flatten(-2)], -1)
    phases = (rays.directions[:, None] * 2.0 ** torch.arange(4)[:, None]).flatten(-2)
    seen_from = torch.cat([rays.directions, torch.sin(phases), torch.cos(phases)], -1)
    n_samples = means.shape[1]
    raw, color = model.field.network(encoded.flatten(0, 1), seen_from.repeat_interleave(n_samples, 0))
    density = torch.log1p(torch.exp(raw - 1)).view(-1, n_samples)
    color = (1.002 * torch.sigmoid(color) - 0.001).view(-1, n_samples, 3)
    alpha = 1 - torch.exp(-density * edges.diff())
    weights = alpha * torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha], -1), -1)[:, :-1]
    return (weights[..., None] * color).sum(1), weights


def test_a_picture_is_the_published_procedures(cpu):
    """Cones, integrated encoding, padded colors, blurred resampling."""
    made = trainer("mipnerf.within_box=false")
    [made.step() for _ in range(10)]
    model = made.model
    pixels = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 32
    rays = model.rig.rays(pixels, torch.zeros(40, dtype=torch.int32))
    with torch.no_grad():
        edges = torch.linspace(model.bounds.near, model.bounds.far, 17).expand(40, -1)
        _, weights = plainly(model, rays, edges)
        padded = torch.cat([weights[:, :1], weights, weights[:, -1:]], -1)
        larger = torch.maximum(padded[:, :-1], padded[:, 1:])
        blurred = (larger[:, :-1] + larger[:, 1:]) / 2 + 0.01
        cdf = torch.cat([torch.zeros(40, 1), (blurred / blurred.sum(-1, keepdim=True)).cumsum(-1)], -1).numpy()
        u = np.linspace(0, 1, 17)
        fine = torch.tensor(np.stack([np.interp(u, c, e) for c, e in zip(cdf, edges.numpy(), strict=True)])).float()
        expected = plainly(model, rays, fine)[0].clamp(0, 1)
    assert_close(model.picture(rays, (40, 1)).color[0], expected, atol=5e-4, rtol=0)


def test_pixels_weigh_what_they_stand_for(cpu):
    """Doubling all weights changes nothing; a pixel of weight zero does not exist."""
    model = trainer().model
    n = 20
    generator = torch.Generator().manual_seed(0)
    rays = model.rig.rays(torch.rand(n, 2, generator=generator) * 8 + 12, torch.zeros(n, dtype=torch.int32))
    truth, black = torch.rand(n, 3, generator=generator), torch.zeros(n, 3)
    views = torch.zeros(n, dtype=torch.int32)
    weight = torch.tensor([1.0, 4.0] * 10)

    def loss(weight, truth=truth):
        return model.compare(Shown(rays, views, truth, black, weight, None), torch.Generator().manual_seed(1)).loss

    assert_close(loss(weight), loss(2 * weight))
    assert_close(loss(torch.ones(n)), loss(None))
    none = weight.clone()
    none[3] = 0
    other = truth.clone()
    other[3] += 1
    assert_close(loss(none), loss(none, other))
    assert loss(weight) != loss(weight, other)


def test_the_first_levels_error_counts_as_much_as_is_set(cpu):
    """Of equal draws: what the loss has beyond the second level's error grows with the weight."""

    def losses(weight):
        model = trainer(f"mipnerf.coarse_weight={weight}").model
        rays = model.rig.rays(torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 32, torch.zeros(20).int())
        shown = Shown(rays, torch.zeros(20).int(), torch.full((20, 3), 0.7), torch.zeros(20, 3), None, None)
        found = model.compare(shown, torch.Generator().manual_seed(1))
        return found.loss.item(), found.squared.mean().item()

    (none, fine), (some, _), (more, _) = (losses(weight) for weight in (0.0, 0.3, 0.9))
    assert none == pytest.approx(fine, rel=1e-5)
    assert some > 1.01 * none
    assert more - none == pytest.approx(3 * (some - none), rel=1e-4)


@pytest.mark.parametrize("cylinder", [False, True])
def test_pieces_of_cones_have_their_middle_farther_than_pieces_of_cylinders_and_grow(cpu, cylinder):
    """A cylinder's is half way, and its width is the ray's everywhere: a quarter of the radius squared across it."""
    model, seen = trainer(f"mipnerf.cylinder={str(cylinder).lower()}").model, []
    right = model.field.look
    model.field.look = lambda means, variances, *others: seen.append((means, variances)) or right(means, variances, *others)
    rays = model.rig.rays(torch.tensor([[16.0, 16.0]]), torch.zeros(1).int())
    coarse, _ = model._levels(model._cast(rays), torch.zeros(1, 3), None)
    (means, variances), (t_starts, t_ends) = seen[0], coarse.samples[:2]
    along = ((means - rays.origins) * rays.directions).sum(-1)
    across = variances.sum(-1) - (t_ends - t_starts) ** 2 / 12  # what is left of the spread: of two directions
    middle = (t_starts + t_ends) / 2
    if cylinder:
        assert_close(along, middle, rtol=1e-5, atol=1e-5)
        assert_close(across, (2 * rays.radii**2 / 4).expand(16), rtol=0.02, atol=0)
    else:
        assert (along > middle + 1e-4).all()
        assert_close(across / middle**2, (2 * rays.radii**2 / 4).expand(16), rtol=0.05, atol=0)


@pytest.mark.parametrize("settings", [[], ["mipnerf.cylinder=true", "mipnerf.blur=false"], ["mipnerf.noise=0.1"]])
def test_it_learns_and_resumes_to_the_bit(cpu, settings):
    expect_to_learn_and_resume(lambda: trainer("batch.background=white", *settings), 0.7)


def test_a_wider_pixel_sees_a_smoother_field(cpu):
    """What integrated encoding is for: colors of neighbouring rays differ less, the wider the cones."""
    made = trainer("field.n_frequencies=12")
    [made.step() for _ in range(10)]
    pixels = torch.stack([torch.linspace(10, 22, 200), torch.full((200,), 16.0)], -1)
    rays = made.model.rig.rays(pixels, torch.zeros(200, dtype=torch.int32))
    seen = [made.model.picture(rays._replace(radii=k * rays.radii), (200, 1)).color[0] for k in (0.1, 1, 8)]
    rough = [color.diff(dim=0).abs().mean() for color in seen]
    assert rough[0] > rough[1] > rough[2]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_being_written(preset):
    scene, _ = views_of_ball()
    config, notes = methods.choose(scene, SceneSettings("ball"), RunSettings("mipnerf", preset), CPU)
    assert from_json_dict(MipNerfConfig, to_json_dict(config)) == config
    assert config.run.preset in notes[0]
    if preset == "blender":
        assert (config.batch.n_rays, config.mipnerf.n_samples, config.run.steps) == (4096, 128, 1_000_000)
        assert (config.optimiser.delay * config.run.steps, config.optimiser.delay_factor) == (2500, 0.01)


def test_places_are_as_wide_as_a_pixel_is_there(cpu):
    """That of a picture of 32 pixels, seen from 2.5 · sqrt(1.16) away: its Gaussian's deviation is half of it."""
    model, seen = trainer().model, []
    right = model.field.look
    model.field.look = lambda means, variances, *others: seen.append(variances) or right(means, variances, *others)
    model.density(torch.zeros(5, 3))
    width = 2.5 * 1.16**0.5 / (1.4 * 32)
    assert_close(seen[0], torch.full((5, 3), (width / 2) ** 2))


def test_pictures_have_normals_and_places_have_density_and_color(cpu):
    made = trainer()
    rays = made.model.rig.rays(torch.tensor([[16.0, 16.0], [0.5, 0.5]]), torch.zeros(2, dtype=torch.int32))
    picture = made.model.picture(rays, (2, 1), with_normals=True)
    assert picture.normals.shape == (1, 2, 3)
    assert picture.normals.isfinite().all()
    at = torch.rand(5, 3)
    assert (made.model.density(at) >= 0).all()
    assert made.model.color(at, at).shape == (5, 3)
