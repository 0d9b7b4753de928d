"""The examples run, and show what they say. Each at a small size, by its own arguments; its picture is looked at in figures."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import small_run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KERNELS = sorted((EXAMPLES / "kernels").glob("*.py"))


def run(name, *arguments, folder, text=None):
    """What an example prints; started in `folder`, on the cpu, with pictures that nobody waits for."""
    command = [sys.executable, str(EXAMPLES / name) if text is None else "-", *map(str, arguments)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, input=text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test():
    own = Path(__file__).read_text()
    for file in EXAMPLES.glob("*.py"):
        assert f'"{file.name}"' in own, file.name


def test_swapping_a_kernel_takes_less_than_30_lines(tmp_path):
    assert len((EXAMPLES / "swap_a_kernel.py").read_text().splitlines()) < 30
    shown = run("swap_a_kernel.py", folder=tmp_path)
    assert re.search(r"fog: tensor\(\[0\.1813, 0\.3221", shown), shown
    assert re.search(r"surface: tensor\(\[0\., 0\., 1\., 0\.\]\)", shown), shown


def test_a_run_is_seen_through_three_kernels(cpu, small_scene, tmp_path):
    config, scene = small_run.configured(small_scene, steps=60)
    small_run.trained(tmp_path / "run", config, scene)
    run("look_through.py", tmp_path / "run", "--width", 40, folder=tmp_path)
    trained, cartoon, xray = np.split(imageio.imread(tmp_path / "look_through.png").astype(float), 3, 1)
    background = (trained > 250).all(-1)
    assert 0.2 < background.mean() < 0.9
    assert (cartoon[background] > 240).mean() > 0.9
    assert np.abs(cartoon - trained)[~background].mean() > 10
    assert xray[background].mean() < 10 < 40 < xray[~background].mean()  # light is where matter is


@pytest.mark.parametrize("file", KERNELS, ids=lambda file: file.stem)
def test_a_kernel_writes_every_output(cpu, file):
    """On a backend that copies, what a kernel leaves unwritten comes back as garbage."""
    import torch

    from taichi_nerf import swap
    from taichi_nerf.kernels import compositing
    from taichi_nerf.launch import launch

    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    t, spans = torch.arange(6.0), torch.tensor([[0, 3], [3, 0], [3, 3]], dtype=torch.int32)
    inputs = (torch.rand(6) * 5, torch.rand(6, 3), t, t + 1, spans, torch.ones(3, 3), 0.0)
    outputs = [torch.full(shape, float("nan")) for shape in ((3, 3), (3,), (3,), (6,))]
    with swap(compositing, composite_rays=module.composite_rays):
        launch(compositing.composite_rays, *inputs, *outputs)
    assert all(output.isfinite().all() for output in outputs)
    assert all(((output >= 0) & (output <= 1.0001)).all() for output in (outputs[0], outputs[1], outputs[3]))


def held_out(text):
    return float(re.search(r"([\d.]+) dB on a view that was held out", text)[1])


def test_the_field_of_40_lines_learns(small_scene, tmp_path):
    source = (EXAMPLES / "my_field.py").read_text()
    classes = source[source.index("class VoxelField") : source.index("parser = ")]
    assert len([line for line in classes.splitlines() if line.strip()]) <= 40
    assert held_out(run("my_field.py", small_scene, "--steps", 80, "--resolution", 24, folder=tmp_path)) > 17
    assert imageio.imread(tmp_path / "my_field.png").shape == (40, 80, 3)


def test_the_loss_smooths_depth(small_scene, tmp_path):
    shown = run("my_loss.py", small_scene, "--steps", 60, folder=tmp_path)
    without, with_term = (float(found) for found in re.findall(r"roughness of depth ([\d.]+)", shown))
    assert with_term < 0.8 * without
    assert imageio.imread(tmp_path / "my_loss.png").shape == (40, 200, 3)


def test_a_model_of_ones_own_learns_with_the_ops_alone(tmp_path):
    source = (EXAMPLES / "own_model.py").read_text()
    assert "taichi_nerf.training" not in source
    assert "taichi_nerf.fields" not in source
    assert held_out(run("own_model.py", "--steps", 60, "--size", 32, folder=tmp_path)) > 17


def test_the_notebook_runs_cell_by_cell(tmp_path):
    """What the notebook holds, in its order, is run: with a shorter training of smaller pictures."""
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    sizes = "SECONDS, SIZE, N_VIEWS = 30, 100, 40"
    assert sizes in code
    (tmp_path / "cells.py").write_text(code.replace(sizes, "SECONDS, SIZE, N_VIEWS = 3, 48, 12"))  # a file: Taichi reads source
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "ignore", "cells.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"the last at ([\d.]+) dB", done.stdout)[1]) > 14
    assert imageio.imread(tmp_path / "notebook.png")[..., :3].std() > 20


def test_the_notebook_is_that_of_its_script():
    spec = importlib.util.spec_from_file_location("write_notebook", EXAMPLES / "write_notebook.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    text = (EXAMPLES / "notebook.py").read_text(encoding="utf-8")
    assert (EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8") == writer.notebook_of(text), "run write_notebook.py"
    assert [cell["cell_type"] for cell in writer.cells_of(text)][:3] == ["markdown", "code", "markdown"]
