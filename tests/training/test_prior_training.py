"""How a prior learns: every weight, by its schedule, at the times that are set, into a running mean, and on from where it was."""

import copy
import math

import pytest
import torch

from taichi_nerf.priors.denoiser import DenoiserSettings
from taichi_nerf.priors.prior import PriorSettings, load_prior
from taichi_nerf.training.train_prior import PriorTrainer, PriorTraining, train_prior

SETTINGS = PriorSettings(DenoiserSettings(8, (1, 2)), size=8, focal=30.0)


class Patches:
    """Of random colors."""

    def draw(self, n, generator):
        return 2 * torch.rand(n, 4, 8, 8, generator=generator) - 1


def trainer(**training):
    return PriorTrainer(
        SETTINGS, PriorTraining(**{"steps": 200, "batch": 4, **training}), Patches(), Patches(), torch.device("cpu")
    )


def test_every_weight_learns():
    made = trainer(learning_rate=1e-2)
    before = copy.deepcopy(made.denoiser.state_dict())
    for _ in range(3):
        made.step()
    for denoiser in (made.denoiser, made.averaged):
        assert not [name for name, weight in denoiser.named_parameters() if torch.equal(weight, before[name])]


def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit():
    whole, second = trainer(), trainer()
    for _ in range(3):
        whole.step()
    second.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert [second.step() for _ in range(3)] == [whole.step() for _ in range(3)]
    for name in ("denoiser", "averaged"):
        ours, theirs = (made.state_dict()[name] for made in (second, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert second.n_steps == 6


@pytest.mark.parametrize(("n_steps", "share"), [(0, 0.01), (50, 0.51), (100, 1.0), (150, 1.0)])
def test_the_rate_rises_over_the_first_hundred_steps_and_falls_by_half_a_cosine_to_a_fiftieth(n_steps, share):
    made = trainer(learning_rate=1e-3)
    made.n_steps = n_steps
    made.step()
    fallen = 0.02 + 0.98 * (1 + math.cos(math.pi * n_steps / 200)) / 2
    assert made.optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 * share * fallen)


def test_a_share_of_the_times_is_drawn_where_scores_are_asked():
    """Of 1000 times, of which a tenth is late: half of the draws beside those that fall there anyway."""
    t = trainer(late_share=0.5, late_until=0.1)._times(20_000)
    assert float((t < 100).float().mean()) == pytest.approx(0.5 + 0.5 * 0.1, abs=0.02)
    assert (int(t.min()), int(t.max())) == (0, 999)
    assert float((trainer()._times(20_000) < 100).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_the_mean_of_the_weights_remembers_more_and_more_of_them_up_to_what_is_set():
    made = trainer(average=0.15, learning_rate=1e-2)
    expected = made.averaged.init_conv.weight.detach().clone()
    for n in range(1, 5):
        made.step()
        kept = min(0.15, n / (10 + n))
        expected = kept * expected + (1 - kept) * made.denoiser.init_conv.weight.detach()
    torch.testing.assert_close(made.averaged.init_conv.weight.detach(), expected)


def test_what_is_saved_is_the_mean(tmp_path):
    made, asked = trainer(learning_rate=1e-2), iter(range(9))
    assert train_prior(made, tmp_path, {}, stop=lambda: next(asked) >= 3)
    saved = load_prior(tmp_path).denoiser.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in made.averaged.state_dict().items())
    assert not torch.equal(saved["init_conv.weight"], made.denoiser.init_conv.weight)
    assert load_prior(tmp_path).made["steps"] == 4
