"""Checkpoints: exact, atomic, and honest about what is wrong with one."""

import errno
import io
import json
import math
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from taichi_nerf.training import atomic, tensor_file
from taichi_nerf.training.atomic import replacing
from taichi_nerf.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

UNIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="limits and kill -9 are of Unix")
TYPES = list(tensor_file.NAMES)


def equal(a, b):
    """Same structure, same types, same bits."""
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        return same and torch.equal(tensor_file_bytes(a), tensor_file_bytes(b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and list(map(type, a)) == list(map(type, b)) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


def tensor_file_bytes(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def there_and_back(file, state):
    save_checkpoint(file, state, {})
    return load_checkpoint(file)[0]


def numbers(dtype, *shape):
    """Random bits of this type (NaNs and infinities among them)."""
    n_bytes = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(n_bytes)
    high = 2 if dtype == torch.bool else 256
    return torch.randint(0, high, (n_bytes,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tensors_of_every_type_and_shape_come_back_bit_for_bit(dtype, tmp_path):
    state = {"tensors": [numbers(dtype, *shape) for shape in [(), (1,), (7,), (3, 5), (0,), (2, 0, 3), (2, 3, 4)]]}
    assert equal(there_and_back(tmp_path / "x", state), state)


def test_views_with_gaps_come_back_as_they_look(tmp_path):
    table = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    looks = [
        table.t(),
        table[:, ::3],
        table[1:3, 4:9],
        table[0, 0].expand(4, 4),
        table[0, ::12],
        torch.view_as_complex(table.reshape(-1, 2)).conj(),
    ]
    for look, back in zip(looks, there_and_back(tmp_path / "x", {"looks": looks})["looks"], strict=True):
        assert torch.equal(look, back)


def test_a_tensor_in_several_places_is_kept_once_and_comes_back_as_one(tmp_path):
    shared = torch.randn(10_000)
    state = there_and_back(tmp_path / "x", {"a": shared, "b": [shared, shared[:50], shared.detach()]})
    assert state["a"] is state["b"][0] is state["b"][2]
    assert torch.equal(state["b"][1], shared[:50])
    assert (tmp_path / "x").stat().st_size < 42_000


def test_numpy_arrays_of_any_layout_come_back(tmp_path):
    table = np.arange(12.0).reshape(3, 4)
    frozen = np.arange(3, dtype=np.uint32)
    frozen.flags.writeable = False
    arrays = [table.T, table[::2, ::3], np.array(2.5), np.zeros((0, 2), np.int16), frozen, np.array([True]), table[::-1]]
    assert equal(there_and_back(tmp_path / "x", {"a": arrays})["a"], arrays)
    assert np.array_equal(there_and_back(tmp_path / "x", {"a": table.astype(">f4")})["a"], table)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.sampled_from(["~tensor", "~", "__metadata__", "a.b", "a"])
TREES = st.recursive(
    SCALARS | st.builds(torch.arange, st.integers(0, 4)) | st.builds(np.arange, st.integers(0, 4)),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text(), TREES, max_size=5))
def test_any_state_comes_back_as_it_was(tmp_path_factory, state):
    assert equal(there_and_back(tmp_path_factory.mktemp("any") / "x", state), state)


def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    """Modules, optimisers and random states, as torch and NumPy give them."""

    def made():
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        parts = [{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[2].parameters(), "betas": (0.8, 0.9)}]
        return model, torch.optim.Adam(parts), torch.Generator().manual_seed(4), np.random.default_rng(5)

    def train(model, optimizer, generator, randomness, n_steps):
        for _ in range(n_steps):
            x = torch.randn(16, 3, generator=generator) + float(randomness.normal())
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    straight, first, second = made(), made(), made()
    train(*straight, 20)
    train(*first, 9)
    model, optimizer, generator, randomness = first
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
    state |= {"numpy": randomness.bit_generator.state, "legacy": np.random.RandomState(2).get_state()}
    save_checkpoint(tmp_path / "x", state, {})
    back, _ = load_checkpoint(tmp_path / "x")
    assert isinstance(model.state_dict(), OrderedDict)
    assert equal(back, state | {"model": dict(model.state_dict())})
    model, optimizer, generator, randomness = second
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    generator.set_state(back["generator"])
    randomness.bit_generator.state = back["numpy"]
    np.random.RandomState().set_state(back["legacy"])
    train(*second, 11)
    assert equal(dict(second[0].state_dict()), dict(straight[0].state_dict()))


def test_any_reader_of_safetensors_opens_it(tmp_path):
    state = {
        "model": {"table.weight": torch.randn(7, 3), "half": torch.randn(5).bfloat16()},
        "seen": torch.zeros(3, dtype=torch.bool),
    }
    save_checkpoint(tmp_path / "x", {**state, "step": 3}, {"arch": "cpu"})
    read = load_file(tmp_path / "x")
    assert sorted(read) == ["model.half", "model.table.weight", "seen"]
    assert equal(read["model.table.weight"], state["model"]["table.weight"])
    assert equal(read["model.half"], state["model"]["half"])
    with safe_open(tmp_path / "x", "pt") as opened:
        assert opened.metadata()["arch"] == "cpu"
        assert json.loads(opened.metadata()["state"])["step"] == 3
    assert load_checkpoint(tmp_path / "x")[1] == {"arch": "cpu"}


def test_what_a_checkpoint_cannot_hold_is_named_and_nothing_is_written(tmp_path):
    for state, told in (
        ({"a": {"b": [1, object()]}}, r"a\.b\.1: a checkpoint cannot hold a object"),
        ({"a": {frozenset(): 1}}, "a: a checkpoint cannot hold a key that is a frozenset"),
        ({"a": (1, np.array(["x"]))}, r"a\.1: a checkpoint cannot hold an array of <U1"),
        ({"a": torch.ones(2).to_sparse()}, "a: a checkpoint cannot hold a sparse"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, "a: a checkpoint cannot hold a tensor of torch.complex128"),
    ):
        with pytest.raises(TypeError, match=told):
            save_checkpoint(tmp_path / "x", state, {})
    for metadata in ({"state": "x"}, {"n": 3}):
        with pytest.raises(TypeError, match="metadata has to be texts under keys other than format, state, checksum"):
            save_checkpoint(tmp_path / "x", {}, metadata)
    assert list(tmp_path.iterdir()) == []


@UNIX
def test_saving_and_loading_hold_no_second_copy(tmp_path):
    """128 MB in 16 tensors."""
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "state = {'t': [torch.full((2**21,), float(i)) for i in range(16)]}\n"
        "save_checkpoint(Path(sys.argv[1]), {'t': torch.ones(9)}, {}); load_checkpoint(Path(sys.argv[1]))\n"
        "before = peak(); save_checkpoint(Path(sys.argv[1]), state, {}); saved = peak()\n"
        "back = load_checkpoint(Path(sys.argv[1])); print(saved - before, peak() - saved)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True)
    saving, loading = map(float, done.stdout.split())
    assert saving < 16, done.stderr
    assert loading < 128 + 24


# -- what goes wrong


@UNIX
def test_a_full_disk_leaves_the_former_checkpoint(tmp_path):
    """A limit on the size of files is the full disk that a test can have."""
    file = tmp_path / "x"
    save_checkpoint(file, {"step": 1}, {})
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from taichi_nerf.training.checkpoint import CheckpointError, save_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "try: save_checkpoint(Path(sys.argv[1]), {'step': 2, 'table': torch.zeros(3 * 2**20)}, {})\n"
        "except CheckpointError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{file}: could not be written (File too large): it needs 12.0 MiB, "), done.stderr
    assert done.stdout.endswith(" MiB are available; the former checkpoint is as it was\n")
    assert load_checkpoint(file)[0] == {"step": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_no_space_left_at_any_moment_leaves_the_former_checkpoint(when, tmp_path, monkeypatch):
    file = tmp_path / "x"
    save_checkpoint(file, {"step": 1}, {})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"write": "taichi_nerf.training.checkpoint.write_tensors", "fsync": "os.fsync", "replace": "os.replace"}[when]
    monkeypatch.setattr(target, full)
    with pytest.raises(
        CheckpointError, match=r"x: could not be written \(No space left on device\): it needs 0.0 MiB, .* as it was$"
    ):
        save_checkpoint(file, {"step": 2}, {})
    monkeypatch.undo()
    assert load_checkpoint(file)[0] == {"step": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_missing_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"no/x: could not be written \(No such file or directory\): it needs 0.0 MiB$"):
        save_checkpoint(tmp_path / "no" / "x", {}, {})


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint

torch.set_num_threads(1)
file, chance, last = Path(sys.argv[1]), random.Random(1), 0
save_checkpoint(file, {"step": 0, "table": torch.zeros(300_000)}, {})
for _ in range(10):
    child = os.fork()
    if child == 0:
        while True:
            last += 1
            save_checkpoint(file, {"step": last, "table": torch.full((300_000,), float(last))}, {})
    time.sleep(chance.uniform(0.02, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    state, _ = load_checkpoint(file)
    assert state["step"] >= last and (state["table"] == state["step"]).all(), (state, last)
    last = state["step"]
save_checkpoint(file, {"step": last}, {})
print(last, *(f.name for f in file.parent.iterdir()))
"""


@UNIX
def test_a_process_killed_at_any_moment_leaves_a_whole_checkpoint_and_nothing_that_stays(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "x")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last, *files = done.stdout.split()
    assert int(last) > 0
    assert files == ["x"]


def test_what_a_killed_process_left_goes_with_the_next_save_and_nothing_else(tmp_path):
    left, others = tmp_path / ".x.1234abcd.partial", [tmp_path / ".y.1234abcd.partial", tmp_path / ".x.notes"]
    for file in (left, *others):
        file.write_bytes(b"half")
    save_checkpoint(tmp_path / "x", {}, {})
    assert not left.exists()
    assert all(file.exists() for file in others)


@UNIX
def test_two_that_save_at_once_do_not_disturb_each_other(tmp_path):
    """The last to end wins, and neither takes the other's half-written file for an abandoned one."""
    file = tmp_path / "x"
    with replacing(file) as slow:
        slow.write(b"slow ")
        save_checkpoint(file, {"step": 1}, {})
        assert load_checkpoint(file)[0] == {"step": 1}
        slow.write(b"but whole")
    assert file.read_bytes() == b"slow but whole"
    assert list(tmp_path.iterdir()) == [file]


def refusing(monkeypatch, n_times):
    """`os.replace` as on Windows, where somebody has the former file open so many times."""
    replace, refused, waits = os.replace, [], []

    def refuse(source, target):
        if len(refused) < n_times:
            refused.append(target)
            raise PermissionError(13, "Access is denied", str(target))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", refuse)
    monkeypatch.setattr(atomic.time, "sleep", waits.append)
    return waits


def test_where_a_file_that_is_read_cannot_be_replaced_it_is_once_it_is_closed(tmp_path, monkeypatch):
    """A viewer that opens a run while it is trained ended the training on Windows."""
    save_checkpoint(tmp_path / "x", {"step": 1}, {})
    waits = refusing(monkeypatch, 3)
    save_checkpoint(tmp_path / "x", {"step": 2}, {})
    assert load_checkpoint(tmp_path / "x")[0] == {"step": 2}
    assert waits == list(atomic.WAITS[:3])


def test_a_file_that_stays_refused_is_told_and_the_former_checkpoint_is_as_it_was(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "x", {"step": 1}, {})
    refusing(monkeypatch, 100)
    with pytest.raises(CheckpointError, match=r"Access is denied.*the former checkpoint is as it was"):
        save_checkpoint(tmp_path / "x", {"step": 2}, {})
    assert load_checkpoint(tmp_path / "x")[0] == {"step": 1}
    assert os.listdir(tmp_path) == ["x"]


def test_what_a_killed_process_left_is_closed_before_it_is_removed(tmp_path, monkeypatch):
    """Windows removes no open file, so that whatever was left half-written stayed for ever."""
    left, unlink, closed = tmp_path / ".x.1234abcd.partial", Path.unlink, []
    left.write_bytes(b"half")
    monkeypatch.setattr(atomic, "try_lock", lambda stream: closed.append(stream) is None)
    monkeypatch.setattr(Path, "unlink", lambda file, **options: unlink(file, **options) if closed[0].closed else None)
    atomic.remove_abandoned(tmp_path / "x")
    assert not left.exists()


def complaint(file):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    return str(caught.value).removeprefix(f"{file}: ")


def test_every_shortened_file_is_noticed(tmp_path):
    file = tmp_path / "x"
    save_checkpoint(file, {"a": torch.arange(9), "b": "text"}, {})
    whole = file.read_bytes()
    for n in range(len(whole)):
        file.write_bytes(whole[:n])
        assert complaint(file)
    file.write_bytes(whole + b"\0")
    assert complaint(file) == f"is too long: has {len(whole) + 1} of {len(whole)} bytes"
    file.write_bytes(whole[:-1])
    assert complaint(file) == f"is cut off: has {len(whole) - 1} of {len(whole)} bytes"


def test_every_flipped_bit_is_noticed(tmp_path):
    file = tmp_path / "x"
    save_checkpoint(file, {"a": torch.arange(9), "b": "text"}, {})
    whole = file.read_bytes()
    for i in range(len(whole)):
        for bit in range(8):
            file.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :])
            assert complaint(file)


def test_foreign_files_are_told_as_such(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"PK\3\4 a zip, as torch.save writes it")
    assert complaint(file) == "is no safetensors file"
    save_file({"a": torch.zeros(3)}, file)
    assert complaint(file) == "is no safetensors file of taichi_nerf, or its header is damaged"
    stream = io.BytesIO()
    tensor_file.write_tensors(stream, {}, {"format": "7", "state": "{}"})
    file.write_bytes(stream.getvalue())
    assert complaint(file) == "is of format 7, this version of taichi_nerf reads 1; use the one that wrote it"
    stream = io.BytesIO()
    tensor_file.write_tensors(stream, {}, {"format": "1", "state": '{"a": {"~tensor": "gone"}}'})
    file.write_bytes(stream.getvalue())
    assert complaint(file) == "is damaged: its state and its tensors do not belong together"
    assert complaint(tmp_path) == "no such checkpoint"
