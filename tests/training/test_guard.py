"""The guard: what is not a number is skipped, what goes bad returns, what goes well is left alone."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from taichi_nerf.training import guard as module
from taichi_nerf.training.guard import Guard


def training(rate=0.01):
    """A line through points, which Adam finds."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    return model, torch.optim.Adam(model.parameters(), lr=rate)


def steps(guard, model, optimiser, n, push=None):
    """n steps; those after `push` walk uphill. The steps at which the guard returned."""
    x = torch.tensor([[1.0, 2], [3, -1], [0.5, 0]])
    y = x @ torch.tensor([[2.0], [-1]]) + 0.3
    returns = []
    for at in range(n):
        optimiser.zero_grad()
        loss = (model(x) - y).square().mean() + 0.01
        (loss if push is None or at < push else -100 * loss).backward()
        if guard.accepts(loss.item(), model):
            optimiser.step()
        if guard.watch(loss.item(), model, optimiser):
            returns.append(at)
    return returns


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_or_loss_that_is_not_finite_is_skipped_and_counted(bad):
    guard, (model, _) = Guard(), training()
    model.weight.grad, model.bias.grad = torch.zeros(1, 2), torch.zeros(1)
    assert guard.accepts(0.5, model)
    assert not guard.accepts(bad, model)
    model.weight.grad[0, 1] = bad
    assert not guard.accepts(0.5, model)
    assert guard.n_skipped == 2


def test_parameters_without_gradients_do_not_matter():
    guard, (model, _) = Guard(), training()
    model.extra = nn.Parameter(torch.zeros(0, 3))
    model.extra.grad = torch.zeros(0, 3)
    assert guard.accepts(1.0, model)


def test_a_good_training_never_returns():
    guard = Guard()
    assert steps(guard, *training(), 1500) == []
    assert (guard.n_returns, guard.n_skipped) == (0, 0)


def test_noise_of_three_decibels_is_no_reason_to_return():
    guard, (model, optimiser) = Guard(), training()
    noise = torch.rand(3000, generator=torch.Generator().manual_seed(0))
    assert not any(guard.watch(0.01 * 2 ** (2 * float(x) - 1), model, optimiser) for x in noise)


def test_a_training_that_blows_up_returns_to_the_state_it_remembers():
    guard, (model, optimiser) = Guard(), training()
    steps(guard, model, optimiser, 2 * module.EVERY)  # the last of which is remembered
    good, moments = deepcopy(model.state_dict()), deepcopy(optimiser.state_dict()["state"])
    returns = []
    for _ in range(500):
        returns += steps(guard, model, optimiser, 1, push=0)
        if returns:
            break
    assert guard.n_returns == 1
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())
    now = optimiser.state_dict()["state"]
    assert all(torch.equal(now[p][key], moments[p][key]) for p in moments for key in moments[p])


def test_it_returns_a_second_time_to_the_same_state():
    """An optimiser that is given a state goes on in the very tensors: the memory has to be a copy."""
    guard, (model, optimiser) = Guard(), training()
    steps(guard, model, optimiser, 2 * module.EVERY)
    states = []
    while len(states) < 2:
        if steps(guard, model, optimiser, 1, push=0):
            states.append((deepcopy(model.state_dict()), deepcopy(optimiser.state_dict()["state"])))
    (model_a, moments_a), (model_b, moments_b) = states
    assert all(torch.equal(model_a[name], model_b[name]) for name in model_a)
    assert all(torch.equal(moments_a[p][key], moments_b[p][key]) for p in moments_a for key in moments_a[p])


def test_losses_that_stay_not_finite_lead_back_too():
    guard, (model, optimiser) = Guard(), training()
    steps(guard, model, optimiser, 2 * module.EVERY)
    with torch.no_grad():
        model.weight.fill_(math.nan)
    returns = steps(guard, model, optimiser, module.PATIENCE)
    assert returns == [module.PATIENCE - 1]
    assert model.weight.isfinite().all()
    assert guard.n_skipped == module.PATIENCE


def test_the_first_losses_are_no_measure():
    """A loss that begins low by chance and rises before anything is remembered changes nothing."""
    guard, (model, optimiser) = Guard(), training()
    assert not any(guard.watch(loss, model, optimiser) for loss in [1e-4] * 20 + [1.0] * 400)


def test_its_counts_survive_a_checkpoint():
    guard, (model, optimiser) = Guard(), training()
    steps(guard, model, optimiser, 250)
    guard.n_skipped = 3
    other = Guard()
    other.load_state_dict(guard.state_dict(), model, optimiser)
    assert other.state_dict() == guard.state_dict()
    assert all(isinstance(value, int | float) for value in guard.state_dict().values())


def resumed(guard, model, optimiser):
    """The same training in another process."""
    other_model, other_optimiser = training()
    other_model.load_state_dict(model.state_dict())
    other_optimiser.load_state_dict(deepcopy(optimiser.state_dict()))
    other = Guard()
    other.load_state_dict(guard.state_dict(), other_model, other_optimiser)
    return other, other_model, other_optimiser


def test_a_training_that_goes_bad_right_after_it_was_resumed_returns_to_where_that_was():
    guard, (model, optimiser) = Guard(), training()
    steps(guard, model, optimiser, module.EVERY + 1)
    guard, model, optimiser = resumed(guard, model, optimiser)
    good = deepcopy(model.state_dict())
    with torch.no_grad():
        model.weight.fill_(math.nan)
    assert steps(guard, model, optimiser, module.PATIENCE) == [module.PATIENCE - 1]
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("n", [module.SETTLED - 1, module.SETTLED + 1])
def test_what_was_saved_while_it_was_bad_or_young_is_no_place_to_return_to(n):
    guard, (model, optimiser) = Guard(), training()
    steps(guard, model, optimiser, n)
    if n > module.SETTLED:
        guard.smoothed = 2 * guard.lowest
    guard, model, optimiser = resumed(guard, model, optimiser)
    with torch.no_grad():
        model.weight.fill_(math.nan)
    assert steps(guard, model, optimiser, module.PATIENCE) == []
    assert not model.weight.isfinite().any()
