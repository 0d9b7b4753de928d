"""`python -m taichi_nerf.benchmarks.x --json FILE`: where the figures go."""

import importlib
import json
import os
import sys

import pytest

NEEDED = {"methods": ["scales"], "poses": ["--scene", "no scene"]}  # arguments that they do not begin without
MODULES = ("few_image", "few_view", "kernels", "methods", "nerf", "pixel_aligned", "poses", "scenes", "training")


def run(name, *arguments):
    module = importlib.import_module(f"taichi_nerf.benchmarks.{name}")
    sys.argv = [f"{name}.py", *NEEDED.get(name, []), *map(str, arguments)]
    module.main()


@pytest.fixture(autouse=True)
def _arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize("name", MODULES)
def test_a_file_that_cannot_be_written_is_told_before_measuring(tmp_path, monkeypatch, name):
    monkeypatch.setattr(f"taichi_nerf.benchmarks.{name}.start", None)
    with pytest.raises(FileNotFoundError, match="no"):
        run(name, "--json", tmp_path / "no" / "x.json")


def test_figures_that_are_interrupted_leave_those_of_before(cpu, tmp_path, monkeypatch):
    file = tmp_path / "figures.json"
    file.write_text("[1]")
    arguments = ("--arch", "cpu", "--only", "compositing", "--n", 500, "--json", file)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("kernels", *arguments)
    assert (file.read_text(), os.listdir(tmp_path)) == ("[1]", [file.name])
    run("kernels", *arguments)
    assert {row["n"] for row in json.loads(file.read_text())["rows"]} == {500}
