"""The fused network against torch's layers in double, its own laws, and storage in 16 bits and on the device.

Measured against the reference in float32: forward 4e-7, gradients 2e-6 on cpu and lavapipe.
"""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.fused_mlp import Workspace, fused_mlp, fused_mlp_, fused_mlp_backward_, initialise_weights, n_weights
from taichi_nerf.runtime import DeviceArray

WIDTHS = [(16, 16, 16), (32, 64, 16), (32, 64, 64, 3), (5, 32, 32, 32, 1), (64, 64, 64, 64, 64), (1, 17, 9)]


def matrices(weights, widths):
    parts = weights.split([a * b for a, b in pairwise(widths)])
    return [part.view(b, a) for part, (a, b) in zip(parts, pairwise(widths), strict=True)]


def torch_layers(widths, weights):
    """The same network of torch's own modules, in double."""
    layers = []
    for matrix in matrices(weights.double(), widths):
        linear = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64, device=weights.device)
        linear.weight.data.copy_(matrix)
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def network(widths, n, generator):
    return torch.randn(n, widths[0], generator=generator), initialise_weights(widths, generator)


@pytest.mark.parametrize("widths", WIDTHS)
def test_equals_torchs_linear_layers_in_double(widths, backend, generator):
    """Compared by sums over many rows, which a ReLU that rounds to the other side near zero leaves alone."""
    rows, weights = network(widths, 600, generator)
    leaves = [rows.requires_grad_(), weights.requires_grad_()]
    out = fused_mlp(*leaves, widths=widths)
    layers, exact_rows = torch_layers(widths, weights.detach()), rows.detach().double().requires_grad_()
    wanted = layers(exact_rows)
    assert_close(out.double(), wanted, atol=3e-6, rtol=0)
    cotangents = torch.randn(wanted.shape, generator=generator)
    of_rows, of_weights = torch.autograd.grad(out, leaves, cotangents)
    exact = torch.autograd.grad(wanted, [exact_rows, *layers.parameters()], cotangents.double())
    exact_weights = torch.cat([gradient.flatten() for gradient in exact[1:]])
    assert (of_weights - exact_weights).abs().max() < 1e-3 * exact_weights.abs().max()
    differ = (of_rows - exact[0]).abs().amax(1) > 1e-4
    assert differ.sum() <= 2


def test_rows_have_nothing_to_do_with_each_other(backend, generator):
    """Beyond a tile, a thread's rows and what runs at a time: the same rows give the same bits anywhere."""
    widths = (7, 32, 4)
    rows, weights = network(widths, 300, generator)
    alone = fused_mlp(rows, weights, widths=widths)
    many = fused_mlp(rows.repeat(120, 1), weights, widths=widths)
    assert torch.equal(many, alone.repeat(120, 1))


def test_gradient_of_the_weights_is_the_sum_over_rows(backend, generator):
    """More rows than run at a time on a GPU."""
    widths = (7, 16, 4)
    rows, weights = network(widths, 300, generator)
    weights.requires_grad_()
    (once,) = torch.autograd.grad(fused_mlp(rows, weights, widths=widths).sum(), weights)
    (often,) = torch.autograd.grad(fused_mlp(rows.repeat(120, 1), weights, widths=widths).sum(), weights)
    assert_close(often / 120, once, rtol=1e-4, atol=1e-5 * float(once.abs().max()))


def test_without_bias_and_output_activation_it_is_homogeneous(backend, generator):
    rows, weights = network((9, 64, 64, 5), 100, generator)
    out = fused_mlp(rows, weights, widths=(9, 64, 64, 5))
    assert torch.equal(fused_mlp(4 * rows, weights, widths=(9, 64, 64, 5)), 4 * out)
    assert_close(fused_mlp(-0.0 * rows, weights, widths=(9, 64, 64, 5)), 0 * out)


def test_exp_is_cut_off_and_its_gradient_goes_on_as_at_the_border(backend):
    weights = torch.ones(1 + 1 + 1, requires_grad=True)
    rows = torch.tensor([[0.5], [12.0], [50.0]], requires_grad=True)
    out = fused_mlp(rows, weights, widths=(1, 1, 1, 1), output="exp")
    border = torch.tensor(12.0).exp()
    assert_close(out[:, 0], torch.stack([torch.tensor(0.5).exp(), border, border]), rtol=1e-5, atol=0)
    out.sum().backward()
    assert_close(rows.grad, out.detach(), rtol=1e-5, atol=0)


def test_a_row_that_is_not_a_number_stays_one_and_spoils_no_other(backend, generator):
    rows, weights = network((8, 16, 2), 70, generator)
    rows[3] = float("nan")
    out = fused_mlp(rows, weights, widths=(8, 16, 2))
    assert out[3].isnan().all()
    assert out[torch.arange(70) != 3].isfinite().all()


@pytest.mark.parametrize("output", ["none", "sigmoid", "exp"])
def test_float16_stores_what_float32_computes(output, backend, generator):
    """Rows that float16 holds exactly: only the outputs, and the cotangents that leave, are rounded, to 2^-11."""
    widths = (12, 32, 32, 6)
    rows, weights = network(widths, 200, generator)
    rows = rows.half()
    answers = []
    for storage, given in (("float32", rows.float()), ("float16", rows)):
        leaves = [given.clone().requires_grad_(), weights.clone().requires_grad_()]
        out = fused_mlp(*leaves, widths=widths, output=output, storage=storage)
        answers.append((out, *torch.autograd.grad(out, leaves, torch.ones_like(out))))
    assert answers[1][0].dtype == answers[1][1].dtype == torch.float16
    assert answers[1][2].dtype == torch.float32
    for full, stored in zip(*answers, strict=True):
        assert (stored.float() - full).abs().max() < 4e-3 * full.abs().max()


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_the_two_passes_on_device_arrays_are_the_autograd_function(storage, backend, generator):
    widths, n = (10, 32, 16), 130
    rows, weights = network(widths, n, generator)
    rows = rows.half() if storage == "float16" else rows
    leaves = [rows.clone().requires_grad_(), weights.clone().requires_grad_()]
    wanted = fused_mlp(*leaves, widths=widths, storage=storage)
    cotangents = torch.randn(n, 16, generator=generator).to(wanted.dtype)
    of_rows, of_weights = torch.autograd.grad(wanted, leaves, cotangents)
    held = [DeviceArray(torch.cat([values, values[:20]]), requires_grad=True) for values in (rows, wanted.detach())]
    parameters = DeviceArray(weights, requires_grad=True)
    options = {"widths": widths, "storage": storage, "n_rows": n, "workspace": Workspace(widths, n)}
    fused_mlp_(held[0], parameters, held[1], **options)
    assert torch.equal(held[1].to_torch()[:n], wanted)
    held[1].grad.from_numpy(torch.cat([cotangents, cotangents[:20]]).cpu().numpy())
    for _ in range(2):
        fused_mlp_backward_(held[0], parameters, held[1], **options)
    assert torch.equal(held[0].grad_to_torch()[:n], of_rows)
    assert not held[0].grad_to_torch()[n:].any()
    assert_close(parameters.grad_to_torch(), 2 * of_weights, rtol=1e-5, atol=1e-5)


def test_weights_on_the_device_take_part_in_autograd(backend, generator):
    rows, weights = network((6, 16, 3), 40, generator)
    rows.requires_grad_()
    array, leaf = DeviceArray(weights, requires_grad=True), weights.clone().requires_grad_()
    ours, wanted = fused_mlp(rows, array, widths=(6, 16, 3)), fused_mlp(rows, leaf, widths=(6, 16, 3))
    assert torch.equal(ours, wanted)
    of_rows, of_weights = torch.autograd.grad(wanted.square().sum(), (rows, leaf))
    ours.square().sum().backward()
    assert torch.equal(rows.grad, of_rows)
    assert_close(array.grad_to_torch(), of_weights)


def test_what_needs_no_gradient_gets_none(backend, generator):
    rows, weights = network((6, 16, 3), 40, generator)
    weights.requires_grad_()
    out = fused_mlp(rows, weights, widths=(6, 16, 3))
    before = rows.clone()
    out.sum().backward()
    assert rows.grad is None
    assert torch.equal(rows, before)
    assert weights.grad.abs().sum() > 0


def test_the_number_of_weights_of_instant_ngps_networks_is_the_published_one():
    """10,240 in tiny-cuda-nn, where the color network's 3 outputs are padded to 16."""
    assert n_weights((32, 64, 16)) + n_weights((32, 64, 64, 16)) == 3072 + 7168


@pytest.mark.parametrize("widths", [(32, 64), (32, 65, 3), (8, 8, 8, 8, 8, 8), (8, 0, 8)])
def test_refuses_networks_that_do_not_fit(widths, cpu):
    with pytest.raises(ValueError, match="widths has to hold 3 to 5 sizes from 1 to 64"):
        fused_mlp(torch.zeros(1, widths[0]), torch.zeros(8), widths=widths)


def test_refuses_unknown_choices_and_names_the_known(cpu):
    arguments = {"rows": torch.zeros(1, 2), "weights": torch.zeros(8), "widths": (2, 2, 2)}
    with pytest.raises(ValueError, match="output has to be one of none, sigmoid, exp, got 'tanh'"):
        fused_mlp(**arguments, output="tanh")
    with pytest.raises(ValueError, match="storage has to be float32 or float16"):
        fused_mlp(**arguments, storage="float8")
    with pytest.raises(TypeError, match=r"rows has to be torch\.float16"):
        fused_mlp(**arguments, storage="float16")


def test_rows_of_several_launches_are_all_there(backend, generator):
    """Where a backend copies, a launch brings back the whole of an output, also what another launch wrote."""
    widths, n = (3, 8, 2), 2**15 + 100
    rows, weights = network(widths, n, generator)
    rows, weights = rows.requires_grad_(), weights.requires_grad_()
    out = fused_mlp(rows, weights, widths=widths)
    expected = torch_layers(widths, weights.detach())(rows.detach().double())
    assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    out.sum().backward()
    first, second = matrices(weights.detach(), widths)
    slope = ((rows.detach() @ first.T > 0) * second.sum(0)) @ first
    assert (rows.grad - slope).abs().gt(1e-4).any(-1).float().mean() < 1e-3  # a ReLU may round to the other side
