"""Changing kernels while the program runs."""

import functools
from pathlib import Path

import pytest
import taichi as ti
import torch

from taichi_nerf import check_gradients, kernels, reload_kernels, swap
from taichi_nerf.kernels import compositing, hash_grid_packed
from taichi_nerf.ops import hash_grid as hash_grid_op
from taichi_nerf.ops.compositing import composite_rays

A, B = ti.types.ndarray(ndim=1), ti.types.ndarray(ndim=2)


@ti.kernel
def opaque(
    density: ti.types.ndarray(ndim=1),
    color: ti.types.ndarray(ndim=2),
    t_starts: ti.types.ndarray(ndim=1),
    t_ends: ti.types.ndarray(ndim=1),
    spans: ti.types.ndarray(ndim=2),
    background: ti.types.ndarray(ndim=2),
    early_stop: ti.f32,
    out_color: ti.types.ndarray(ndim=2),
    out_opacity: ti.types.ndarray(ndim=1),
    out_depth: ti.types.ndarray(ndim=1),
    out_weights: ti.types.ndarray(ndim=1),
):
    """Every ray is opaque and green."""
    for i in range(density.shape[0]):
        out_weights[i] = 0
    for ray in range(spans.shape[0]):
        out_opacity[ray] = 1
        out_depth[ray] = t_starts[spans[ray, 0]]
        for channel in range(color.shape[1]):
            out_color[ray, channel] = channel == 1


def render():
    t = torch.tensor([0.0, 1.0])
    return composite_rays(torch.ones(2), torch.ones(2, 3), t, t + 1, torch.tensor([[0, 2]], dtype=torch.int32))


def test_a_swapped_kernel_is_what_the_op_runs_and_only_for_the_block(backend):
    before = render()
    with swap(compositing, composite_rays=opaque):
        assert torch.equal(render().color, torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.equal(render().color, before.color)


def test_a_swap_without_a_block_lasts_until_it_is_undone(backend):
    swapped = swap(compositing, composite_rays=opaque)
    assert render().opacity.item() == 1
    swapped.undo()
    assert render().opacity.item() < 1


def test_a_misspelt_kernel_names_those_that_exist(cpu):
    with pytest.raises(AttributeError, match=r"no kernel 'composit_rays': it has composite_rays, composite_rays_adjoint"):
        swap(compositing, composit_rays=opaque)


def test_a_kernel_with_other_arguments_is_refused(cpu):
    with pytest.raises(TypeError, match="is called with 11 arguments"):
        swap(compositing, composite_rays=lambda density: None)


def test_an_edited_file_is_read_again(cpu, tmp_path, monkeypatch):
    """Python is made to look for the kernels in another folder first, where an edited copy lies."""
    text = Path(compositing.__file__).read_text()
    edited = text.replace("out_opacity[ray] = opacity", "out_opacity[ray] = opacity + 1")
    assert edited != text
    (tmp_path / "compositing.py").write_text(edited)
    before = render().opacity.item()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "__path__", [str(tmp_path), *kernels.__path__])
        names = reload_kernels()
        assert render().opacity.item() == pytest.approx(before + 1)
    assert "taichi_nerf.kernels.compositing" in names
    assert names[0] == "taichi_nerf.kernels.device_functions"
    reload_kernels()
    assert render().opacity.item() == before


def test_reloading_returns_swapped_kernels_to_their_files(cpu):
    swap(compositing, composite_rays=opaque)
    reload_kernels()
    assert render().opacity.item() < 1


def test_check_gradients_accepts_the_shipped_adjoint_and_prints_a_table(cpu, capsys):
    rows = check_gradients("compositing")
    assert {row.argument for row in rows} == {"density", "color", "t_starts", "t_ends", "background"}
    assert all(row.against_reference < 1e-10 and row.against_differences < 1e-6 for row in rows)
    assert "density" in capsys.readouterr().out


def test_check_gradients_exposes_a_wrong_adjoint(cpu):
    right = compositing.composite_rays_adjoint

    @functools.wraps(right)
    def doubled(*arguments):
        right(*arguments)
        arguments[12].mul_(2)  # out_density: twice the gradient, a peer's defect

    with swap(compositing, composite_rays_adjoint=doubled):
        rows = check_gradients("compositing", show=False)
    wrong = {row.argument for row in rows if row.against_reference > 0.1}
    assert wrong == {"density"}
    assert all(row.against_differences > 0.1 for row in rows if row.argument == "density")


def test_kernels_that_the_check_does_not_launch_are_named(cpu, capsys):
    """A packed table is read by another kernel, in 32 bits alone: the table of gradients is clean whatever that one does."""

    @ti.kernel
    def nothing(a: A, b: A, c: B, d: A, n: ti.template(), m: ti.template(), k: ti.i32, scratch: A, out: A):
        for i in range(out.shape[0]):
            out[i] = 0

    layout = {"n_levels": 2, "base_resolution": 4, "max_resolution": 8, "log2_table_size": 8}
    table = hash_grid_op.initialise_table(**layout, n_features=2) + 1
    positions = torch.rand(5, 3)
    with swap(hash_grid_packed, encode=nothing):
        assert hash_grid_op.hash_grid(positions, table, **layout, packed=hash_grid_op.pack(table)).abs().max() == 0
        assert all(row.against_reference < 1e-10 for row in check_gradients("hash_grid", n=4))
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("not launched here, so nothing is said of hash_grid.encode_by_points, ")
    assert "hash_grid_packed.encode" in last.split(", ")
    assert "hash_grid.encode" not in last.split(", ")
    check_gradients("spherical_harmonics", n=4)
    assert "not launched" not in capsys.readouterr().out


def test_check_gradients_of_a_misspelt_family_names_those_that_exist(cpu):
    with pytest.raises(ValueError, match=r"one of ray_generation, .*compositing"):
        check_gradients("composting")
