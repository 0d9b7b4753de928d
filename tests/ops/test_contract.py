"""What holds for every op: equal to its reference, forward and backward, on every backend, for every kind of input."""

import inspect

import pytest
import torch

from taichi_nerf.hotswap import outputs_of, random_cotangents

from contract import (
    FAMILIES,
    FORWARD_TOLERANCE,
    GRADIENT_TOLERANCE,
    assert_same_gradients,
    assert_same_outputs,
    examples_of,
    flat,
    op_of,
    pair,
    reference_of,
    strided,
)

families = pytest.mark.parametrize("family", FAMILIES)
sizes = pytest.mark.parametrize("n", [0, 1, 500])


@families
def test_has_the_signatures_of_its_reference(family):
    names = {example.function for example in reference_of(family).examples(4, torch.Generator().manual_seed(0))}
    for name in names:
        op, reference = getattr(op_of(family), name), getattr(reference_of(family), name)
        assert list(inspect.signature(op).parameters.items()) == list(inspect.signature(reference).parameters.items())
        assert op.__doc__, f"ops.{family}.{name} has no docstring"


@families
@sizes
def test_computes_what_the_reference_computes(family, n, backend):
    for example in examples_of(family, n):
        op, reference = pair(family, example)
        assert_same_outputs(op(**example.arguments), reference(**example.arguments), FORWARD_TOLERANCE)


@families
@sizes
def test_has_the_gradients_of_the_reference(family, n, backend):
    for example in examples_of(family, n):
        if example.differentiable:
            assert_same_gradients(family, example, GRADIENT_TOLERANCE)


@families
def test_passes_gradcheck_in_64_bits(family, cpu):
    for example in examples_of(family, 6, torch.float64):
        if not example.differentiable:
            continue
        op, _ = pair(family, example)
        names = example.differentiable
        leaves = [example.arguments[name].clone().requires_grad_() for name in names]

        def call(*values, op=op, names=names, example=example):
            return tuple(outputs_of(op, {**example.arguments, **dict(zip(names, values, strict=True))}))

        assert torch.autograd.gradcheck(call, leaves, eps=1e-6, atol=1e-5, rtol=1e-4, nondet_tol=1e-10)


@families
def test_takes_inputs_that_are_not_contiguous(family, backend):
    for example in examples_of(family, 50):
        op, _ = pair(family, example)
        gapped = {k: strided(v) if isinstance(v, torch.Tensor) else v for k, v in example.arguments.items()}
        for ours, wanted in zip(flat(op(**gapped)), flat(op(**example.arguments)), strict=True):
            assert torch.equal(ours, wanted)


@families
def test_gradient_of_a_leaf_is_added_exactly_once(family, backend):
    """Taichi's own bridge doubles it: it writes `.grad` and returns the gradient as well."""
    for example in examples_of(family, 50):
        if not example.differentiable:
            continue
        op, _ = pair(family, example)
        cotangents = random_cotangents(op, example.arguments, example.differentiable)
        leaves = {name: example.arguments[name].clone().requires_grad_() for name in example.differentiable}
        arguments = {**example.arguments, **leaves}
        before = {k: v.clone() for k, v in arguments.items() if isinstance(v, torch.Tensor)}

        def backward(op=op, arguments=arguments, cotangents=cotangents):
            kept = [c.clone() for c in cotangents]
            outputs = outputs_of(op, arguments)
            values = [o.detach().clone() for o in outputs]
            live = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
            torch.autograd.backward([o for o, _ in live], [c for _, c in live])
            assert all(torch.equal(a, b) for a, b in zip(kept, cotangents, strict=True)), "cotangents were changed"
            assert all(torch.equal(a, b) for a, b in zip(values, outputs, strict=True)), "outputs were changed"

        backward()
        once = {name: leaf.grad.clone() for name, leaf in leaves.items()}
        backward()
        for name, leaf in leaves.items():
            torch.testing.assert_close(leaf.grad, 2 * once[name], rtol=1e-4, atol=1e-6 * float(once[name].abs().max()))
        assert all(torch.equal(before[k], arguments[k].detach()) for k in before), "inputs were changed"


@families
def test_a_gradient_of_a_gradient_is_an_error_and_not_silence(family, cpu):
    """Of a sum, too, whose own gradient has no history: a loss of slopes would teach nothing."""
    for example in examples_of(family, 50):
        for name in example.differentiable:
            leaf = example.arguments[name].clone().requires_grad_()
            total = torch.stack(
                [out.sum() for out in outputs_of(pair(family, example)[0], {**example.arguments, name: leaf})]
            ).sum()
            (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
            with pytest.raises(RuntimeError, match="cannot be differentiated again"):
                slope.square().sum().backward()


@families
def test_refuses_a_wrong_type_in_python(family, cpu):
    for example in examples_of(family, 20):
        op, _ = pair(family, example)
        for name, value in example.arguments.items():
            if not isinstance(value, torch.Tensor):
                continue
            with pytest.raises((TypeError, ValueError), match=name):
                op(**{**example.arguments, name: value.half() if value.is_floating_point() else value.float()})
            with pytest.raises((TypeError, ValueError), match=name):
                op(**{**example.arguments, name: "not a tensor"})


@families
def test_refuses_a_wrong_shape_in_python(family, cpu):
    for example in examples_of(family, 20):
        op, _ = pair(family, example)
        for name, value in example.arguments.items():
            if isinstance(value, torch.Tensor):
                with pytest.raises(ValueError, match=r"shape|expected|has to"):
                    op(**{**example.arguments, name: value[None, None]})


@families
def test_refuses_a_tensor_of_another_device(family, cpu):
    for example in examples_of(family, 20):
        op, _ = pair(family, example)
        for name, value in example.arguments.items():
            if isinstance(value, torch.Tensor):
                with pytest.raises(ValueError, match=name):
                    op(**{**example.arguments, name: value.to("meta")})
