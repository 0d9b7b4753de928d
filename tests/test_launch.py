"""Launching kernels without Taichi's bookkeeping: the same calls, remembered by types and template values."""

import functools

import pytest
import taichi as ti
import torch

from taichi_nerf import launch as launches
from taichi_nerf.launch import launch
from taichi_nerf.runtime import DeviceArray, start


@ti.kernel
def add(x: ti.types.ndarray(), n: ti.i32, scale: ti.f32, doubled: ti.template(), out: ti.types.ndarray()):
    for i in range(n):
        out[i] = x[i] * scale
        if ti.static(doubled):
            out[i] = out[i] * 2


@pytest.mark.parametrize("doubled", [False, True])
def test_every_call_is_the_kernels_own(backend, doubled):
    for n in (4, 3, 4):  # the first compiles, the others are ours; numbers and lengths are those of the call
        x, out = torch.arange(4.0), torch.zeros(4)
        launch(add, x, n, 0.5 * n, doubled, out)
        assert torch.equal(out[:n], x[:n] * 0.5 * n * (2 if doubled else 1))  # a copying backend does not bring the rest


def test_types_have_forms_of_their_own(cpu):
    for dtype in (torch.float32, torch.float64, torch.int32):
        for _ in range(2):
            out = torch.zeros(2, dtype=dtype)
            launch(add, torch.tensor([1, 2], dtype=dtype), 2, 3.0, False, out)
            assert out.tolist() == [3, 6]


def test_arrays_on_the_device_are_taken_too(backend):
    x, out = DeviceArray(torch.arange(3.0)), DeviceArray(torch.zeros(3))
    for scale in (2.0, 3.0):
        launch(add, x.data, 3, scale, False, out.data)
        assert out.to_torch().tolist() == [0, scale, 2 * scale]


def test_a_function_around_a_kernel_is_called_as_it_is(cpu):
    calls = []

    @functools.wraps(add)  # which copies the kernel's own attributes
    def counted(*arguments):
        calls.append(len(arguments))
        add(*arguments)

    for _ in range(2):
        launch(counted, torch.ones(1), 1, 1.0, False, torch.zeros(1))
    assert calls == [5, 5]


def test_a_number_that_is_no_template_makes_no_form_of_its_own(cpu):
    launch(add, torch.ones(9), 1, 1.0, False, torch.zeros(9))
    n_forms = len(launches._forms)
    for n in range(1, 9):
        launch(add, torch.ones(9), n, float(n), False, torch.zeros(9))
    assert len(launches._forms) == n_forms


def test_forms_die_with_their_backend(cpu):
    out = torch.zeros(1)
    launch(add, torch.ones(1), 1, 1.0, False, out)
    start("cpu", n_threads=cpu.n_threads + 1)
    try:
        launch(add, torch.ones(1), 1, 5.0, False, out)
        launch(add, torch.ones(1), 1, 7.0, False, out)
        assert out.item() == 7
    finally:
        start("cpu")
