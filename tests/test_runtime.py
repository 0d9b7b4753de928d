"""Starting backends: what is asked for is what runs, and what does not work says why."""

import json
import os
import subprocess
import sys

import pytest
import torch

from taichi_nerf import runtime
from taichi_nerf.runtime import BackendError, DeviceArray, Probe


def test_starts_the_backend_that_was_asked_for(backend, running):
    import taichi as ti

    assert backend.arch == running
    assert backend == runtime.current()
    assert ti.lang.impl.current_cfg().arch == (ti.x64 if running == "cpu" else getattr(ti, running))
    assert backend.device_name
    assert backend.copies == (running in ("vulkan", "metal"))


def test_a_second_start_keeps_the_backend_that_runs(backend):
    kept = DeviceArray(torch.ones(3))
    assert runtime.start(backend.arch) is backend
    assert torch.equal(kept.to_torch(), torch.ones(3))


def test_an_unknown_backend_is_refused_with_the_choices(cpu):
    with pytest.raises(BackendError, match=r"unknown backend 'opencl': choose auto, cuda, metal, vulkan, cpu"):
        runtime.start("opencl")


def test_a_backend_that_does_not_work_is_an_error_not_the_cpu(cpu, monkeypatch):
    monkeypatch.setattr(runtime, "probe", lambda arch: Probe(arch, False, reason="its driver is missing"))
    with pytest.raises(BackendError, match=r"the cuda backend does not work here: its driver is missing"):
        runtime.start("cuda")
    assert runtime.current().arch == "cpu"


def test_auto_prefers_cuda_metal_a_real_vulkan_gpu_and_then_the_cpu(monkeypatch):
    devices = {"cuda": "", "metal": "", "vulkan": "AMD Radeon", "cpu": "a processor"}
    monkeypatch.setattr(runtime, "probe", lambda arch: Probe(arch, bool(devices[arch]), devices[arch]))
    assert runtime.choose() == "vulkan"
    devices["vulkan"] = "llvmpipe (LLVM 15.0.6, 256 bits)"  # an emulated GPU is slower than the CPU it runs on
    assert runtime.choose() == "cpu"
    devices["metal"] = "Apple M2"
    assert runtime.choose() == "metal"
    devices["cuda"] = "H200"
    assert runtime.choose() == "cuda"


def test_looking_for_a_gpu_does_not_start_cuda_in_this_process(monkeypatch):
    """Once it has started, CUDA_VISIBLE_DEVICES is as it was: of processes that train together all would take the first GPU."""

    def starts_cuda():
        raise AssertionError("torch.cuda.is_available starts CUDA")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", starts_cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # which asks the driver's management library
    assert runtime.missing_driver("cuda") == ""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert runtime.missing_driver("cuda") == "torch finds no CUDA device"


def test_a_driver_that_ends_its_process_is_reported_not_suffered(monkeypatch):
    monkeypatch.setattr(runtime, "missing_driver", lambda arch: "")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    real_run = subprocess.run
    monkeypatch.setattr(runtime.subprocess, "run", lambda command, **options: real_run([sys.executable, "-c", code], **options))
    found = runtime.probe.__wrapped__("vulkan")
    assert not found.works
    assert found.reason == "its driver ended the test process (signal 11)"


def test_a_probe_takes_its_modules_from_where_this_process_does_and_not_from_the_current_folder(tmp_path, monkeypatch):
    """`python -m` looks there first: somebody's random.py passed for a broken driver, and "auto" took the CPU."""
    (tmp_path / "random.py").write_text("raise SystemExit('of the current folder')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "missing_driver", lambda arch: "")
    found = runtime.probe.__wrapped__("cuda")  # which is nowhere to be had, or works
    assert "current folder" not in found.reason


def test_on_macos_the_device_is_named_by_its_chip(monkeypatch):
    """`platform.processor()` is "arm" there."""
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    answer = subprocess.CompletedProcess([], 0, "Apple M2 Pro\n", "")
    monkeypatch.setattr(runtime.subprocess, "run", lambda command, **options: answer)
    assert runtime.processor_name() == "Apple M2 Pro"


@pytest.mark.parametrize("home", [{}, {"HOME": os.devnull}], ids=["none", "not a folder"])
def test_a_process_without_a_home_that_can_be_written_to_computes_and_ends_well(home, running):
    """As in a container of another user's, or of a service: Taichi aborted at its import, or crashed at the end of all work."""
    code = (
        "import taichi_nerf, taichi as ti\n"
        f"taichi_nerf.start({running!r})\n"
        "from taichi_nerf.kernels import probe\n"
        "values = ti.ndarray(ti.f32, (8,))\nvalues.fill(3)\nprobe.square(values)\nprint(values.to_numpy()[7])"
    )
    others = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", code], env=others | home, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "9.0\n", "")


def test_a_taichi_that_starts_something_else_is_an_error():
    """TI_ARCH overrides every ti.init behind the program's back."""
    code = "import taichi_nerf\ntry: taichi_nerf.start('cpu')\nexcept taichi_nerf.BackendError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], env={"TI_ARCH": "vulkan", "PATH": ""}, capture_output=True, text=True)
    if "no Vulkan" in done.stderr or done.returncode < 0:
        pytest.skip("no Vulkan here, so Taichi cannot be sent astray")
    assert "TI_ARCH" in done.stdout + done.stderr


def test_an_op_before_start_says_what_to_do():
    code = (
        "import torch, taichi_nerf\n"
        "try: taichi_nerf.ops.compositing.composite_rays(*[torch.zeros(1)] * 5)\n"
        "except taichi_nerf.BackendError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == 'no backend is running: call taichi_nerf.start("auto") once, before the first op\n'


def test_starting_prints_nothing():
    done = subprocess.run([sys.executable, "-c", "import taichi_nerf; taichi_nerf.start('cpu')"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_compiled_is_kept_though_a_process_was_killed_while_it_kept_something(tmp_path):
    lock = tmp_path / "ticache.lock"
    lock.touch()
    runtime._open_cache(str(tmp_path))
    assert lock.exists()  # somebody is at it
    os.utime(lock, (0, 0))
    code = "import taichi_nerf, taichi as ti\ntaichi_nerf.start('cpu')\n"
    code += "from taichi_nerf.kernels import probe\nprobe.square(ti.ndarray(ti.f32, shape=(8,)))"
    environment = {**os.environ, "TI_OFFLINE_CACHE_FILE_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not lock.exists()
    assert list(tmp_path.glob("*.tic"))


def test_a_probe_answers_in_json(running):
    if running == "cpu":
        pytest.skip("the CPU is not probed: Taichi always has it")
    if not runtime.probe(running).works:
        pytest.skip(runtime.probe(running).reason)
    code = f"from taichi_nerf import runtime; runtime._try_here({running!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "device_name" in json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.uint8])
def test_a_device_array_keeps_what_it_is_given(backend, dtype):
    values = torch.arange(12).reshape(3, 4).to(dtype)
    array = DeviceArray(values)
    assert torch.equal(array.to_torch().cpu(), values)
    array.copy_(values + 1)
    assert torch.equal(array.to_torch().cpu(), values + 1)
    with pytest.raises(ValueError, match="expected"):
        array.copy_(values[:2])


def test_a_device_array_starts_with_a_gradient_of_zero(backend):
    array = DeviceArray(torch.ones(5), requires_grad=True)
    assert torch.equal(array.grad_to_torch().cpu(), torch.zeros(5))
    with pytest.raises(ValueError, match="requires_grad"):
        DeviceArray(torch.ones(5)).grad_to_torch()


def test_a_device_array_of_an_ended_backend_says_so(cpu):
    array = DeviceArray(torch.ones(5))
    runtime.start("cpu", n_threads=runtime.current().n_threads + 1)
    with pytest.raises(BackendError, match="ended by a later start"):
        array.to_torch()
    runtime.start("cpu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int32, torch.uint8])
def test_a_device_array_made_empty_takes_values_later(dtype, backend):
    array = DeviceArray.empty(3, 5, dtype=dtype, requires_grad=dtype.is_floating_point)
    values = torch.arange(15).view(3, 5).to(dtype)
    array.copy_(values)
    assert torch.equal(array.to_torch(), values)
    assert array.shape == (3, 5)
    if array.requires_grad:
        array.zero_grad()
        assert not array.grad_to_torch().any()


def test_a_number_of_threads_that_cannot_be_is_refused_and_ends_nothing(cpu):
    kept = DeviceArray(torch.ones(3))
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"n_threads: expected 1 or more, or None for all, got {wrong}"):
            runtime.start("cpu", n_threads=wrong)
    assert torch.equal(kept.to_torch(), torch.ones(3))


def output_of(*lines: str) -> str:
    """What a program prints that has an op and a backend. Kernels that hang or end its process are failures."""
    head = ("import torch, taichi_nerf", "from taichi_nerf.ops.spherical_harmonics import spherical_harmonics as op")
    done = subprocess.run([sys.executable, "-c", "\n".join((*head, *lines))], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


FORK = """
taichi_nerf.start("cpu")
op(torch.eye(3).repeat(1000, 1))
import os
child = os.fork()
if child == 0:
    for call in (lambda: op(torch.eye(3).repeat(1000, 1)), lambda: taichi_nerf.start("cpu")):
        try: call()
        except taichi_nerf.BackendError as error: print("child:", error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", op(torch.eye(3)).shape)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_told_that_it_has_no_backend_where_kernels_would_wait_for_ever():
    """Workers of torch's DataLoader are forked, on Linux."""
    *of_child, of_parent = output_of(FORK).splitlines()
    assert len(of_child) == 2
    assert all('make children by "spawn"' in line for line in of_child)
    assert of_parent == "parent: torch.Size([3, 16])"


REINITIALISED = """
import taichi as ti
taichi_nerf.start("cpu")
kept = taichi_nerf.DeviceArray(torch.ones(3))
op(torch.eye(3))
ti.init(ti.cpu, log_level=ti.ERROR)
for call in (lambda: op(torch.eye(3)), kept.to_torch):
    try: call()
    except taichi_nerf.BackendError as error: print(error)
taichi_nerf.start("cpu")
print(op(torch.eye(3)).shape)
"""


def test_a_program_that_initialises_taichi_behind_our_back_is_told_and_not_ended():
    _, *refusals, last = output_of(REINITIALISED).splitlines()  # the first is Taichi's own
    assert len(refusals) == 2
    assert all("ti.init()" in line and "call start() once more" in line for line in refusals)
    assert last == "torch.Size([3, 16])"


THREADS = """
import threading
from taichi_nerf.ops.compositing import composite_rays
taichi_nerf.start("cpu")
together, right = threading.Barrier(4), []

def work():  # two samples of length one, and densities of which each takes half of the light
    together.wait()
    for degree in range(5):
        op(torch.eye(3), degree=degree)
    t, density = torch.arange(2.0), torch.full((2,), torch.tensor(2.0).log().item(), requires_grad=True)
    seen = composite_rays(density, torch.ones(2, 1), t, t + 1, torch.tensor([[0, 2]], dtype=torch.int32))
    seen.color.sum().backward()  # of 1 - exp(-d0 - d1)
    right.append(torch.allclose(seen.color, torch.tensor(0.75)) and torch.allclose(density.grad, torch.tensor(0.25)))

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(right)
"""


def test_the_first_kernels_may_be_launched_by_several_threads_and_none_of_them_the_first():
    """Taichi compiles for one thread at a time, and readies itself on the one that started it."""
    assert output_of(THREADS) == "[True, True, True, True]\n"
