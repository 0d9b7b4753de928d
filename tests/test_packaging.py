"""What is packaged is what is in the folders, and importing it is quiet and light."""

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE_DIRS = PROJECT["tool"]["setuptools"]["package-dir"]
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]


def folder_of(package):
    for name in sorted(PACKAGE_DIRS, key=len, reverse=True):
        if package == name or package.startswith(name + "."):
            return ROOT / PACKAGE_DIRS[name] / package[len(name) + 1 :].replace(".", "/")
    raise AssertionError(package)


def packages_in(name, folder):
    """Every folder with Python files below, as import names."""
    found = {name} if list(folder.glob("*.py")) else set()
    for child in folder.iterdir():
        if child.is_dir() and not child.name.startswith(("__", ".")):
            found |= packages_in(f"{name}.{child.name}", child)
    return found


def test_the_list_of_packages_is_the_folders():
    found = set()
    for name, folder in PACKAGE_DIRS.items():
        found |= packages_in(name, ROOT / folder)
    assert found == set(PACKAGES)


def test_every_package_has_a_docstring_and_an_init():
    for package in PACKAGES:
        text = (folder_of(package) / "__init__.py").read_text()
        assert text.startswith('"""'), package


def test_every_module_says_what_it_is():
    for package in PACKAGES:
        for file in folder_of(package).glob("*.py"):
            assert file.read_text().startswith('"""'), file


def python(code, *options):
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, cwd="/")
    return done.returncode, done.stdout, done.stderr


def modules():
    names = []
    for package in PACKAGES:
        names += [
            package,
            *(f"{package}.{f.stem}" for f in sorted(folder_of(package).glob("*.py")) if f.stem != "__init__"),
        ]
    return [name for name in names if not name.endswith("__main__")]


def test_importing_every_module_starts_no_backend_and_prints_nothing():
    """Hidden `ti.init` at import is what makes a library impossible to embed."""
    code = "\n".join(f"import {name}" for name in modules())
    code += "\nimport taichi as ti\nassert ti.lang.impl.get_runtime().prog is None, 'Taichi was initialised'"
    status, out, err = python(code, "-W", "ignore::SyntaxWarning")
    assert (status, out, err) == (0, "", "")


@pytest.mark.parametrize("code", ["import taichi_nerf", "import taichi_nerf.apps.main", "from taichi_nerf import __version__"])
def test_import_loads_neither_taichi_nor_torch(code):
    status, out, err = python(f"{code}\nimport sys\nassert not {{'taichi', 'torch'}} & set(sys.modules)")
    assert (status, out, err) == (0, "", "")


def test_help_loads_neither_taichi_nor_torch_and_prints_no_banner():
    code = (
        "import sys, taichi_nerf.apps.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'taichi', 'torch'} & set(sys.modules)"
    )
    status, out, err = python(code)
    assert (status, err) == (0, "")
    assert out.startswith("Usage:")


def test_defining_kernels_seeks_nothing_in_all_other_modules():
    """Some thousand modules for each of some hundred kernels: what was most of a command's start beside torch."""
    kernels = [name for name in modules() if name.startswith("taichi_nerf.kernels.")]
    code = (
        "import inspect, torch, taichi\nn, own = 0, inspect.ismodule\n"
        "def counted(x):\n    global n\n    n += 1\n    return own(x)\n"
        f"inspect.ismodule = counted\nimport {', '.join(kernels)}\nprint(n)"
    )
    status, out, err = python(code, "-W", "ignore")
    assert (status, err) == (0, "")
    assert int(out.split()[-1]) < 20_000  # of 370,000 when each sought for itself


def test_the_room_of_kernels_may_be_loaded_anew():
    """As notebooks do with files that were edited."""
    code = (
        "import importlib, taichi as ti, taichi_nerf.kernels as kernels\nimportlib.reload(kernels)\n"
        "from taichi_nerf.kernels import ray_box\nti.init(arch=ti.cpu, log_level=ti.ERROR)\n"
        "import numpy as np\nf = lambda *shape: np.ones(shape, np.float32)\n"
        "ray_box.intersect_boxes(f(2, 3), f(2, 3), f(2, 3), 0.0, 1.0, f(2), f(2))"
    )
    status, _, err = python(code, "-W", "ignore")
    assert (status, err) == (0, "")


def test_nothing_is_printed_where_standard_output_is_not_that_of_the_process():
    """As in notebooks."""
    code = "import io, sys\nsys.stdout = io.StringIO()\nimport taichi_nerf.ops.compositing\nassert not sys.stdout.getvalue()"
    assert python(code, "-W", "ignore") == (0, "", "")


def test_the_wish_of_a_user_to_see_the_banner_is_kept():
    status, out, _ = python(
        "import os; os.environ['ENABLE_TAICHI_HEADER_PRINT'] = '1'\nimport taichi_nerf.runtime", "-W", "ignore"
    )
    assert status == 0
    assert "[Taichi] version" in out


def test_every_public_name_can_be_fetched():
    import taichi_nerf

    for name in taichi_nerf.__all__:
        assert getattr(taichi_nerf, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = taichi_nerf.nonsense
