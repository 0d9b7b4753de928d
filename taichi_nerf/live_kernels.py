"""Kernels that change while the program runs: edited files of kernels/, and files of a user's own.

    kernels = LiveKernels(watch=True, own={"compositing": Path("my_kernels.py")}, tell=print_news)
    kernels.poll()            now and then, between launches, on Taichi's thread: True if other kernels run from now on
    kernels.failed(error)     a launch failed: the kernels before come back; False if it was none of ours
    kernels.check()           `check_gradients` of what was changed, as a table

A file of one's own holds kernels with the names and arguments of those that they stand in for. An edited file is read when its
size and time have settled, compiled and tried on a small example; what fails is told with file and line, and the last good
kernels go on.

Taichi reads a kernel's source when it compiles it, which may be long after the file was read and changed again. So every version
keeps its text, under a name of its own, in `linecache`, where Taichi looks.
"""

import contextlib
import importlib
import linecache
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_nerf import kernels as folder_of_kernels
from taichi_nerf.hotswap import compare_gradients, swap
from taichi_nerf.reference import FAMILIES
from taichi_nerf.runtime import current

ROOM = "taichi_nerf.kernels."
VERSION = re.compile(r" \(version \d+\)")
N_TRIAL = 64  # elements of the example that a new kernel is tried on


class KernelError(ValueError):
    """What is wrong with a kernel file, in one line with file and line."""


class News(NamedTuple):
    """What happened to the kernels. kind: "loaded", "failed" or "gradients"."""

    kind: str
    text: str


class Version(NamedTuple):
    """One state of a file."""

    text: str
    code: CodeType


class LiveKernels:
    def __init__(self, watch: bool, own: Mapping[str, Path], tell: Callable[[News], None] = lambda news: None):
        """Puts the user's own files in, tries them and tells of their gradients. `watch`: whether edited files are read again.
        A file that is wrong now raises."""
        self.watches, self.own, self.tell = watch, {name: Path(file).resolve() for name, file in own.items()}, tell
        self._seen: dict[Path, tuple[int, int]] = {}  # time and size of the state that runs, or that failed
        self._candidate: dict[Path, tuple[int, int]] = {}  # that may still be being written
        self._versions: dict[Path, Version] = {}
        self._n_versions = 0
        self._before: dict[str, dict[str, Any]] = {}  # what modules held before the last change, and what waits for its check
        self._to_check: list[str] = []  # families
        for name in self.own:
            if name not in known_files():
                raise KernelError(f"--kernel {name}: there is no such file in kernels/; there are {', '.join(known_files())}")
        for file in self.files():
            if file not in self.own.values():
                self._seen[file], self._versions[file] = _signature(file), self._read(file, freeze=True)
        for name, file in self.own.items():
            before = {ROOM + name: dict(vars(importlib.import_module(ROOM + name)))}
            try:
                with exits_as_errors(file):
                    self._seen[file], self._versions[file] = _signature(file), self._read(file)
                    self._put_in(name, file)
                    for family in families_of([ROOM + name]):
                        try_out(family)
                        self._compare(family)
            except Exception as error:
                _restore(before)
                raise KernelError(explain(error, file)) from error

    def files(self) -> list[Path]:
        """Every file that matters: those of loaded kernels, and the user's own."""
        loaded = [module for name, module in sys.modules.items() if name.startswith(ROOM)]
        found = [Path(str(module.__file__)).resolve() for module in loaded if module.__file__] if self.watches else []
        return [*found, *self.own.values()]

    def poll(self) -> bool:
        """Read what was edited. True if kernels changed; `tell` hears of it, and of what went wrong."""
        changed = [file for file in self.files() if self._has_settled(file)] if self.watches else []
        return bool([file for file in changed if self._renew(file)])

    @property
    def has_to_check(self) -> bool:
        return bool(self._to_check)

    def check(self) -> None:
        """Compare the adjoints of the next changed family with the reference; one that does not compile takes the change back."""
        family = self._to_check.pop(0)
        try:
            with exits_as_errors():
                self._compare(family)
        except Exception as error:
            if not self.failed(error):
                raise

    def _compare(self, family: str) -> None:
        _, table = compare_gradients(family)
        self.tell(News("gradients", table))

    def failed(self, error: Exception) -> bool:
        """Take the last change back, if there is one, and tell why."""
        if not self._before:
            return False
        _restore(self._before)
        self._before, self._to_check = {}, []
        self.tell(News("failed", f"{explain(error)}\nthe kernels before go on"))
        return True

    def _has_settled(self, file: Path) -> bool:
        now = _signature(file)
        if file not in self._seen:  # a kernel module that was loaded meanwhile
            self._seen[file], self._versions[file] = now, self._read(file, freeze=True)
        if now == self._seen[file] or now == (0, 0):
            self._candidate.pop(file, None)
            return False
        settled = self._candidate.get(file) == now
        self._candidate[file] = now
        return settled

    def _renew(self, file: Path) -> bool:
        """Bring the new state of a file in. False, with the old state back, if that fails."""
        self._seen[file] = self._candidate.pop(file)
        former = self._versions[file]
        began = time.monotonic()
        names = self._names(file)
        before = {name: dict(vars(sys.modules[name])) for name in names}
        try:
            with exits_as_errors(file):
                self._versions[file] = self._read(file)
                for name in names:
                    module = sys.modules[name]
                    its_file = Path(str(module.__file__)).resolve()
                    exec(self._versions[its_file].code, vars(module))
                    for own_name, own_file in self.own.items():
                        if name == ROOM + own_name:
                            self._put_in(own_name, own_file)
                families = families_of(names)
                for family in families:
                    try_out(family)
        except Exception as error:
            self._versions[file] = former
            _restore(before)
            self.tell(News("failed", f"{explain(error, file)}\nthe kernels before go on"))
            return False
        # What waits for its check may still have to be taken back, whatever else was edited meanwhile.
        self._before = {**before, **self._before} if self._to_check else before
        self._to_check += [family for family in families if family not in self._to_check]
        self.tell(News("loaded", f"{file.name} in {time.monotonic() - began:.1f} s"))
        return True

    def _names(self, file: Path) -> list[str]:
        """The modules of kernels that a file's change concerns, in the order in which to read them again."""
        for name, own in self.own.items():
            if own == file:
                return [ROOM + name]
        first = ROOM + file.stem
        found = [first]
        for known in found:  # which grows on the way
            for name in sorted(n for n in sys.modules if n.startswith(ROOM) and n not in found):
                text = self._versions[Path(str(sys.modules[name].__file__)).resolve()].text
                if re.search(rf"\b{re.escape(known)}\b", text):
                    found.append(name)
        return found

    def _read(self, file: Path, freeze: bool = False) -> Version:
        """`freeze`: this is the state that Python has loaded; its text is kept for Taichi."""
        text = file.read_text(encoding="utf-8")
        name = str(file)
        if not freeze:
            self._n_versions += 1
            name = f"{file} (version {self._n_versions})"
        code = compile(text, name, "exec")
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        return Version(text, code)

    def _put_in(self, name: str, file: Path) -> None:
        """Run a user's file, and swap its kernels in."""
        target = importlib.import_module(ROOM + name)
        module = ModuleType(f"my_{name}_kernels")
        module.__file__ = str(file)
        sys.modules[module.__name__] = module
        exec(self._versions[file].code, vars(module))
        theirs = {key: value for key, value in vars(target).items() if getattr(value, "__module__", "") == target.__name__}
        chosen = {key: value for key, value in vars(module).items() if key in theirs and callable(value)}
        known = [key for key, value in theirs.items() if hasattr(value, "_primal")]
        if not chosen:
            raise KernelError(f"{file}: has none of the kernels of {name}: {', '.join(known)}")
        swap(target, **chosen)


@contextlib.contextmanager
def exits_as_errors(file: Path | None = None) -> Iterator[None]:
    """What runs in here may not end the program: `sys.exit()` is an error of the kernels' file. A signal still may."""
    try:
        yield
    except SystemExit as end:
        handlers = [getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()]
        if any(frame.f_code in handlers for frame, _ in traceback.walk_tb(end.__traceback__)):
            raise
        raise KernelError(explain(end, file)) from end


def _restore(before: Mapping[str, dict[str, Any]]) -> None:
    """What modules held, by their names."""
    for name, held in before.items():
        module = vars(sys.modules[name])
        module.clear()
        module.update(held)


def known_files() -> list[str]:
    folder = Path(next(iter(folder_of_kernels.__path__)))
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


def families_of(names: list[str]) -> list[str]:
    """The families of operators whose kernels are in these modules."""
    modules = {id(sys.modules[name]) for name in names}
    found = []
    for family in FAMILIES:
        op = sys.modules.get(f"taichi_nerf.ops.{family}")
        if op is not None and any(id(value) in modules for value in vars(op).values() if isinstance(value, ModuleType)):
            found.append(family)
    return found


@torch.no_grad()
def try_out(family: str) -> None:
    """Run the first example of each function of a family: a kernel that does not compile is found before it is needed."""
    op = importlib.import_module(f"taichi_nerf.ops.{family}")
    reference = importlib.import_module(f"taichi_nerf.reference.{family}")
    device, tried = current().torch_device, set()
    for example in reference.examples(N_TRIAL, torch.Generator().manual_seed(0), torch.float32):
        if example.function not in tried:
            tried.add(example.function)
            arguments = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in example.arguments.items()}
            getattr(op, example.function)(**arguments)


def explain(error: BaseException, file: Path | None = None) -> str:
    """file:line: what is wrong."""
    text = VERSION.sub("", str(error)).strip()
    if isinstance(error, SyntaxError):
        place = VERSION.sub("", error.filename or str(file)) + (f":{error.lineno}" if error.lineno else "")
        return f"{place}: {type(error).__name__}: {error.msg}"  # no line: the text as a whole is none of Python's
    places = re.findall(r'File "([^"]+)", line (\d+)', text)  # Taichi's errors quote the kernel's source
    last = [line for line in text.splitlines() if line.strip()][-1:] or [""]
    if places:
        return f"{places[-1][0]}:{places[-1][1]}: {last[0].strip()}"
    if isinstance(error, KernelError):
        return text
    with contextlib.suppress(IndexError):
        frames = traceback.extract_tb(error.__traceback__)
        frame = [f for f in frames if VERSION.search(f.filename) or f.filename.startswith(str(file))][-1]
        return f"{VERSION.sub('', frame.filename)}:{frame.lineno}: {type(error).__name__}: {text}"
    return f"{file}: {type(error).__name__}: {text}" if file is not None else f"{type(error).__name__}: {text}"


def _signature(file: Path) -> tuple[int, int]:
    """(0, 0) while there is no such file, as for a moment when an editor replaces it."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
