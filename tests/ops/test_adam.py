"""Adam against torch's own, and the law of tables: every row has the Adam of the steps that touched it.

Measured against torch.optim.Adam(fused=True) after 50 steps in float32: 2e-7 of values of order one.
"""

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.adam import adam_, sparse_adam, sparse_adam_
from taichi_nerf.runtime import DeviceArray

OPTIONS = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "epsilon": 1e-15}


def torchs_adam(values, weight_decay=0.0, betas=OPTIONS["betas"]):
    leaf = values.clone().requires_grad_()
    return leaf, torch.optim.Adam([leaf], lr=1e-2, betas=betas, eps=1e-15, weight_decay=weight_decay, fused=True)


def make(values, on_device):
    """A parameter with a gradient, its two moments, and functions that set the gradient and read an array."""
    if on_device:
        arrays = [DeviceArray(values, requires_grad=True), *(DeviceArray(torch.zeros_like(values)) for _ in range(2))]
        return arrays, lambda g: arrays[0].grad.from_numpy(g.cpu().numpy()), DeviceArray.to_torch
    leaf = values.clone().requires_grad_()
    leaf.grad = torch.zeros_like(values)
    return [leaf, torch.zeros_like(values), torch.zeros_like(values)], lambda g: leaf.grad.copy_(g), torch.Tensor.detach


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("shape", [(37,), (40, 2), (3, 5, 4, 2)])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_fifty_dense_steps_are_those_of_torchs_fused_adam(shape, on_device, weight_decay, backend, generator):
    values = torch.randn(shape, generator=generator)
    wanted, optimiser = torchs_adam(values, weight_decay)
    arrays, set_gradient, read = make(values, on_device)
    for step in range(1, 51):
        gradient = torch.randn(shape, generator=generator) * 10.0 ** float(torch.randint(-3, 3, (), generator=generator))
        wanted.grad = gradient.clone()
        optimiser.step()
        set_gradient(gradient)
        adam_(*arrays, step=step, weight_decay=weight_decay, **OPTIONS)
    assert_close(read(arrays[0]), wanted.detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("n_columns", [1, 2, 4])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_each_row_of_a_table_has_torchs_adam_of_the_steps_that_touch_it(n_columns, on_device, weight_decay, backend, generator):
    values = torch.randn(45, n_columns, generator=generator)
    rows = [torchs_adam(row, weight_decay) for row in values]
    arrays, set_gradient, read = make(values, on_device)
    counts = torch.zeros(45, dtype=torch.int32)
    counts = DeviceArray(counts) if on_device else counts
    seldom = torch.rand(45, 1, generator=generator)  # how often a row is touched: never up to always
    for _ in range(50):
        gradient = torch.randn(45, n_columns, generator=generator) * (torch.rand(45, 1, generator=generator) < seldom)
        for (leaf, optimiser), of_row in zip(rows, gradient, strict=True):
            if of_row.any():
                leaf.grad = of_row.clone()
                optimiser.step()
        set_gradient(gradient)
        sparse_adam_(*arrays, counts, weight_decay=weight_decay, **OPTIONS)
    assert_close(read(arrays[0]), torch.stack([leaf.detach() for leaf, _ in rows]), rtol=0, atol=3e-6)
    taken = [int(optimiser.state[leaf]["step"]) if optimiser.state[leaf] else 0 for leaf, optimiser in rows]
    assert read(counts).tolist() == taken


def test_where_every_row_is_touched_the_table_has_the_dense_law(backend, generator):
    values = torch.randn(33, 2, generator=generator)
    (dense, set_dense, _), (table, set_table, _) = make(values, False), make(values, False)
    counts = torch.zeros(33, dtype=torch.int32)
    for step in range(1, 21):
        gradient = torch.randn(33, 2, generator=generator)
        set_dense(gradient)
        set_table(gradient)
        adam_(*dense, step=step, **OPTIONS)
        sparse_adam_(*table, counts, **OPTIONS)
    assert_close(table[0].detach(), dense[0].detach(), rtol=0, atol=1e-6)


def test_the_first_step_of_a_row_is_the_learning_rate_long_whenever_it_comes(backend):
    table = torch.zeros(3, 2, requires_grad=True)
    moments, counts = (torch.zeros(3, 2), torch.zeros(3, 2)), torch.tensor([0, 0, 0], dtype=torch.int32)
    for step in range(200):
        table.grad = torch.zeros(3, 2)
        table.grad[0] = 1.0
        if step == 199:
            table.grad[1] = torch.tensor([-3.0, 1e-4])
        sparse_adam_(table, *moments, counts, **OPTIONS)
    assert_close(table[1].detach(), torch.tensor([0.01, -0.01]), rtol=1e-5, atol=0)
    assert torch.equal(table[2].detach(), torch.zeros(2))
    assert counts.tolist() == [200, 1, 0]


def test_counts_beyond_the_last_correction_take_the_last(backend):
    """Late, when the corrections are 1: m = g = 1 and v = 1 stay, and the step is the learning rate."""
    ones, counts = torch.ones(4, 2), torch.tensor([1, 3000, 2**30, 10**6], dtype=torch.int32)
    new, *_, new_counts = sparse_adam(ones, ones, ones, ones, counts, **OPTIONS)
    assert_close(new[1:], torch.full((3, 2), 0.99), rtol=0, atol=2e-7)
    assert torch.equal(new_counts, counts + 1)


@pytest.mark.parametrize("is_table", [False, True])
@pytest.mark.parametrize("on_device", [False, True])
def test_the_gradient_is_zeros_afterwards(is_table, on_device, backend, generator):
    arrays, set_gradient, _ = make(torch.randn(50, 2, generator=generator), on_device)
    set_gradient(torch.randn(50, 2, generator=generator))
    if is_table:
        sparse_adam_(*arrays, torch.zeros(50, dtype=torch.int32), **OPTIONS)
    else:
        adam_(*arrays, step=1, **OPTIONS)
    gradient = arrays[0].grad_to_torch() if on_device else arrays[0].grad
    assert torch.equal(gradient, torch.zeros(50, 2))


def test_a_gradient_that_is_not_a_number_is_not_passed_over(backend):
    """Whoever trains has to notice."""
    table = torch.zeros(2, 2, requires_grad=True)
    table.grad = torch.tensor([[float("nan"), 0.0], [0.0, 0.0]])
    sparse_adam_(table, torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, dtype=torch.int32), **OPTIONS)
    assert table[0, 0].isnan()
    assert torch.equal(table[1].detach(), torch.zeros(2))


def test_betas_of_zero_are_the_sign_of_the_gradient(backend):
    table = torch.zeros(2, 2, requires_grad=True)
    table.grad = torch.tensor([[3.0, -2.0], [0.0, 0.5]])
    counts = torch.zeros(2, dtype=torch.int32)
    sparse_adam_(table, torch.zeros(2, 2), torch.zeros(2, 2), counts, learning_rate=0.5, betas=(0.0, 0.0), epsilon=0.25)
    assert_close(table.detach(), -0.5 * torch.tensor([[3.0 / 3.25, -2.0 / 2.25], [0.0, 0.5 / 0.75]]))


def test_refuses_what_would_go_unnoticed(cpu):
    table, moment, counts = torch.zeros(4, 2, requires_grad=True), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"values\.grad has to hold a gradient, got None"):
        adam_(table, moment, moment, step=1, learning_rate=0.1)
    table.grad = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="step counts from 1, got 0"):
        adam_(table, moment, moment, step=0, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"betas have to lie in \[0, 1\)"):
        sparse_adam_(table, moment, moment, counts, learning_rate=0.1, betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="mean has to be contiguous"):
        adam_(table, torch.zeros(2, 4).T, moment, step=1, learning_rate=0.1)
    with pytest.raises(ValueError, match="values has to have 1, 2, 4, 8 columns, got 3"):
        sparse_adam(*[torch.zeros(4, 3)] * 4, counts, learning_rate=0.1)
    with pytest.raises(ValueError, match="requires_grad=True"):
        adam_(DeviceArray(moment), moment, moment, step=1, learning_rate=0.1)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_between_forward_and_backward_is_an_error_as_with_other_changes_in_place(sparse, cpu):
    leaf = torch.ones(4, 2, requires_grad=True)
    squared = leaf.square().sum()
    leaf.grad, moments = torch.ones(4, 2), [torch.zeros(4, 2), torch.zeros(4, 2)]
    if sparse:
        sparse_adam_(leaf, *moments, torch.zeros(4, dtype=torch.int32), learning_rate=0.1)
    else:
        adam_(leaf, *moments, step=1, learning_rate=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.backward()
