"""`--method mipnerf360` on eight views of a ball: against plain torch, and as a training."""

from dataclasses import replace

import pytest
import torch
from ball_scene import views_of_ball
from resuming import expect_to_learn_and_resume
from torch.testing import assert_close

from taichi_nerf.fields.contracted_encoding import ContractedEncoding, GaussianEncodingSettings
from taichi_nerf.fields.mip_nerf_360_field import MipNerf360Field, ProposalNetwork, ProposalNetworkSettings, WideNetworkSettings
from taichi_nerf.rays import Rays
from taichi_nerf.samplers.hierarchical_sampler import from_edges
from taichi_nerf.settings import apply_settings, from_json_dict, to_json_dict
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.mipnerf360_config import PRESETS, MipNerf360Config
from taichi_nerf.training.model import Shown
from taichi_nerf.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = ["batch.n_rays=128", "proposal.n_proposed=16", "proposal.n_samples=12", "field.n_layers=3", "field.n_hidden=32",
         "field.skip_after=1", "field.n_feature=32", "density.n_hidden=16", "encoding.n_frequencies=5",
         "field.precision=float32", "density.precision=float32"]  # fmt: skip
BOX = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])


def trainer(*settings, unbounded=False):
    scene, _ = views_of_ball()
    scene = replace(scene, bounds=replace(scene.bounds, unbounded=unbounded, far=50.0 if unbounded else scene.bounds.far))
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings("mipnerf360", "small", steps=300), CPU)
    return Trainer(apply_settings(config, [*SMALL, *settings]), scene, CPU)


def test_the_published_networks_have_nine_million_parameters(generator):
    """Counted by hand: 504 numbers encode a place, 27 a direction."""
    encoding = ContractedEncoding(GaussianEncodingSettings(), BOX)
    field = MipNerf360Field(encoding, WideNetworkSettings(), generator)
    proposal = ProposalNetwork(encoding, ProposalNetworkSettings(), generator)
    n = 1024
    layers = (504 + 1) * n + 6 * (n + 1) * n + (504 + n + 1) * n
    heads = (n + 1) + (n + 1) * 256 + (256 + 27 + 1) * 128 + (128 + 1) * 3
    assert sum(parameter.numel() for parameter in field.parameters()) == layers + heads
    assert sum(parameter.numel() for parameter in proposal.parameters()) == 505 * 256 + 3 * 257 * 256 + 257
    assert round((layers + heads + 505 * 256 + 3 * 257 * 256 + 257) / 1e6, 1) == 9.0


@pytest.mark.parametrize("unbounded", [False, True])
def test_cameras_follow_colors_and_not_what_proposals_learn_by(cpu, unbounded):
    """Their gradient is the same with and without the interlevel loss, which was thirteen times the colors'."""

    def gradient(loss):
        made = trainer("poses.refine=true", f"proposal.loss={loss}", unbounded=unbounded)
        made.compare(made.draw(64)).loss.backward()
        return made.model.rig.turns.grad

    assert gradient(0).abs().max() > 0
    assert_close(gradient(1), gradient(0))


def contracted(x):
    r = x.norm().clamp_min(1)
    return (2 - 1 / r) * x / r


@pytest.mark.parametrize("n_directions", [3, 6, 21])
def test_pieces_of_cones_are_encoded_by_the_papers_formulas(cpu, generator, n_directions):
    """Moments, Jacobian by autograd, projections, expected sines: one sample at a time, near and far."""
    made = trainer(f"encoding.n_directions={n_directions}", unbounded=True).model
    rays = made.rig.rays(32 * torch.rand(6, 2, generator=generator), torch.zeros(6, dtype=torch.int32))
    edges = torch.tensor([1.0, 2.2, 3.1, 9.0, 40]).expand(6, -1).contiguous()
    got = made.field.encoding(rays, from_edges(edges)).view(6, 4, -1)
    reach, basis = made.field.encoding.reach, made.field.encoding.basis
    for ray in range(6):
        for k in range(4):
            mu, h = (edges[ray, k] + edges[ray, k + 1]) / 2, (edges[ray, k + 1] - edges[ray, k]) / 2
            below = 3 * mu**2 + h**2
            along = h**2 / 3 - 4 / 15 * h**4 * (12 * mu**2 - h**2) / below**2
            across = rays.radii[ray] ** 2 * (mu**2 / 4 + 5 / 12 * h**2 - 4 / 15 * h**4 / below)
            d = rays.directions[ray]
            mean = (rays.origins[ray] + (mu + 2 * mu * h**2 / below) * d) / reach
            covariance = (along * torch.outer(d, d) + across * (torch.eye(3) - torch.outer(d, d))) / reach**2
            jacobian = torch.autograd.functional.jacobian(contracted, mean)
            y, v = basis @ contracted(mean), (basis @ jacobian @ covariance @ jacobian.T @ basis.T).diagonal()
            octaves = 2.0 ** torch.arange(5)[:, None]
            fading = torch.exp(-v * octaves**2 / 2)
            wanted = torch.cat([(torch.sin(octaves * y) * fading).flatten(), (torch.cos(octaves * y) * fading).flatten()])
            assert_close(got[ray, k], wanted, atol=2e-4, rtol=0)


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize(
    "settings", [[], ["optimiser.largest_gradient=0.001", "proposal.n_proposed=16,16"], ["poses.refine=true"]]
)
def test_it_learns_and_resumes_to_the_bit(cpu, settings, unbounded):
    make = lambda: trainer("batch.background=white", *settings, unbounded=unbounded)  # noqa: E731
    expect_to_learn_and_resume(make, 0.95 if unbounded else 0.75)


def test_the_small_network_learns_from_the_wide_one_alone(cpu):
    """Its gradient vanishes without the interlevel loss, and that loss gives the wide one none."""
    for settings in (["proposal.loss=0"], ["proposal.loss=1", "mipnerf360.distortion=0"]):
        made = trainer(*settings)
        made.step()
        moved = any(
            parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in made.model.proposal.mlp.parameters()
        )
        assert moved == ("proposal.loss=1" in settings)
    with_loss, without = (trainer("mipnerf360.distortion=0", f"proposal.loss={loss}") for loss in (1, 0))
    for made in (with_loss, without):
        made.step()
    for one, other in zip(with_loss.model.field.network.parameters(), without.model.field.network.parameters(), strict=True):
        assert torch.equal(one, other)


def compared(made, n=24, n_beside=0):
    """By a step's rays, of which so many more pass the box by; and what the loss is of."""
    model, generator = made.model, torch.Generator().manual_seed(2)
    rays = model.rig.rays(10 + 12 * torch.rand(n, 2, generator=generator), torch.zeros(n).int())
    away = model.rig.rays(torch.full((n_beside, 2), 16.0), torch.zeros(n_beside).int())
    away = away._replace(directions=-away.directions)
    rays, m = Rays(*(torch.cat(parts) for parts in zip(rays, away, strict=True))), n + n_beside
    truth = torch.rand(m, 3, generator=generator)
    shown = Shown(rays, torch.zeros(m).int(), truth, torch.zeros(m, 3), None, None)
    return model.compare(shown, torch.Generator().manual_seed(3)), truth


@pytest.mark.parametrize(("kind", "error"), [
    ("mse", torch.square), ("charbonnier", lambda d: (d**2 + 1e-6).sqrt()),
    ("huber", lambda d: torch.where(d.abs() < 0.1, d**2, 0.2 * d.abs() - 0.01)),
])  # fmt: skip
def test_colors_are_compared_as_is_set(cpu, kind, error):
    made = trainer(f"mipnerf360.photometric={kind}", "mipnerf360.distortion=0")
    found, truth = compared(made)
    assert found.loss.item() == pytest.approx(error(found.seen.rendered.color - truth).mean().item(), rel=1e-5)


def test_weights_that_lie_apart_cost_their_double_sum_in_shares_of_the_ray(cpu):
    """Σ_ij w_i w_j |s_i - s_j| + ⅓ Σ w_i² δ_i, times the weight, a mean over all rays: those beside the box, too."""
    (with_it, _), (without, _) = (compared(trainer(f"mipnerf360.distortion={weight}"), 24, 8) for weight in (0.5, 0))
    model, seen = trainer().model, with_it.seen
    t_starts, t_ends, w = (x.detach().view(24, -1) for x in (*seen.samples[:2], seen.rendered.weights))
    pixels = 10 + 12 * torch.rand(24, 2, generator=torch.Generator().manual_seed(2))
    found = model._cast(model.rig.rays(pixels, torch.zeros(24).int()))
    length = (found.t_far - found.t_near)[:, None]
    middle, width = (t_starts + t_ends) / 2 / length, (t_ends - t_starts) / length
    apart = (middle[:, :, None] - middle[:, None]).abs()
    expected = torch.einsum("ri,rj,rij->r", w, w, apart) + (w**2 * width).sum(-1) / 3
    assert (with_it.loss - without.loss).item() == pytest.approx(0.5 * expected.sum().item() / 32, rel=1e-3)


def test_rays_beside_the_scene_teach_proposals_nothing_but_count(cpu):
    """The interlevel loss is a mean over all rays, as that of colors is."""
    gradients = []
    for n_beside in (0, 24):
        made = trainer()
        compared(made, 24, n_beside)[0].loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in made.model.proposal.mlp.parameters()]))
    assert gradients[0].abs().max() > 0
    assert_close(gradients[1], gradients[0] / 2)


def test_long_gradients_are_shortened(cpu):
    made = trainer("optimiser.largest_gradient=0.001")
    made.step()
    networks = [parameter for group in made.optimiser.param_groups for parameter in group["params"]]
    assert_close(torch.cat([parameter.grad.flatten() for parameter in networks]).norm(), torch.tensor(0.001), atol=0, rtol=1e-3)


def test_what_goes_on_is_opaque_and_depth_stays_finite(cpu):
    made = trainer(unbounded=True)
    [made.step() for _ in range(5)]
    rays = made.model.rig.rays(torch.tensor([[16.0, 16.0], [0.5, 0.5]]), torch.zeros(2, dtype=torch.int32))
    picture = made.model.picture(rays, (2, 1))
    assert_close(picture.opacity, torch.ones(1, 2))
    assert (picture.depth <= made.model.bounds.far).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_being_written(preset):
    scene, _ = views_of_ball()
    config, notes = methods.choose(scene, SceneSettings("ball"), RunSettings("mipnerf360", preset), CPU)
    assert from_json_dict(MipNerf360Config, to_json_dict(config)) == config
    assert config.run.preset in notes[0]
    if preset == "360":
        assert (config.batch.n_rays, config.proposal.n_proposed, config.proposal.n_samples) == (2**14, (64, 64), 32)
        assert (config.run.steps, config.optimiser.delay * config.run.steps) == (250_000, 512)


def test_pictures_have_normals_and_places_have_density_and_color(cpu):
    made = trainer()
    rays = made.model.rig.rays(torch.tensor([[16.0, 16.0], [0.5, 0.5]]), torch.zeros(2, dtype=torch.int32))
    picture = made.model.picture(rays, (2, 1), with_normals=True)
    assert picture.normals.shape == (1, 2, 3)
    assert picture.normals.isfinite().all()
    at = torch.rand(5, 3)
    assert (made.model.density(at) >= 0).all()
    assert made.model.color(at, at).shape == (5, 3)


def test_numbers_of_directions_that_no_solid_has_are_refused():
    with pytest.raises(ValueError, match="3, 6 or 21"):
        GaussianEncodingSettings(n_directions=4)
