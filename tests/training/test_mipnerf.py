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


def test_pictures_have_normals_and_places_have_density_and_color(cpu):
    made = trainer()
    rays = made.model.rig.rays(torch.tensor([[16.0, 16.0], [0.5, 0.5]]), torch.zeros(2, dtype=torch.int32))
    picture = made.model.picture(rays, (2, 1), with_normals=True)
    assert picture.normals.shape == (1, 2, 3)
    assert picture.normals.isfinite().all()
    at = torch.rand(5, 3)
    assert (made.model.density(at) >= 0).all()
    assert made.model.color(at, at).shape == (5, 3)
