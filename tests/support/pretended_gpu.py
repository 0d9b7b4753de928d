"""A GPU of torch's that is not there: where tensors lie, and what makes the host wait, by what torch documents of CUDA.

Within `pretended_gpu()` the backend calls itself cuda, so ops take the kernels of GPUs, and tensors on "cuda" are tensors on the
CPU that are remembered as being there. What CUDA refuses is refused (tensors of two devices in one operation, a generator of the
other device, `.numpy()`), so are kernels given the host's memory. What makes the host wait for the device is written down; what
waits for an event by itself: for what had been given before it, while the device goes on with what was given since.
"""

import contextlib
import sys
import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from taichi_nerf import launch as launching
from taichi_nerf import runtime

GPU, HOST = torch.device("cuda"), torch.device("cpu")
ROOT = Path(runtime.__file__).parent
# What they give is a number, or has a size, that the host has to know.
TELLING = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive", "equal"}
SMALL = 2**10  # bytes of unpinned memory that are taken at once: 64 KiB, but that steps of tests are as much smaller
FROM_HOST = {torch.tensor, torch.as_tensor, torch.from_numpy, torch.frombuffer}


def tensors_in(found):
    return [x for x in tree_leaves(found) if isinstance(x, torch.Tensor)]


class Places:
    """Which memory is on the GPU: by address, as views share it. Memory that nobody said anything about may be anywhere."""

    def __init__(self):
        self.of, self.waits, self.pinned = {}, [], set()
        self.looks = []  # (our function, how many operations were given since what it waits for)
        self.n_given = self.n_reached = 0  # operations that were given, and those that are known to be through

    def get(self, tensor):
        address = tensor.untyped_storage().data_ptr()
        return self.of.get(address) if address else getattr(tensor, "_place", None)

    def put(self, found, place):
        for tensor in tensors_in(found):
            if address := tensor.untyped_storage().data_ptr():
                self.of[address] = place
                self.pinned.discard(address)
            else:
                tensor._place = place

    def wait(self, what):
        """Write down what waits, and in which function of ours."""
        self.n_reached = self.n_given
        self.waits.append((self.ours(), what))

    @staticmethod
    def ours():
        """The function of ours that runs; of one that reads later, who asks."""
        frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ROOT)]
        names = [f"{Path(frame.filename).stem}.{frame.name}" for frame in frames]
        return next((name for name in reversed(names) if not name.startswith("later.")), "")


class _Functions(TorchFunctionMode):
    """What Python asks of torch."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, places = dict(kwargs or {}), self.places
        kwargs.pop("pin_memory", None)
        if func == torch.Tensor.device.__get__:
            return GPU if places.get(args[0]) == GPU else HOST
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._moved(func, args, kwargs)
        if func is torch.Tensor.pin_memory:
            pinned = args[0].clone()
            places.put(pinned, HOST)
            places.pinned.add(pinned.untyped_storage().data_ptr())
            return pinned
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and places.get(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is torch.Tensor.tolist and places.get(args[0]) == GPU:
            places.wait("tolist")
        device = kwargs.get("device")
        if device is None:
            found = func(*args, **kwargs)
            if func is torch.Tensor.new_tensor and places.get(args[0]) == GPU:
                places.wait("new_tensor")
                places.put(found, GPU)
            elif func in FROM_HOST or (isinstance(found, torch.Tensor) and not tensors_in(args)):
                places.put(found, HOST)
            return found
        device, generator = torch.device(device), kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise RuntimeError(f"Expected a '{device.type}' device type for generator but found '{generator.device.type}'")
        if device.type == "cuda" and func in FROM_HOST:
            places.wait(func.__name__)
        found = func(*args, **{**kwargs, "device": HOST})
        places.put(found, torch.device(device.type))
        return found

    def _moved(self, func, args, kwargs):
        """`Tensor.to`, in all its forms."""
        (tensor, *rest), here = args, self.places.get(args[0])
        if rest and isinstance(rest[0], torch.Tensor):
            rest[:1] = [rest[0].dtype, GPU if self.places.get(rest[0]) == GPU else HOST]
        rest += [x for x in (kwargs.get("device"), kwargs.get("dtype")) if x is not None]
        if func is not torch.Tensor.to:
            rest.append("cpu" if func is torch.Tensor.cpu else "cuda")
        device = next((torch.device(torch.device(x).type) for x in rest if isinstance(x, str | torch.device)), here)
        dtype = next((x for x in rest if isinstance(x, torch.dtype)), tensor.dtype)
        flags = [x for x in rest if isinstance(x, bool)]  # non_blocking, copy
        non_blocking, copies = kwargs.get("non_blocking", flags[:1] == [True]), kwargs.get("copy", flags[1:2] == [True])
        out = torch.Tensor.to(tensor, dtype)
        if here is not None and device != here:
            is_taken = tensor.untyped_storage().data_ptr() in self.places.pinned or tensor.nbytes <= SMALL
            if not (non_blocking and device == GPU and is_taken):
                self.places.wait(f"to {device.type}")
            copies = True
        out = out.clone() if copies and out is tensor else out
        self.places.put(out, device)
        return out


class _Operations(TorchDispatchMode):
    """What torch does."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, places, name = kwargs or {}, self.places, func.__name__.split(".")[0]
        inputs = tensors_in((args, kwargs))
        known = {places.get(x) for x in inputs} - {None}
        if GPU in known:
            places.n_given += 1
            self._check(name, args, kwargs, inputs, known)
        found = func(*args, **kwargs)
        addresses = {x.untyped_storage().data_ptr() for x in inputs} - {0}
        place = GPU if GPU in known else HOST if known else None
        places.put([x for x in tensors_in(found) if x.untyped_storage().data_ptr() not in addresses], place)
        return found

    def _check(self, name, args, kwargs, inputs, known):
        if name in ("copy_", "_to_copy"):
            if HOST in known and not any(args[2:]):
                self.places.wait(name)
            return
        indices = tensors_in(args[1]) if name in ("index", "index_put_", "_index_put_impl_") else []
        if name in TELLING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.places.wait(name)
        elif any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            self.places.wait(f"{name} by a mask")
        strangers = [x for x in inputs if self.places.get(x) == HOST and x.dim() and not any(x is y for y in indices)]
        if strangers:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda and cpu")


@contextlib.contextmanager
def pretended_gpu():
    """Yields `Places`, whose `waits` lists (our function, what waited) in turn. Needs the cpu backend."""
    places, former, real, engine = Places(), runtime._current, launching.launch, torch.autograd._engine_run_backward
    functions, upload, stream = _Functions(places), runtime.DeviceArray.copy_, torch.cuda.current_stream
    grouping = torch.optim.Optimizer._group_tensors_by_device_and_dtype
    ours = [module for name, module in sys.modules.items() if name.startswith("taichi_nerf.")]
    users = [module for module in ours if vars(module).get("launch") is real]

    def grouped(lists, *options):
        """For optimisers: by the devices that tensors are said to be on."""
        found = grouping(lists, *options)
        return {(GPU if places.get(group[0][0][0]) == GPU else HOST, dtype): group for (_, dtype), group in found.items()}

    class Event:
        def __init__(self):
            self.number = places.n_given

        def synchronize(self):
            if self.number > places.n_reached:
                places.looks.append((places.ours(), places.n_given - self.number))
                places.n_reached = self.number

    class Stream:
        def record_event(self):
            return Event()

    def launch(kernel, *arguments):
        if any(isinstance(x, torch.Tensor) and places.get(x) == HOST for x in arguments):
            raise RuntimeError(f"{kernel.__name__} was given the host's memory, which Taichi would copy and wait for")
        places.n_given += 1
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            real(kernel, *arguments)

    def run_backward(*arguments, **options):
        with functions:  # which `Tensor.backward` has left, and our own functions run Python again
            return engine(*arguments, **options)

    def copy_(array, values):
        places.wait("DeviceArray.copy_")
        upload(array, values)

    try:
        runtime.DeviceArray.copy_, torch.cuda.current_stream = copy_, lambda device: Stream()
        torch.optim.Optimizer._group_tensors_by_device_and_dtype = staticmethod(grouped)
        runtime._current = runtime.Backend("cuda", "pretended", copies=False, n_threads=former.n_threads)
        torch.autograd._engine_run_backward = run_backward
        for module in users:
            module.launch = launch
        with functions, _Operations(places):
            yield places
    finally:
        runtime.DeviceArray.copy_, torch.cuda.current_stream = upload, stream
        torch.optim.Optimizer._group_tensors_by_device_and_dtype = staticmethod(grouping)
        runtime._current, torch.autograd._engine_run_backward = former, engine
        for module in users:
            module.launch = real
        for value in [value for module in ours for value in vars(module).values()]:
            if hasattr(value, "cache_clear") and value is not runtime.probe:  # tensors that were uploaded to nowhere
                value.cache_clear()
