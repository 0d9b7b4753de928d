"""Frequency encoding against explicit loops and 64-bit sines.

Measured in float32 on cpu and lavapipe: 1.2e-7 from the exact sine up to angles of 1e6, gradients 2e-7 from the reference.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.ops.frequency_encoding import barf_window, frequency_encoding


def written_out(row, n_frequencies, order, identity=True, base=1.0):
    """The encoding of one point as the papers' sums, one number after another."""
    columns = list(row) if identity else []
    if order == "per_frequency":
        for k in range(n_frequencies):
            columns += [math.sin(2**k * base * value) for value in row]
            columns += [math.cos(2**k * base * value) for value in row]
    else:
        for wave in (math.sin, math.cos):
            for k in range(n_frequencies):
                columns += [wave(2**k * base * value) for value in row]
    return columns


@pytest.mark.parametrize("order", ["per_frequency", "per_function"])
@pytest.mark.parametrize(("identity", "base", "n_dimensions"), [(True, 1.0, 3), (False, math.pi, 3), (True, 1.5, 2)])
def test_layout_is_the_written_out_one(order, identity, base, n_dimensions, backend, generator):
    x = 2 * torch.rand(5, n_dimensions, generator=generator) - 1
    encoded = frequency_encoding(x, n_frequencies=6, order=order, include_identity=identity, base_frequency=base)
    expected = [written_out(row, 6, order, identity, base) for row in x.tolist()]
    assert_close(encoded, torch.tensor(expected), atol=1.2e-5, rtol=0)  # base · x rounds by 2^-24, then times 2^5


def test_widths_are_those_of_the_papers(backend):
    x = torch.zeros(1, 3)
    assert frequency_encoding(x, n_frequencies=10).shape == (1, 63)  # NeRF, positions
    assert frequency_encoding(x, n_frequencies=4).shape == (1, 27)  # NeRF, directions
    assert frequency_encoding(x, n_frequencies=6, base_frequency=1.5).shape == (1, 39)  # pixelNeRF
    assert frequency_encoding(x, n_frequencies=16, include_identity=False).shape == (1, 96)


def test_the_highest_octave_is_as_accurate_as_the_lowest(backend, generator):
    """A shader compiler that reorders sums, or a sine of Vulkan's guaranteed 2^-11, fails here by 1e-4 and more."""
    x = 8 * math.pi * torch.rand(20000, 3, generator=generator) - 4 * math.pi
    encoded = frequency_encoding(x, n_frequencies=16, include_identity=False).double().view(-1, 16, 2, 3)
    for k in range(16):  # angles up to 4e5
        exact = torch.stack([torch.sin(2**k * x.double()), torch.cos(2**k * x.double())], dim=1)
        assert_close(encoded[:, k], exact, atol=2e-7, rtol=0)


def test_sines_of_any_size_stay_sines(backend):
    x = torch.tensor([[0.0, 1e-30, -1e-10], [1e7, -1e10, 3e38]])
    encoded = frequency_encoding(x, n_frequencies=3, include_identity=False)
    assert (encoded.abs() <= 1).all()
    assert_close(encoded[0].view(3, 2, 3)[:, 1], torch.ones(3, 3), atol=0, rtol=0)
    assert frequency_encoding(torch.tensor([[math.nan, math.inf]]), n_frequencies=3).isnan()[:, 2:].all()


def test_sine_squared_and_cosine_squared_sum_to_the_window_squared(backend, generator):
    window = torch.tensor([1.0, 0.5, 0.25, 0.0])
    x = torch.randn(100, 3, generator=generator)
    waves = frequency_encoding(x, n_frequencies=4, window=window, include_identity=False).view(-1, 4, 2, 3)
    assert_close((waves**2).sum(2), (window**2).view(1, 4, 1).expand(100, 4, 3), atol=5e-7, rtol=0)


@pytest.mark.parametrize("order", ["per_frequency", "per_function"])
def test_a_window_weighs_every_wave_of_its_frequency_and_not_the_identity(order, backend, generator):
    x = torch.randn(7, 3, generator=generator)
    window = torch.tensor([1.0, 0.3, 0.0])
    plain = frequency_encoding(x, n_frequencies=3, order=order)
    windowed = frequency_encoding(x, n_frequencies=3, order=order, window=window)
    of_waves = window.repeat_interleave(6) if order == "per_frequency" else window.repeat_interleave(3).repeat(2)
    assert torch.equal(windowed, plain * torch.cat([torch.ones(3), of_waves]))


def test_a_hidden_frequency_sends_no_gradient(backend):
    x = torch.tensor([[0.3, -0.7, 0.1]], requires_grad=True)
    window = torch.tensor([1.0, 0.0])
    encoded = frequency_encoding(x, n_frequencies=2, window=window)
    (of_hidden,) = torch.autograd.grad(encoded[:, 9:].sum(), x, retain_graph=True)
    (of_shown,) = torch.autograd.grad(encoded[:, 3:6].sum(), x)
    assert_close(of_hidden, torch.zeros(1, 3), atol=0, rtol=0)
    assert_close(of_shown, torch.cos(x.detach()), atol=1e-6, rtol=0)


def test_the_adjoint_knows_frequency_and_base(backend):
    """d sin(2^k b x) / dx at x = 0 is 2^k b; the cosines' slopes vanish."""
    x = torch.zeros(1, 1, requires_grad=True)
    frequency_encoding(x, n_frequencies=5, base_frequency=math.pi).sum().backward()
    assert_close(x.grad, torch.tensor([[1 + 31 * math.pi]]))


def test_barf_window_opens_one_octave_after_another(cpu):
    assert torch.equal(barf_window(0.0, 4), torch.zeros(4))
    assert torch.equal(barf_window(4.0, 4), torch.ones(4))
    assert torch.equal(barf_window(9.0, 4), torch.ones(4))
    assert_close(barf_window(1.5, 4), torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=1e-7, rtol=0)
    assert_close(barf_window(0.25, 2), torch.tensor([(1 - math.sqrt(0.5)) / 2, 0.0]), atol=1e-7, rtol=0)


def test_refuses_orders_and_counts_it_does_not_know(cpu):
    with pytest.raises(ValueError, match="order has to be one of per_frequency, per_function, got 'sorted'"):
        frequency_encoding(torch.zeros(1, 3), n_frequencies=2, order="sorted")
    for n_frequencies in (0, 31):
        with pytest.raises(ValueError, match="n_frequencies has to be 1 to 30"):
            frequency_encoding(torch.zeros(1, 3), n_frequencies=n_frequencies)
    with pytest.raises(ValueError, match=r"window has to have shape \[4\], got \[3\]"):
        frequency_encoding(torch.zeros(1, 3), n_frequencies=4, window=torch.ones(3))
