"""Run a kernel without Taichi's bookkeeping, which costs as much as a small kernel: 205 → 75 µs with eight arrays on a CPU.

    launch(compositing.composite_rays, density, color, …)        the same as compositing.composite_rays(density, color, …)

Taichi looks at every argument anew in each call: which compiled form of the kernel fits, how the argument is handed over. Both
follow from types and template values alone, so they are remembered here; what is left is to hand over addresses and
numbers. The first call of each form is Taichi's own, and so is every call of a function that is no kernel.

Kernels may be launched from several threads. Taichi compiles for one at a time; what is compiled runs side by side.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import taichi as ti
from taichi.lang import impl
from torch import Tensor

from taichi_nerf import runtime

INTEGERS, FLOATS = (ti.i32, ti.i64), (ti.f32, ti.f64)


class _Form(NamedTuple):
    """A compiled kernel."""

    program: Any
    kernel: Any
    compiled: Any


_forms: dict[Any, _Form] = {}  # by kernel, template values, and types and dimensions of arrays
_manners: dict[Any, str | None] = {}  # by kernel, a letter for each parameter; None: not for us
_watcher: Callable[[str, float], None] | None = None
_launched: set[Callable[..., None]] | None = None
_generation = 0  # of the backend that the forms were compiled for
_taichis_own = threading.RLock()  # a swapped function may launch a kernel itself


@contextlib.contextmanager
def watching(watcher: Callable[[str, float], None]) -> Iterator[None]:
    """Tell of every launch: the kernel's name, and the milliseconds until the device was through with it."""
    global _watcher
    _watcher, former = watcher, _watcher
    try:
        yield
    finally:
        _watcher = former


@contextlib.contextmanager
def launches() -> Iterator[set[Callable[..., None]]]:
    """The kernels that are launched in here, in a set that fills up."""
    global _launched
    former, _launched = _launched, set()
    found = _launched
    try:
        yield found
    finally:
        _launched = former
        if former is not None:
            former |= found


def launch(kernel: Callable[..., None], *arguments: Any) -> None:
    """kernel(*arguments). Tensors have to be contiguous, without history, and on the backend's own device."""
    global _generation
    if _generation != runtime.generation():
        _forms.clear()
        _manners.clear()
        _generation = runtime.generation()
    if kernel not in _manners:
        _manners[kernel] = _manners_of(kernel)
    manners = _manners[kernel]
    runtime.traffic.n_launches += 1
    if _launched is not None:
        _launched.add(kernel)
    before = time.perf_counter()
    if manners is not None and runtime.current().copies:
        _count_copies(kernel, arguments)
    if manners is None:
        with _taichis_own:
            kernel(*arguments)
        return
    key: list[Any] = [kernel]
    for manner, value in zip(manners, arguments, strict=True):
        if manner == "a":
            key += (value.dtype, len(value.shape))
        elif manner == "t":
            key.append(value)
    form = _forms.get(tuple(key))
    if form is None:
        with _taichis_own:
            kernel(*arguments)
            _forms[tuple(key)] = _form_of(kernel, arguments)
    else:
        _run(form, manners, arguments)
    if _watcher is not None:
        ti.sync()
        _watcher(kernel.__name__, 1e3 * (time.perf_counter() - before))


def _count_copies(kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Tensors are copied to the device before a launch, those called out… back after it instead.

    One that a kernel both reads and writes goes both ways; few do, and they are counted once.
    """
    names, waits = [parameter.name for parameter in kernel._primal.arguments], False
    for name, value in zip(names, arguments, strict=True):
        if isinstance(value, Tensor):
            if name.startswith("out"):
                runtime.traffic.downloaded += value.nbytes
                waits = True
            else:
                runtime.traffic.uploaded += value.nbytes
    runtime.traffic.n_waits += waits


def _run(form: _Form, manners: str, arguments: tuple[Any, ...]) -> None:
    context, place = form.kernel.make_launch_context(), 0
    for manner, value in zip(manners, arguments, strict=True):
        if manner == "t":
            continue
        if manner == "i":
            context.set_arg_int((place,), value)
        elif manner == "f":
            context.set_arg_float((place,), value)
        elif isinstance(value, Tensor):
            context.set_arg_external_array_with_shape((place,), value.data_ptr(), value.nbytes, tuple(value.shape), 0)
        else:
            context.set_arg_ndarray((place,), value.arr)
        place += 1
    form.program.launch_kernel(form.compiled, context)


def _manners_of(kernel: Any) -> str | None:
    """How each parameter is handed over: t(emplate), a(rray), i(nteger), f(loat)."""
    if not (hasattr(kernel, "_primal") and kernel._primal.func is kernel.__wrapped__):  # not even a function around a kernel
        return None
    letters = ""
    for parameter in kernel._primal.arguments:
        annotation = parameter.annotation
        if isinstance(annotation, ti.template):
            letters += "t"
        elif isinstance(annotation, ti.types.ndarray):
            letters += "a"
        elif annotation in INTEGERS:
            letters += "i"
        elif annotation in FLOATS:
            letters += "f"
        else:
            return None
    return letters


def _form_of(kernel: Any, arguments: tuple[Any, ...]) -> _Form:
    """What Taichi has just compiled for these arguments."""
    primal, program = kernel._primal, impl.get_runtime().prog
    instance, _ = primal.mapper.lookup(arguments)
    found = primal.compiled_kernels[(primal.func, instance, primal.autodiff_mode)]
    return _Form(program, found, program.compile_kernel(program.config(), program.get_device_caps(), found))
