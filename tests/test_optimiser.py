"""`optimiser.Adam` is torch's, step for step, and leaves the compiler alone."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch

from taichi_nerf.optimiser import Adam


def optimiser_of(kind, state=None, fused=True):
    """Two groups, one of which joins later; from a state, if there is one."""
    generator = torch.Generator().manual_seed(3)
    matrix, shift = (torch.nn.Parameter(torch.randn(n, generator=generator)) for n in (12, 4))
    optimiser = kind([{"params": [matrix]}], lr=0.1, betas=(0.9, 0.99), eps=1e-15, fused=fused)
    optimiser.add_param_group({"params": [shift], "lr": 0.03, "weight_decay": 0.1})
    if state is not None:
        for parameter, known in zip((matrix, shift), state[0], strict=True):
            parameter.data.copy_(known)
        optimiser.load_state_dict(deepcopy(state[1]))
    return optimiser


def trained(optimiser, steps):
    """The parameters afterwards. The gradient depends on the step, so that each has its own."""
    matrix, shift = (group["params"][0] for group in optimiser.param_groups)
    for k in steps:
        optimiser.zero_grad()
        assert matrix.grad is None
        (matrix.view(3, 4) @ shift - k).square().sum().backward()
        optimiser.step()
    return [matrix.detach().clone(), shift.detach().clone()]


def are_equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_torchs_to_the_bit(fused):
    ours, theirs = (trained(optimiser_of(kind, fused=fused), range(20)) for kind in (Adam, torch.optim.Adam))
    assert are_equal(ours, theirs)


@pytest.mark.parametrize(("first", "then"), [(Adam, torch.optim.Adam), (torch.optim.Adam, Adam)])
def test_either_goes_on_from_the_others_state(first, then):
    begun = optimiser_of(first)
    state = trained(begun, range(8)), begun.state_dict()
    whole = trained(optimiser_of(torch.optim.Adam), range(20))
    assert are_equal(trained(optimiser_of(then, state), range(8, 20)), whole)
    assert not are_equal(state[0], whole)


def test_hooks_are_called():
    optimiser, calls = optimiser_of(Adam), []
    optimiser.register_step_pre_hook(lambda *_: calls.append("before"))
    optimiser.register_step_post_hook(lambda *_: calls.append("after"))
    trained(optimiser, range(2))
    assert calls == ["before", "after"] * 2


def test_no_step_imports_the_compiler():
    code = """
import sys, torch
from taichi_nerf.optimiser import Adam
value = torch.nn.Parameter(torch.ones(3))
optimiser = Adam([value], fused=True)
optimiser.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
value.square().sum().backward()
optimiser.step()
optimiser.zero_grad()
optimiser.load_state_dict(optimiser.state_dict())
assert value[0] != 1
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
