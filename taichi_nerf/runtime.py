"""The one door to Taichi: start a backend, tell which one runs, hold lasting arrays on it.

`start("auto")` takes the first that works of cuda, metal, vulkan on a real GPU, cpu. A backend that was asked for by name
and does not work is an error with its reason, never a quiet fall back to the CPU.

Every backend is first tried in a process of its own, because a broken driver can end the process that loads it.
"""

import contextlib
import ctypes.util
import functools
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import taichi as ti

from taichi_nerf.kernels import probe as probe_kernels

if TYPE_CHECKING:
    import torch

PREFERENCE = ("cuda", "metal", "vulkan", "cpu")
# Drivers that emulate a GPU on the processor: Vulkan works on them, but the CPU backend is faster.
SOFTWARE_DEVICES = re.compile(r"llvmpipe|lavapipe|swiftshader|softpipe", re.IGNORECASE)


class BackendError(RuntimeError):
    """A backend that was asked for does not work here, or none was started."""


@dataclass(frozen=True)
class Backend:
    """The backend that runs. `copies` tells whether a torch tensor argument is copied at every launch."""

    arch: str
    device_name: str
    copies: bool
    n_threads: int

    @property
    def is_software(self) -> bool:
        """Whether the device is a GPU that a driver emulates on the processor."""
        return SOFTWARE_DEVICES.search(self.device_name) is not None

    @property
    def torch_device(self) -> "torch.device":
        """Where the tensors of the ops live: the GPU for cuda; the host for all others, torch has no Vulkan."""
        import torch

        return torch.device("cuda" if self.arch == "cuda" else "cpu")


@dataclass(frozen=True)
class Probe:
    """What trying a backend told: works or not, on which device, and if not, why."""

    arch: str
    works: bool
    device_name: str = ""
    reason: str = ""

    @property
    def is_software(self) -> bool:
        return SOFTWARE_DEVICES.search(self.device_name) is not None


@dataclass
class Traffic:
    """What crossed between host and device so far, on backends that copy, and how many kernels were launched on any."""

    n_launches: int = 0
    n_waits: int = 0  # of the host for the device
    uploaded: int = 0  # bytes, as are
    downloaded: int = 0
    allocated: int = 0  # of DeviceArrays
    peak: int = 0  # of these at a time

    def allocate(self, n_bytes: int) -> None:
        self.allocated += n_bytes
        self.peak = max(self.peak, self.allocated)


LONG_LOCKED = 60.0  # seconds

traffic = Traffic()
_current: Backend | None = None
_program: Any = None  # Taichi's own, of the backend that runs
_generation = 0
NONE_RUNS = 'no backend is running: call taichi_nerf.start("auto") once, before the first op'
ENDED = (
    "a ti.init() or ti.reset() that is not taichi_nerf.start()'s ended the backend: leave it out, as Taichi is initialised after "
    "start(), or call start() once more"
)
_is_fork = False  # of a process in which a backend ran: its threads did not come along, and a kernel would wait for them for ever
FORKED = (
    "this process was forked from one in which a backend was running, and kernels cannot run in it: start the backend in the "
    'child alone, or make children by "spawn" (torch.utils.data.DataLoader: multiprocessing_context="spawn")'
)


def start(arch: str = "auto", n_threads: int | None = None) -> Backend:
    """Start `arch` ("auto", "cuda", "metal", "vulkan" or "cpu") and return it; the one that already runs is kept.

    Starting another backend ends the first: kernels recompile by themselves, DeviceArrays have to be made anew.
    """
    global _current, _program, _generation
    if arch not in ("auto", *PREFERENCE):
        raise BackendError(f"unknown backend {arch!r}: choose auto, {', '.join(PREFERENCE)}")
    if n_threads is not None and not (isinstance(n_threads, int) and n_threads >= 1):
        raise ValueError(f"n_threads: expected 1 or more, or None for all, got {n_threads!r}")
    if _is_fork:
        raise BackendError(FORKED)
    if arch == "auto":
        arch = choose()
    if _current is not None and _is_running() and _current.arch == arch and n_threads in (None, _current.n_threads):
        return _current
    threads = n_threads or available_threads()
    found = probe(arch)
    if not found.works:
        raise BackendError(f"the {arch} backend does not work here: {found.reason}. `taichi-nerf backends` tells which do")
    _current = None
    with contextlib.redirect_stdout(io.StringIO()):  # Taichi prints "Starting on arch=…" unconditionally
        # fast_math off: it costs nothing measurable, keeps sines exact to 1e-7 instead of 3e-5, and lets the two passes
        # of the ray marcher round alike.
        ti.init(
            arch=getattr(ti, arch),
            enable_fallback=False,
            fast_math=False,
            cpu_max_num_threads=threads,
            log_level=ti.ERROR,
            **cache_of_kernels(),
        )
    started = ti.lang.impl.current_cfg().arch
    if started != getattr(ti, arch):
        raise BackendError(f"asked for {arch}, Taichi started {started}: is the environment variable TI_ARCH set? Unset it")
    _open_cache(ti.lang.impl.current_cfg().offline_cache_file_path)
    ti.lang.impl.get_runtime().materialize()  # else the first kernel does, and fails on any other thread than this one
    _generation, _program = _generation + 1, ti.lang.impl.get_runtime().prog
    _current = Backend(arch, found.device_name, copies=arch in ("vulkan", "metal"), n_threads=threads)
    return _current


def _open_cache(folder: str) -> None:
    """Remove the lock of a process that was killed while it kept what it had compiled: Taichi would keep nothing any more, and
    every later process would compile anew. A lock is needed for a second or two."""
    lock = os.path.join(folder, "ticache.lock")
    with contextlib.suppress(OSError):
        if time.time() - os.path.getmtime(lock) > LONG_LOCKED:
            os.unlink(lock)


def current() -> Backend:
    """The backend that runs; an error that says what to do when none does."""
    if _current is None:
        raise BackendError(FORKED if _is_fork else NONE_RUNS)
    if not _is_running():
        raise BackendError(ENDED)
    return _current


def _is_running() -> bool:
    """Whether Taichi still is as `start` left it: to launch what was compiled before another ti.init ends the process."""
    return ti.lang.impl.get_runtime().prog is _program


def _forked() -> None:
    global _current, _is_fork
    _current, _is_fork = None, _generation > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def generation() -> int:
    """How often a backend was started: what was compiled for, or allocated on, an earlier one is gone."""
    return _generation


def choose() -> str:
    """The backend that "auto" stands for on this machine."""
    for arch in PREFERENCE:
        found = probe(arch)
        if found.works and not found.is_software:
            return arch
    raise BackendError("no backend works here, not even the CPU: " + probe("cpu").reason)


@functools.cache
def probe(arch: str) -> Probe:
    """Try `arch` in a process of its own and tell how it went. The answer is kept for the life of this process."""
    if arch == "cpu":
        return Probe("cpu", works=True, device_name=processor_name())  # Taichi always has it
    reason = missing_driver(arch)
    if reason:
        return Probe(arch, works=False, reason=reason)
    # With the modules of this process: `-m` alone would look for them in the current folder first, where a random.py of the
    # user's would pass for a broken driver, and a GPU for none.
    code = f"import sys; sys.path[:] = {sys.path!r}; from taichi_nerf import runtime; runtime._try_here({arch!r})"
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, errors="replace")
    except subprocess.TimeoutExpired:
        return Probe(arch, works=False, reason="its driver did not answer within two minutes")
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines and lines[-1].startswith("{"):
        name = json.loads(lines[-1])["device_name"] or device_name_in_log(done.stdout + done.stderr)
        return Probe(arch, works=True, device_name=name or "unnamed device")
    if done.returncode < 0:
        return Probe(arch, works=False, reason=f"its driver ended the test process (signal {-done.returncode})")
    complaint = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    if "is not supported" in complaint:
        complaint = f"Taichi finds no usable {arch} device or driver"
    return Probe(arch, works=False, reason=complaint)


def missing_driver(arch: str) -> str:
    """Why `arch` cannot work, where that can be told without loading a driver; empty if it may."""
    if arch == "metal":
        return "" if sys.platform == "darwin" else "Metal exists on macOS only"
    if sys.platform == "darwin" and arch == "cuda":
        return "CUDA does not exist on macOS"
    if arch == "vulkan" and sys.platform.startswith("linux") and not ctypes.util.find_library("vulkan"):
        return "the Vulkan loader (libvulkan.so.1, Debian package libvulkan1) is not installed"
    if arch == "cuda":
        import torch

        if torch.version.cuda is None:
            return "the installed torch is a build without CUDA"
        # Not `is_available`: it starts CUDA in this process, for which CUDA_VISIBLE_DEVICES then counts as it is now, and
        # processes that train together could no longer take a GPU each.
        if not torch.cuda.device_count():
            return "torch finds no CUDA device"
    return ""


def cache_of_kernels() -> dict[str, Any]:
    """What to tell `ti.init` of the folder in which compiled kernels are kept from one process to the next: nothing, or where it
    cannot be written to (a home that is somebody else's, or none) to keep none. Taichi would end with a crash there, all done."""
    named = os.environ.get("TI_OFFLINE_CACHE_FILE_PATH") or ti.lang.impl.default_cfg().offline_cache_file_path
    try:
        os.makedirs(named, exist_ok=True)
        with tempfile.TemporaryFile(dir=named):
            return {}
    except OSError:
        return {"offline_cache": False, "offline_cache_file_path": tempfile.gettempdir()}  # in which it writes nothing then


def processor_name() -> str:
    if sys.platform == "darwin":  # where platform.processor() is "arm" of all of them
        with contextlib.suppress(OSError):
            told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True).stdout.strip()
            if told:
                return told
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_threads() -> int:
    """Cores this process may use: a container's share, not the whole machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max", encoding="ascii") as limit:
        quota, period = limit.read().split()  # "max" where there is no quota: no number
        return max(1, min(cores, -(-int(quota) // int(period))))
    return cores


def device_name_in_log(log: str) -> str:
    """Taichi has no call for a device's name, but its trace log says it."""
    found = re.search(r'Vulkan Device "(.+?)" supports', log) or re.search(r"Device name:? *(.+)", log)
    return found.group(1).strip() if found else ""


def _try_here(arch: str) -> None:
    """The body of a probe: start, compute, check; the last line of standard output is the answer as JSON."""
    import numpy

    ti.init(arch=getattr(ti, arch), enable_fallback=False, log_level=ti.TRACE, **(cache_of_kernels() | {"offline_cache": False}))
    values = ti.ndarray(ti.f32, shape=(8,))
    values.from_numpy(numpy.arange(8, dtype=numpy.float32))
    probe_kernels.square(values)
    if not numpy.array_equal(values.to_numpy(), numpy.arange(8) ** 2):
        raise SystemExit("its test kernel computed wrong numbers")
    name = ""
    if arch == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    elif arch == "metal":
        name = processor_name()  # Apple's chips are both
    print("\n" + json.dumps({"device_name": name}), flush=True)


class DeviceArray:
    """A lasting array in the backend's own memory, with its gradient beside it.

    On Vulkan and Metal a torch tensor argument is copied at every launch (64 MB: 30 ms in, 60 ms out); an array like this
    is not (0.05 ms). Ops that read parameters or occupancy take one wherever they take the tensor. Its gradient is
    *added* to `grad` by every backward pass, as torch does with a leaf; `zero_grad()` clears it.
    """

    def __init__(self, values: "torch.Tensor", requires_grad: bool = False):
        self._allocate(tuple(values.shape), values.dtype, requires_grad)
        self.copy_(values)
        self.zero_grad()

    @classmethod
    def empty(cls, *shape: int, dtype: "torch.dtype", requires_grad: bool = False) -> "DeviceArray":
        """An array for a kernel to fill: nothing is uploaded."""
        array = cls.__new__(cls)
        array._allocate(shape, dtype, requires_grad)
        return array

    def _allocate(self, shape: tuple[int, ...], dtype: "torch.dtype", requires_grad: bool) -> None:
        import torch

        current()
        self.shape, self.dtype, self.requires_grad = shape, dtype, requires_grad
        self._generation = _generation
        self._data = _ndarray(dtype, shape)
        self._grad = _ndarray(dtype, shape) if requires_grad else None
        self.nbytes = math.prod(shape) * dtype.itemsize
        n_bytes = self.nbytes * (1 + requires_grad)
        traffic.allocate(n_bytes)
        weakref.finalize(self, traffic.allocate, -n_bytes)
        # What autograd sees of this array: a tensor without elements whose history leads backward to the op.
        self.anchor = torch.zeros(0, dtype=torch.float32, requires_grad=requires_grad)

    @property
    def data(self) -> Any:
        return self._alive(self._data)

    @property
    def grad(self) -> Any:
        return self._alive(self._grad)

    def copy_(self, values: "torch.Tensor") -> None:
        """Upload. Shape and dtype have to be the array's own."""
        if tuple(values.shape) != self.shape or values.dtype != self.dtype:
            raise ValueError(f"expected {self.dtype} of shape {self.shape}, got {values.dtype} of {tuple(values.shape)}")
        traffic.uploaded += self.nbytes
        self.data.from_numpy(values.detach().cpu().contiguous().numpy())

    def to_torch(self) -> "torch.Tensor":
        """Download the values."""
        return _downloaded(self.data)

    def grad_to_torch(self) -> "torch.Tensor":
        """Download the gradient."""
        if self._grad is None:
            raise ValueError("this DeviceArray was made without requires_grad")
        return _downloaded(self.grad)

    def zero_grad(self) -> None:
        if self._grad is not None:
            self.grad.fill(0)

    def _alive(self, array: Any) -> Any:
        current()
        if self._generation != _generation:
            raise BackendError("this DeviceArray belongs to a backend that was ended by a later start(); make it anew")
        return array


def _ndarray(dtype: "torch.dtype", shape: tuple[int, ...]) -> Any:
    import torch

    types = {torch.float32: ti.f32, torch.float64: ti.f64, torch.float16: ti.f16, torch.int32: ti.i32, torch.uint8: ti.u8}
    if dtype not in types:
        raise TypeError(f"a DeviceArray holds float16, float32, float64, int32 or uint8, not {dtype}")
    return ti.ndarray(types[dtype], shape=shape)


def _downloaded(array: Any) -> "torch.Tensor":
    import torch

    values = array.to_numpy()
    traffic.n_waits += 1
    traffic.downloaded += values.nbytes
    return torch.from_numpy(values).to(current().torch_device)
