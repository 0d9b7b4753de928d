"""Every op's kernels compile for CUDA. It takes no GPU: a driver that computes nothing stands in for NVIDIA's.

The compiler is Taichi's own for CUDA, to PTX. Where NVIDIA's assembler is at hand, it goes on to machine code of both the oldest
and a recent processor, without anything spilled out of the registers.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract import FAMILIES

SUPPORT = Path(__file__).parent / "support"
COMPILER = shutil.which("cc") or shutil.which("gcc")
ASSEMBLER = shutil.which("ptxas")
if sys.platform != "linux" or COMPILER is None:
    pytest.skip("needs Linux and a C compiler, for the driver that computes nothing", allow_module_level=True)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The kernels that were launched, and the PTX of all modules that the driver was given."""
    folder = tmp_path_factory.mktemp("driver")
    command = [COMPILER, "-shared", "-fPIC", str(SUPPORT / "silent_driver.c"), "-o", str(folder / "libcuda.so")]
    subprocess.run(command, check=True)
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(folder),
        "SILENT_DRIVER_OUT": str(folder),
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]),
    }
    command = [sys.executable, str(SUPPORT / "compile_for_cuda.py"), *FAMILIES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), sorted(folder.glob("*.ptx"))


def test_every_kernel_of_every_op_becomes_code_of_a_gpu(compiled):
    launched, files = compiled
    entries = re.findall(r"\.entry (\w+)", "".join(file.read_text() for file in files))
    assert len(launched) > 40
    for kernel in launched:
        assert any(re.fullmatch(rf"{kernel}_c\d+_\d+_kernel_\d+_range_for", entry) for entry in entries), kernel


@pytest.mark.skipif(ASSEMBLER is None, reason="needs NVIDIA's ptxas")
@pytest.mark.parametrize("processor", ["sm_86", "sm_90"])
def test_the_code_assembles_and_keeps_to_the_registers(compiled, processor, tmp_path):
    for file in compiled[1]:
        command = [ASSEMBLER, "-v", f"-arch={processor}", str(file), "-o", str(tmp_path / "code")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if "runtime_initialize" not in file.read_text():  # Taichi's own
            spilled = re.findall(r"(\d+) bytes spill", done.stderr)
            assert spilled, done.stderr
            assert set(spilled) == {"0"}, done.stderr
