"""Kernels that are edited while the program runs."""

import inspect
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

import taichi_nerf.ops.ray_box  # noqa: F401  (a family is checked where its operator is loaded)
from taichi_nerf.kernels import compositing, ray_box
from taichi_nerf.live_kernels import KernelError, LiveKernels
from taichi_nerf.ops.compositing import composite_rays

GOOD = "out_opacity[ray] = opacity"
FILE = Path(compositing.__file__).resolve()


def opacity(n_channels=3):
    t = torch.tensor([0.0, 1.0])
    spans = torch.tensor([[0, 2]], dtype=torch.int32)
    return float(composite_rays(torch.ones(2), torch.ones(2, n_channels), t, t + 1, spans).opacity)


class Bench:
    """A user's file, and what was told of it."""

    def __init__(self, file, **others):
        self.file, self.news = file, []
        file.write_text(FILE.read_text())
        self.kernels = LiveKernels(True, {"compositing": file, **others}, self.news.append)
        assert {news.kind for news in self.news} == {"gradients"}
        self.news.clear()

    def edit(self, old, new):
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))
        return self.poll()

    def poll(self):
        return any(self.kernels.poll() for _ in range(3))

    def line_of(self, text):
        return self.file.read_text()[: self.file.read_text().index(text)].count("\n") + 1


@pytest.fixture
def bench(cpu, tmp_path):
    before = dict(vars(compositing))
    yield Bench(tmp_path / "my_kernels.py")
    vars(compositing).clear()
    vars(compositing).update(before)


def test_an_edit_runs_after_the_next_polls_and_the_file_may_change_again(bench):
    before = opacity()
    assert not bench.poll()
    for k in range(3):
        assert bench.edit(GOOD, f"out_opacity[ray] = {k + 1} + opacity")
        assert opacity() == pytest.approx(before + k + 1)
        assert bench.edit(f"{k + 1} + opacity", "opacity")
        assert opacity() == pytest.approx(before)
    assert [news.kind for news in bench.news] == ["loaded"] * 6


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("out_opacity[ray] = nonsense", "nonsense"),  # Taichi refuses it
        ("out_opacity[ray] = = 1", "SyntaxError"),  # Python does
        ("out_opacity[ray] = out_color[ray]", ""),  # the types do not fit
    ],
)
def test_a_mistake_is_told_with_file_and_line_and_the_last_good_kernel_goes_on(bench, wrong, kind):
    bench.edit(GOOD, GOOD + " + 1")
    before = opacity()
    line = bench.line_of(GOOD)
    assert not bench.edit(GOOD + " + 1", wrong)
    news = bench.news[-1]
    assert news.kind == "failed"
    assert news.text.startswith(f"{bench.file}:{line}: ")
    assert kind in news.text
    assert opacity() == before
    assert not bench.poll()  # it is told once
    assert bench.edit(wrong, GOOD)
    assert opacity() == pytest.approx(before - 1)


def test_a_form_compiled_after_a_mistake_is_of_the_good_source(bench):
    """Taichi reads the source when it compiles: here, 64 bits are compiled while the file is broken."""
    bench.edit(GOOD, GOOD + " + 1")
    bench.edit(GOOD + " + 1", "\n\n\n" + GOOD + " + broken")
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    spans = torch.tensor([[0, 2]], dtype=torch.int32)
    wide = composite_rays(torch.ones(2).double(), torch.ones(2, 3).double(), t, t + 1, spans).opacity
    assert float(wide) == pytest.approx(opacity())


def test_errors_at_module_level_are_told(bench):
    before = opacity()
    bench.edit("import taichi as ti", "import taichi as ti\n1 / 0")
    assert bench.news[-1].text.startswith(f"{bench.file}:{bench.line_of('1 / 0')}: ZeroDivisionError")
    bench.edit("\n1 / 0", "")
    assert opacity() == before


def test_a_file_that_ends_the_program_is_told_and_ends_nothing(bench):
    """When it is read, and when its kernel is launched; by way of Python's own `exit` as well."""
    before = opacity()
    names = ", ".join(inspect.signature(compositing.composite_rays).parameters)
    good = bench.file.read_text()
    for ending, told in (
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("exit('enough')", "SystemExit: enough"),
        (f"def composite_rays({names}): raise SystemExit('at a launch')", "SystemExit: at a launch"),
    ):
        bench.file.write_text(f"{good}\n{ending}\n")
        assert not bench.poll()
        assert bench.news[-1].kind == "failed"
        assert bench.news[-1].text.startswith(f"{bench.file}:{good.count(chr(10)) + 2}: {told}")
        assert opacity() == before


def test_a_signal_that_comes_while_a_file_is_read_ends_the_program(bench):
    former = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        bench.file.write_text(f"{bench.file.read_text()}\nimport os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
        with pytest.raises(SystemExit, match="143"):
            bench.poll()
    finally:
        signal.signal(signal.SIGTERM, former)


def test_gradients_are_checked_after_an_edit(bench):
    bench.edit(GOOD, GOOD + " * 2")  # the adjoint does not know of it
    assert bench.kernels.has_to_check
    while bench.kernels.has_to_check:
        bench.kernels.check()
    assert bench.news[-1].kind == "gradients"
    row = next(line for line in bench.news[-1].text.splitlines() if "density" in line)
    assert float(row.split()[-1]) > 1e-3
    assert bench.news[-1].text.startswith("compositing on cpu")


def test_an_adjoint_that_does_not_compile_takes_the_edit_back(bench):
    before = opacity()
    bench.edit("def composite_rays_adjoint(", "def composite_rays_adjoint(wrong, ")
    while bench.kernels.has_to_check:
        bench.kernels.check()
    assert bench.news[-1].kind == "failed"
    assert opacity() == before


@pytest.fixture
def two(cpu, tmp_path):
    """With a file for another family beside."""
    modules, file = (compositing, ray_box), tmp_path / "my_boxes.py"
    before = [dict(vars(module)) for module in modules]
    file.write_text(Path(ray_box.__file__).read_text())
    bench = Bench(tmp_path / "my_kernels.py", ray_box=file)
    bench.other = file
    yield bench
    for module, held in zip(modules, before, strict=True):
        vars(module).clear()
        vars(module).update(held)


@pytest.mark.parametrize("more", ["# fine", "def f(:"])
def test_of_two_files_that_are_saved_at_once_each_is_checked(two, more):
    """What the second one is like changes nothing about the first, whose adjoint does not compile."""
    before = opacity()
    two.other.write_text(f"{two.other.read_text()}\n{more}\n")
    two.edit("behind += weights[i]", "behind += nonsense[i]")  # which is found when it is compiled
    assert two.kernels.has_to_check
    while two.kernels.has_to_check:
        two.kernels.check()
    assert two.news[-1].kind == "failed"
    assert "nonsense" in two.news[-1].text
    assert opacity() == before
    density, t, spans = torch.ones(2, requires_grad=True), torch.tensor([0.0, 1.0]), torch.tensor([[0, 2]], dtype=torch.int32)
    composite_rays(density, torch.ones(2, 3), t, t + 1, spans).opacity.sum().backward()
    torch.testing.assert_close(density.grad, torch.tensor([-2.0, -2.0]).exp())  # of 1 - exp(-a - b), by hand


def test_of_two_good_files_both_tables_are_shown(two):
    two.other.write_text(two.other.read_text() + "\n# fine\n")
    two.edit(GOOD, GOOD + " * 2")
    while two.kernels.has_to_check:
        two.kernels.check()
    tables = [news.text.split()[0] for news in two.news if news.kind == "gradients"]
    assert tables == ["compositing", "ray_box"]


def test_a_file_that_is_no_text_is_told_without_a_line(bench):
    bench.edit(GOOD, GOOD + "\0")
    assert bench.news[-1].text.startswith(f"{bench.file}: ")


def test_a_launch_that_fails_later_brings_the_kernels_before_back(bench):
    before = opacity()
    bench.edit(GOOD, GOOD + " + 1")
    assert bench.kernels.failed(ValueError("some variant did not compile"))
    assert opacity() == pytest.approx(before)
    assert not bench.kernels.failed(ValueError("once more"))  # nothing to take back any more


def test_a_file_of_the_project_is_watched_too(cpu, tmp_path, monkeypatch):
    """An edited copy stands in for kernels/compositing.py."""
    copy = tmp_path / "compositing.py"
    copy.write_text(FILE.read_text())
    monkeypatch.setattr(compositing, "__file__", str(copy))
    before, kept, news = opacity(), dict(vars(compositing)), []
    kernels = LiveKernels(True, {}, news.append)
    copy.write_text(FILE.read_text().replace(GOOD, GOOD + " + 1"))
    try:
        assert any(kernels.poll() for _ in range(3))
        assert opacity() == pytest.approx(before + 1)
    finally:
        vars(compositing).update(kept)


def test_a_change_concerns_those_that_import_it(cpu):
    import taichi_nerf.ops.hash_grid  # noqa: F401

    kernels = LiveKernels(True, {})
    names = kernels._names(FILE.with_name("device_functions.py"))
    assert names[0] == "taichi_nerf.kernels.device_functions"
    assert "taichi_nerf.kernels.compositing" in names
    assert kernels._names(FILE) == ["taichi_nerf.kernels.compositing"]


def test_what_is_wrong_from_the_start_is_one_line(cpu, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import taichi as ti\n")
    with pytest.raises(KernelError, match=r"has none of the kernels of compositing: composite_rays, composite_rays_adjoint"):
        LiveKernels(True, {"compositing": file})
    with pytest.raises(KernelError, match=r"no such file in kernels/; there are activations, adam, compositing"):
        LiveKernels(True, {"compositin": file})
    file.write_text("def f(:\n")
    with pytest.raises(KernelError, match=rf"^{file}:1: SyntaxError"):
        LiveKernels(True, {"compositing": file})
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(KernelError, match=rf"^{file}:2: SystemExit: 3$"):
        LiveKernels(True, {"compositing": file})


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        (GOOD, "out_opacity[ray] = nonsense", "nonsense"),
        ("behind += weights[i]", "behind += nonsense[i]", "nonsense"),  # of the adjoint
        ("early_stop: ti.f32", "early_stop: ti.i32", "cannot be converted into required type i32"),
    ],
)
def test_a_file_that_does_not_compile_is_told_with_its_line_before_anything_runs(cpu, tmp_path, right, wrong, told):
    before, file = opacity(), tmp_path / "mine.py"
    text = FILE.read_text()
    assert right in text
    file.write_text(text.replace(right, wrong, 1))
    with pytest.raises(KernelError) as caught:
        LiveKernels(False, {"compositing": file})
    line = file.read_text()[: file.read_text().index(wrong)].count("\n") + 1
    place = str(file) if "early" in wrong else f"{file}:{line}"
    assert str(caught.value).startswith(f"{place}: ")
    assert told in str(caught.value)
    assert "version" not in str(caught.value)
    assert opacity() == before


def test_a_wrong_adjoint_is_told_from_the_start(cpu, tmp_path):
    kept, file, news = dict(vars(compositing)), tmp_path / "mine.py", []
    right = "out_density[i] = of_optical_depth"
    file.write_text(FILE.read_text().replace(right, right.replace("= ", "= 2 * ")))
    try:
        LiveKernels(False, {"compositing": file}, news.append)
    finally:
        vars(compositing).update(kept)
    errors = [line.split()[-2:] for line in news[0].text.splitlines() if " density " in line]
    assert errors
    for error in errors:  # twice the gradient: as far off as the gradient is large, by either measure
        assert [float(number) for number in error] == pytest.approx([1, 1], rel=1e-3)


def test_a_file_that_is_gone_for_a_moment_is_waited_for(bench):
    """Editors write another file and move it into place."""
    before = opacity()
    text = bench.file.read_text()
    os.unlink(bench.file)
    assert not bench.poll()
    bench.file.write_text(text.replace(GOOD, GOOD + " + 1"))
    assert bench.poll()
    assert opacity() == pytest.approx(before + 1)
