"""StyleGAN2's networks and losses against plain formulations of the same."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from taichi_nerf.generator.stylegan2 import loss
from taichi_nerf.generator.stylegan2.augment import Strength, augmented
from taichi_nerf.generator.stylegan2.discriminator import Discriminator, spread_of_batch
from taichi_nerf.generator.stylegan2.generator import Generator, GeneratorSettings, latents_of_seeds
from taichi_nerf.generator.stylegan2.growth import take_over
from taichi_nerf.generator.stylegan2.layers import (
    Convolution,
    FullyConnected,
    filtered,
    modulated_convolution,
    resampling_filter,
    upsampled,
)
from taichi_nerf.generator.stylegan2.training import GanSettings, GanTraining

TINY = GeneratorSettings(16, 8, 12, 2, 128, 16)
BUSY = GanSettings(4, r1_interval=2, path_interval=2, augment_target=-2.0, mirror=True, average_images=20.0)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.mark.parametrize(
    ("resolution", "base", "n_layers", "millions"), [(256, 16384, 14, 24.77), (512, 32768, 16, 30.28), (1024, 32768, 18, 30.37)]
)
def test_the_published_sizes_have_the_published_numbers_of_parameters(resolution, base, n_layers, millions):
    with torch.device("meta"):
        generator = Generator(GeneratorSettings(resolution, channel_base=base))
    assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert generator.settings.n_layers == n_layers


def per_sample(images, weight, styles, bias, demodulate, up):
    """Every image with a kernel of its own, one after another."""
    found = []
    for image, style in zip(images, styles, strict=True):
        kernel = weight * style[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:  # zeros between, transposed convolution written as a convolution with the flipped kernel, then the filter
            spread = torch.zeros(1, len(image), 2 * image.shape[1] - 1, 2 * image.shape[2] - 1, dtype=image.dtype)
            spread[0, :, ::2, ::2] = image
            wide = functional.conv2d(functional.pad(spread, (2, 2, 2, 2)), kernel.flip(2, 3))
            taps = torch.outer(*[torch.tensor([1.0, 3, 3, 1], dtype=image.dtype)] * 2) / 16
            out = functional.conv2d(wide[0][:, None], taps[None, None], padding=1)[:, 0]
        else:
            out = functional.conv2d(image[None], kernel, padding=weight.shape[-1] // 2)[0]
        found.append(out + bias[:, None, None])
    return torch.stack(found)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulation_of_images_is_modulation_of_weights(up, demodulate):
    images, weight = torch.randn(3, 5, 6, 6).double(), torch.randn(4, 5, 3, 3).double()
    styles, bias = torch.randn(3, 5).double(), torch.randn(4).double()
    taps = resampling_filter().double()
    found = modulated_convolution(images, weight, styles, bias, demodulate=demodulate, up=up, taps=taps)
    assert torch.allclose(found, per_sample(images, weight, styles, bias, demodulate, up), atol=1e-10)


def test_demodulated_features_have_unit_variance_whatever_the_style():
    images = torch.randn(2, 64, 16, 16)
    found = modulated_convolution(images, torch.randn(32, 64, 3, 3), 100 * torch.rand(2, 64), torch.zeros(32))
    assert found[:, :, 1:-1, 1:-1].std().item() == pytest.approx(1, abs=0.05)


def test_enlarging_and_filtering_keep_a_constant():
    flat = torch.full((1, 2, 8, 8), 3.0)
    taps = resampling_filter()
    assert torch.allclose(upsampled(flat, taps)[:, :, 2:-2, 2:-2], torch.tensor(3.0))
    assert torch.allclose(filtered(flat, taps, (2, 2))[:, :, 3:-3, 3:-3], torch.tensor(3.0))


def test_enlarging_is_zeros_between_pixels_then_the_filter():
    image = torch.rand(1, 1, 4, 4)
    taps = torch.tensor([1.0, 3, 3, 1]) / 4
    spread = torch.zeros(8, 8)
    spread[::2, ::2] = image[0, 0]
    expected = torch.zeros(8, 8)
    for y in range(8):
        for x in range(8):
            for j in range(4):
                for i in range(4):
                    if 0 <= y + j - 2 < 8 and 0 <= x + i - 2 < 8:
                        expected[y, x] += taps[j] * taps[i] * spread[y + j - 2, x + i - 2]
    assert torch.allclose(upsampled(image, resampling_filter())[0, 0], expected, atol=1e-6)


def test_learning_rates_are_equalised_and_not_the_function():
    """A multiplier changes how fast a layer learns, not what it computes at the start."""
    values = torch.randn(2000, 64)
    for multiplier in (1.0, 0.01):
        assert FullyConnected(64, 64, multiplier=multiplier)(values).std().item() == pytest.approx(1, abs=0.05)


def test_the_gain_of_a_convolution_may_come_before_its_activation():
    layer, images = Convolution(3, 5, 3), torch.randn(2, 3, 8, 8)
    torch.nn.init.normal_(layer.bias)
    plain = functional.conv2d(images, layer.weight / math.sqrt(27), layer.bias, padding=1)
    assert torch.allclose(layer(images, gain=0.5), functional.leaky_relu(plain, 0.2) * math.sqrt(2) * 0.5, atol=1e-5)


def test_the_mapping_sees_only_the_direction_of_z():
    mapping, z = Generator(TINY).mapping, torch.randn(4, 8)
    assert torch.allclose(mapping(z), mapping(5 * z), atol=1e-5)


def test_truncation_moves_codes_towards_their_mean_up_to_the_cutoff():
    mapping, z = Generator(TINY).mapping, torch.randn(4, 8)
    mapping.w_avg.normal_()
    whole, half = mapping(z), mapping(z, truncation=0.5, cutoff=2)
    assert torch.allclose(half[:, :2], (whole[:, :2] + mapping.w_avg) / 2, atol=1e-6)
    assert torch.equal(half[:, 2:], whole[:, 2:])
    assert torch.allclose(mapping(z, truncation=0.0), mapping.w_avg.expand(4, 6, 12))


def test_images_are_the_same_with_constant_noise_and_differ_with_random_noise():
    generator = Generator(TINY)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.5)
    codes = generator.mapping(torch.randn(2, 8))
    assert torch.equal(generator.synthesis(codes), generator.synthesis(codes))
    assert not torch.allclose(generator.synthesis(codes, "random"), generator.synthesis(codes, "random"))
    assert not torch.allclose(generator.synthesis(codes, "none"), generator.synthesis(codes, "const"))


def test_a_code_changes_its_own_layer_and_later_ones_only():
    generator = Generator(TINY)
    codes = generator.mapping(torch.randn(1, 8))
    changed = codes.clone()
    changed[:, 2:] += 1
    before, after = (generator.synthesis.with_features(each, 4)[1] for each in (codes, changed))
    assert torch.equal(before, after)
    assert not torch.allclose(generator.synthesis(codes), generator.synthesis(changed))


def test_a_seed_is_an_image_whichever_others_are_asked_for():
    assert torch.equal(latents_of_seeds([7, 3], 8)[1], latents_of_seeds([3], 8)[0])


def test_the_spread_of_equal_images_is_nothing_and_of_a_pair_is_half_their_distance():
    same = spread_of_batch(torch.ones(4, 2, 3, 3))
    assert same.shape == (4, 3, 3, 3)
    assert same[:, 2].max().item() == pytest.approx(1e-4, abs=1e-6)
    pair = spread_of_batch(torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0)]))
    assert torch.allclose(pair[:, 1], torch.tensor(1.5))


def test_the_discriminator_depends_on_the_group_and_not_on_other_groups():
    judge = Discriminator(TINY)
    images = torch.randn(8, 3, 16, 16)
    alone = judge(images[[0, 2, 4, 6]])  # of eight images in groups of four, every other one is a group
    assert torch.allclose(judge(images)[[0, 2, 4, 6]], alone, atol=1e-5)


def test_r1_is_the_squared_slope_of_a_linear_judge():
    slope, images = torch.randn(3, 4, 4), torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = loss.r1_penalty(images, (images * slope).sum((1, 2, 3)), gamma=10.0)
    assert penalty.item() == pytest.approx(5 * slope.square().sum().item(), rel=1e-5)


def test_path_lengths_of_a_linear_map_are_its_norm_on_average():
    """E ‖Jᵀy‖² = ‖J‖² / pixels; over layers the mean is taken."""
    n, matrix = 4000, torch.randn(2, 3, 3, 4, 4)  # layers, w, image
    codes = torch.zeros(n, 2, 3, requires_grad=True)
    lengths = loss.path_lengths(torch.einsum("nlw,lwchv->nchv", codes, matrix), codes)
    assert lengths.square().mean().item() == pytest.approx(matrix.square().sum().item() / 16 / 2, rel=0.05)


def test_the_penalty_on_path_lengths_can_be_descended():
    generator = Generator(TINY)
    codes = generator.mapping(torch.randn(2, 8))
    penalty, mean = loss.path_penalty(loss.path_lengths(generator.synthesis(codes), codes), torch.zeros(()))
    penalty.backward()
    assert mean > 0
    assert generator.synthesis.b8.conv0.weight.grad.abs().sum() > 0


def test_losses_push_logits_apart():
    fake, real = torch.zeros(3, 1, requires_grad=True), torch.zeros(3, 1, requires_grad=True)
    loss.discriminator_loss(fake, real).backward()
    assert (fake.grad > 0).all()  # descending lowers it
    assert (real.grad < 0).all()
    assert loss.generator_loss(torch.tensor([0.0])).item() == pytest.approx(math.log(2))


def test_augmentation_moves_pixels_without_inventing_and_can_be_differentiated_twice():
    images = torch.rand(6, 3, 16, 16, requires_grad=True)
    assert augmented(images, 0.0) is images
    found = augmented(images, 1.0, torch.Generator().manual_seed(1))
    assert not torch.allclose(found, images)
    (gradient,) = torch.autograd.grad(found.square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert images.grad.isfinite().all()


def test_augmentation_of_probability_p_leaves_the_rest_alone():
    images = torch.rand(2000, 3, 4, 4)
    untouched = (augmented(images, 0.2, torch.Generator().manual_seed(1)) - images).abs().amax((1, 2, 3)) < 1e-6
    # Five changes and the cut, which both its axes have to hit. A move of less than half a pixel of four changes nothing: any.
    assert untouched.float().mean().item() == pytest.approx(0.8**3 * (1 - 0.2**2), abs=0.04)


def test_augmentation_grows_while_the_judge_is_too_sure():
    strength = Strength(0.6, images=100)
    strength.update(torch.ones(10, 1))
    assert strength.p == pytest.approx(0.1)
    strength.update(-torch.ones(20, 1))
    assert strength.p == 0
    off = Strength(None)
    off.update(torch.ones(10, 1))
    assert off.p == 0


# --- training -----------------------------------------------------------------------------------------------------------


def a_training(settings=BUSY, seed=0):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    return GanTraining(images, TINY, settings, seed=seed)


def flat(state, name=""):
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {path: value for key, part in items for path, value in flat(part, f"{name}.{key}").items()}
    return {name: state}


def test_every_weight_of_both_networks_learns():
    made = a_training()
    networks = {"generator": made.generator, "discriminator": made.discriminator, "average": made.average}
    before = {name: copy.deepcopy(network.state_dict()) for name, network in networks.items()}
    for _ in range(3):
        made.step()
    for kind, network in networks.items():
        assert not [name for name, weight in network.named_parameters() if torch.equal(weight, before[kind][name])], kind
    assert made.average.mapping.w_avg.any()  # towards which codes are truncated


def test_a_training_goes_on_as_if_it_had_never_been_interrupted():
    whole, second = a_training(), a_training(seed=1)
    for _ in range(3):
        whole.step()
    second.load(copy.deepcopy(whole.state()))
    for _ in range(2):
        assert second.step() == whole.step()
    ours, theirs = flat(second.state()), flat(whole.state())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) if isinstance(theirs[k], torch.Tensor) else ours[k] == theirs[k] for k in theirs)
    assert whole.strength.p > 0
    assert whole.path_mean > 0


@pytest.mark.parametrize(("seen", "reach"), [(0, 0.2), (76, 4.0), (10_000, 10.0)])
def test_the_running_mean_forgets_half_in_as_many_images_as_are_set_and_sooner_at_first(seen, reach):
    """Within a twentieth of the images that were seen, of which each step adds four."""
    made = a_training(replace(BUSY, average_images=10.0))
    made.n_images = seen
    before = made.average.synthesis.b4.const.detach() + 1
    made.average.synthesis.b4.const.copy_(before)
    made.step()
    kept = 0.5 ** (4 / reach)
    expected = kept * before + (1 - kept) * made.generator.synthesis.b4.const.detach()
    assert torch.allclose(made.average.synthesis.b4.const, expected, atol=1e-6)


def test_regularisers_count_for_the_steps_that_they_are_left_out_of(monkeypatch):
    """By penalties whose slope is one."""
    made = a_training(replace(BUSY, r1_interval=3, path_interval=2, path_weight=0.5))
    judge, maker = made.discriminator.b4.fc.bias, made.generator.synthesis.b4.conv1.bias
    monkeypatch.setattr(loss, "discriminator_loss", lambda fake, real: 0 * judge.sum())
    monkeypatch.setattr(loss, "r1_penalty", lambda real, logits, gamma: judge.sum())
    monkeypatch.setattr(loss, "generator_loss", lambda logits: 0 * maker.sum())
    monkeypatch.setattr(loss, "path_lengths", lambda images, codes, random: images.sum())
    monkeypatch.setattr(loss, "path_penalty", lambda lengths, mean: (maker.sum(), mean))
    given = {"judge": [], "maker": []}
    made.of_discriminator.step = lambda: given["judge"].append(float(judge.grad[0]))
    made.of_generator.step = lambda: given["maker"].append(float(maker.grad[0]))
    for _ in range(4):
        made.step()
    assert given["judge"] == [3, 0, 0, 3]
    assert given["maker"] == [0, 1, 0, 0, 1, 0]


def test_adam_is_corrected_for_the_steps_between_regularisers():
    made = a_training(GanSettings(learning_rate=0.01, r1_interval=16, path_interval=8))
    for optimiser, ratio in ((made.of_generator, 8 / 9), (made.of_discriminator, 16 / 17)):
        (group,) = optimiser.param_groups
        assert group["lr"] == pytest.approx(0.01 * ratio)
        assert group["betas"] == pytest.approx((0, 0.99**ratio))
    (group,) = a_training(GanSettings(learning_rate=0.01, path_weight=0)).of_generator.param_groups
    assert (group["lr"], group["betas"]) == (0.01, (0, 0.99))


def test_a_share_of_the_images_has_codes_of_two_z_the_second_from_some_layer_on():
    for share in (0.0, 0.4, 1.0):
        codes = a_training(replace(BUSY, mixing=share))._codes(400)
        changes = (codes[:, 1:] != codes[:, :-1]).any(-1).sum(-1)
        assert changes.max() <= 1
        assert float((changes == 1).float().mean()) == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("mirror", [False, True])
def test_half_of_the_images_that_are_shown_are_mirrored_where_that_is_wished(mirror):
    made, known, mirrored = a_training(replace(BUSY, batch=64, mirror=mirror)), 0, 0
    shown = made._real()
    originals = made.images.float() / 127.5 - 1
    for image in shown:
        known += any(torch.equal(image, other) for other in originals)
        mirrored += any(torch.equal(image.flip(2), other) for other in originals)
    assert known + mirrored == 64
    assert (15 < mirrored < 49) if mirror else mirrored == 0


@pytest.mark.parametrize("noise", [False, True])
def test_images_have_random_numbers_at_every_pixel_unless_they_are_unwished(noise):
    made = a_training(replace(BUSY, noise=noise))
    for name, parameter in made.generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.5)
    codes = made._codes(2).detach()
    made._codes = lambda n: codes
    assert torch.equal(made._fake(2), made._fake(2)) != noise


def test_what_grows_shows_what_it_showed_enlarged_and_has_forgotten_nothing():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    smaller, larger = GanTraining(images, replace(TINY, resolution=8), replace(BUSY, average_images=100.0)), a_training(seed=1)
    for _ in range(3):
        smaller.step()
    take_over(larger, smaller)
    z = latents_of_seeds([1, 2, 3], 8)
    for name in ("generator", "average"):
        before, after = (getattr(each, name)(z) for each in (smaller, larger))
        assert torch.allclose(after, upsampled(before, resampling_filter()), atol=1e-5), name
    assert not torch.allclose(smaller.generator(z), smaller.average(z))
    assert torch.equal(larger.discriminator.b8.conv0.weight, smaller.discriminator.b8.conv0.weight)
    for name in ("n_steps", "n_images", "path_mean"):
        assert getattr(larger, name) == getattr(smaller, name) > 0
    assert larger.strength.p == smaller.strength.p > 0
    assert torch.equal(larger.random.get_state(), smaller.random.get_state())
    larger.step()
