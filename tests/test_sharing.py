"""Tests are shared out by file and backend."""

from pathlib import Path
from types import SimpleNamespace

import sharing

ROOT = Path(__file__).resolve().parents[1]


def item(nodeid, arch=None):
    return SimpleNamespace(nodeid=nodeid, **({"callspec": SimpleNamespace(params={"running": arch})} if arch else {}))


def test_other_backends_come_last_and_long_files_first_and_the_rest_stays_as_it_was():
    short, long = "tests/test_b.py", sharing.LONG[0]
    given = [
        *(item(f"{short}::test_x[{arch}]", arch) for arch in ("vulkan", "cpu")),
        item("tests/test_a.py::test_y"),
        *(item(f"{long}::test_z[{arch}]", arch) for arch in ("vulkan", "cpu")),
    ]
    for backends in (["cpu", "vulkan"], ["vulkan", "cpu"], ["vulkan"]):
        found = [test.nodeid for test in sharing.in_order(given, backends)]
        assert found == [given[i].nodeid for i in (4, 1, 2, 3, 0)]


def test_a_file_stays_together_and_each_backend_with_itself():
    names = ["test_x", "test_x[3-vulkan]", "test_x[cpu]", "test_y[cpu-2]", "test_x[vulkan]", "test_y[vulkan-2-hash_grid]"]
    units = [sharing.ByFileAndBackend._split_scope(None, f"tests/test_a.py::{name}") for name in names]
    assert units == 4 * [units[0]] + 2 * [units[-1]]
    assert units[0] != units[-1]
    assert units[0] != sharing.ByFileAndBackend._split_scope(None, "tests/test_b.py::test_x")


def test_the_long_files_are_there():
    assert [file for file in sharing.LONG if not (ROOT / file).is_file()] == []
