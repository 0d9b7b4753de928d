"""Scores against closed forms: where data are normally distributed, everything about them is known.

x_0 ~ N(μ, s²) at every pixel: p_t = N(√ᾱ μ, ᾱ s² + 1 - ᾱ), and the noise that is to be expected in x is
ε*(x, t) = √(1-ᾱ) (x - √ᾱ μ) / (ᾱ s² + 1 - ᾱ).
"""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from taichi_nerf.priors.channels import depth_of, inverse_depth, to_channels
from taichi_nerf.priors.denoiser import Denoiser, DenoiserSettings
from taichi_nerf.priors.diffusion_prior import ScoreWeights, patch_loss, score_of, tau_at
from taichi_nerf.priors.noise_schedule import NoiseSchedule
from taichi_nerf.priors.prior import Prior, PriorSettings
from taichi_nerf.priors.sampling import sample

MEAN, STD, SIZE = 0.3, 0.5, 8
SETTINGS = PriorSettings(DenoiserSettings(8, (1, 2)), size=SIZE, focal=30.0)


def expected_noise(x, t, schedule):
    kept = schedule.kept[t].float().view(-1, *[1] * (x.ndim - 1))
    return (1 - kept).sqrt() * (x - kept.sqrt() * MEAN) / (kept * STD**2 + 1 - kept)


class Oracle(nn.Module):
    """What a perfect denoiser of such data says."""

    settings = SETTINGS.denoiser

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        return expected_noise(x, t.long(), NoiseSchedule.of())


@pytest.fixture(scope="module")
def oracle():
    return Prior(SETTINGS, Oracle())


def log_density(x, t, schedule):
    kept = schedule.kept[t].float()
    return (-((x - kept.sqrt() * MEAN) ** 2) / (2 * (kept * STD**2 + 1 - kept))).sum()


LEVELS = (200, 350, 500, 650, 800)


def independent_patches(n, generator):
    """A normally distributed number at each pixel."""
    return MEAN + STD * torch.randn(n, 4, SIZE, SIZE, generator=generator)


def flat_patches(n, generator):
    """One normally distributed number each: the same at all pixels."""
    return (MEAN + STD * torch.randn(n, 1, 1, 1, generator=generator)).expand(n, 4, SIZE, SIZE)


def noise_in_flat(x, t, schedule):
    """ε* = (x - √ᾱ m) / √(1-ᾱ), m the posterior mean of that number: N(μ, s²) with all pixels as measurements."""
    kept = schedule.kept[t].float()
    of_pixels = kept * x[0].numel() / (1 - kept)
    mean = (MEAN / STD**2 + of_pixels * x.mean((1, 2, 3), keepdim=True) / kept.sqrt()) / (1 / STD**2 + of_pixels)
    return (x - kept.sqrt() * mean) / (1 - kept).sqrt()


def denoiser_of(patches, n_steps=1500):
    """A real denoiser that learns from noisy examples of such patches, as priors do."""
    torch.manual_seed(0)
    schedule, generator = NoiseSchedule.of(), torch.Generator().manual_seed(0)
    denoiser = Denoiser(SETTINGS.denoiser)
    optimiser = torch.optim.Adam(denoiser.parameters(), 1e-2, fused=True)  # 160 small tensors: else a tenth of a step
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * min(1, (step + 1) / 20) * (1 - step / n_steps)
        x, t = patches(20, generator), torch.tensor(LEVELS).repeat(4)
        noise = torch.randn(x.shape, generator=generator)
        loss = (denoiser(schedule.noisy(x, noise, t), t) - noise).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Prior(SETTINGS, denoiser)


def error_of_score(prior, patches, noise_in, t):
    """Relative, on patches that it did not learn from."""
    schedule, generator = prior.schedule, torch.Generator().manual_seed(7)
    x = patches(64, generator)
    noisy = schedule.noisy(x, torch.randn(x.shape, generator=generator), torch.full((64,), t))
    truth = -noise_in(noisy, t, schedule) / schedule.noise[t].float()
    return ((prior.score(noisy, t) - truth).norm() / truth.norm()).item()


def test_a_denoiser_of_independent_pixels_has_the_analytic_score_at_all_levels():
    prior = denoiser_of(independent_patches)
    errors = {t: error_of_score(prior, independent_patches, expected_noise, t) for t in LEVELS}
    assert max(errors.values()) < 0.05, errors


def test_a_denoiser_of_flat_patches_has_the_analytic_score():
    """They have to be told from noise by all of their pixels together, which is harder to learn where there is little noise."""
    prior = denoiser_of(flat_patches)
    errors = {t: error_of_score(prior, flat_patches, noise_in_flat, t) for t in LEVELS}
    assert errors.pop(200) < 0.1
    assert errors.pop(350) < 0.06  # 0.048 to 0.050, by how a processor rounds
    assert max(errors.values()) < 0.05, errors


@pytest.mark.parametrize("tau", [0.1, 0.0])
def test_a_step_down_the_loss_goes_up_in_density(oracle, tau):
    prior = oracle
    t = prior.schedule.time_at(tau)
    generator = torch.Generator().manual_seed(1)
    color = torch.rand(SIZE, SIZE, 3, generator=generator).requires_grad_()
    inverse = torch.rand(SIZE, SIZE, generator=generator).requires_grad_()

    def density():
        return log_density(to_channels(color, inverse), t, prior.schedule)

    before = density()
    patch_loss(prior, color, inverse, torch.ones(SIZE, SIZE), tau, ScoreWeights(1.0, 1.0)).backward()
    with torch.no_grad():
        for part in (color, inverse):
            part -= 1e-3 * part.grad / part.grad.norm()
    assert density() > before


def test_gradient_of_the_loss_is_minus_the_score(oracle):
    """Of depths exactly; of colors, scaled to the length that their weight says. x = 2 c - 1 doubles both."""
    color, inverse = torch.rand(SIZE, SIZE, 3).requires_grad_(), torch.rand(SIZE, SIZE).requires_grad_()
    weights = ScoreWeights(1.0, 3.0, by_depth=False)
    patch_loss(oracle, color, inverse, torch.ones(SIZE, SIZE), 0.05, weights).backward()
    score = score_of(oracle, to_channels(color, inverse).detach(), 0.05)
    assert_close(inverse.grad / 2, -score[-1], rtol=0, atol=0)
    assert_close(color.grad.movedim(-1, 0) / 2, -3.0 * score[:3] / score[:3].norm())
    assert (color.grad / 2).norm().item() == pytest.approx(3.0, rel=1e-5)


def test_depths_change_by_shares_whatever_the_scale_of_the_scene(oracle):
    """dL/d log z with factor z: s · z · d(0.2/z)/d log z = -0.2 s, without z."""
    score = torch.full((4, SIZE, SIZE), 0.7)
    fixed = Prior(SETTINGS, Oracle())
    fixed.score = lambda x, t: score[None]
    for z in (1.0, 5.0):
        log_depth = torch.full((SIZE, SIZE), z).log().requires_grad_()
        depth = log_depth.exp()
        patch_loss(fixed, torch.zeros(SIZE, SIZE, 3), inverse_depth(depth), depth, 0.0, ScoreWeights(1.0, 0.0)).backward()
        assert_close(log_depth.grad, torch.full((SIZE, SIZE), 2 * 0.2 * 0.7))


def test_colors_of_images_get_no_gradient(oracle):
    color, inverse = torch.rand(SIZE, SIZE, 3).requires_grad_(), torch.rand(SIZE, SIZE).requires_grad_()
    patch_loss(oracle, color, inverse, torch.ones(SIZE, SIZE), 0.1, color_counts=False).backward()
    assert color.grad.abs().max() == 0
    assert inverse.grad.abs().max() > 0


@pytest.mark.parametrize(("variant", "channels"), [("d", 1), ("rgb", 3)])
def test_priors_of_depth_or_color_alone_leave_the_other_alone(variant, channels):
    settings = PriorSettings(DenoiserSettings(8, (1, 2), channels), size=SIZE, variant=variant)
    prior = Prior(settings, Oracle())
    color, inverse = torch.rand(SIZE, SIZE, 3).requires_grad_(), torch.rand(SIZE, SIZE).requires_grad_()
    patch_loss(prior, color, inverse, torch.ones(SIZE, SIZE), 0.1).backward()
    color_moves, depth_moves = (part.grad is not None and bool(part.grad.abs().max() > 0) for part in (color, inverse))
    assert (color_moves, depth_moves) == (variant == "rgb", variant == "d")


def test_noise_and_its_opposite_leave_of_a_linear_score_what_it_is_without_noise(oracle):
    """The oracle's noise is linear in x, so a pair is exact whatever was drawn: the score of the patch, √ᾱ nearer to the data."""
    patch, tau = torch.full((4, SIZE, SIZE), 0.9), 0.1
    found = score_of(oracle, patch, tau, torch.randn(patch.shape, generator=torch.Generator().manual_seed(0)))
    kept = oracle.schedule.kept[oracle.schedule.time_at(tau)].item()
    assert_close(found, torch.full_like(found, -(kept**0.5) * (0.9 - MEAN) / (kept * STD**2 + 1 - kept)), rtol=1e-3, atol=1e-3)


def test_tau_falls_to_0_over_a_quarter_of_the_training():
    assert tau_at(0.0) == pytest.approx(0.1)
    assert tau_at(0.125) == pytest.approx(0.05)
    assert tau_at(0.25) == tau_at(0.9) == tau_at(0.5, until=0.0) == 0.0
    assert tau_at(0.5, 0.2, 1.0, 0.1) == pytest.approx(0.15)
    assert tau_at(1.0, 0.2, 1.0, 0.1) == tau_at(0.3, 0.2, 0.0, 0.1) == 0.1


def test_channels_are_inverse_depth_and_color():
    depth = torch.tensor([[0.1, 0.2], [0.4, torch.inf]])
    inverse = inverse_depth(depth)
    assert_close(inverse, torch.tensor([[1.0, 1.0], [0.5, 0.0]]))
    patch = to_channels(torch.full((2, 2, 3), 0.25), inverse)
    assert patch.shape == (4, 2, 2)
    assert_close(patch[:3], torch.full((3, 2, 2), -0.5))
    assert_close(patch[3], torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
    assert_close(depth_of(patch)[1, 0], torch.tensor(0.4))
    assert_close(inverse_depth(depth * 5, 1.0), inverse)
    assert_close(depth_of(patch, nearest=1.0)[1, 0], torch.tensor(2.0))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_are_distributed_as_the_data(oracle, eta):
    """Where clipping to [-1, 1] changes little: N(0.3, 0.5²) has 8 % beyond 1."""
    drawn = sample(oracle, 200, torch.Generator().manual_seed(0), 100, eta)
    assert drawn.shape == (200, 4, SIZE, SIZE)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.06)
    assert drawn.std().item() == pytest.approx(STD, rel=0.12)
