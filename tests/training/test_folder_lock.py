"""One training at a time into a folder, on POSIX systems and on Windows."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taichi_nerf.training import atomic
from taichi_nerf.training.folder_lock import FolderLock
from taichi_nerf.training.run_error import RunError

pytest.importorskip("fcntl", reason="Windows' locks are pretended by those of POSIX")
import pretended_windows

SUPPORT = Path(pretended_windows.__file__).parent
HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import pretended_windows
if sys.argv[3] == "windows":
    pretended_windows.install()
from taichi_nerf.training.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["posix", "windows"])
def system(request, monkeypatch):
    if request.param == "windows":
        for name, module in pretended_windows.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    return request.param


def test_a_second_process_is_told_at_once_and_a_killed_one_leaves_no_lock(system, tmp_path):
    folder = tmp_path / "model"
    command = [sys.executable, "-c", HOLD, str(folder), str(SUPPORT), system]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError) as caught:
            FolderLock(folder, "--model")
        assert str(caught.value).startswith(f"{folder}: another process is training into it (process {process.pid} on ")
        assert str(caught.value).endswith("); wait for it, or choose another --model")
    finally:
        process.kill()
        process.communicate()
    FolderLock(folder).close()


def test_one_process_holds_a_folder_once(system, tmp_path):
    with FolderLock(tmp_path / "a") as lock:
        (lock.path / "file").write_text("")
        with pytest.raises(RunError, match="is held by this process already"):
            FolderLock(tmp_path / "a")
    FolderLock(tmp_path / "a").close()
    assert sorted(os.listdir(tmp_path / "a")) == [".lock", "file"]


def test_folders_that_were_made_for_nothing_go_again(system, tmp_path, monkeypatch):
    removed = os.unlink
    streams = []

    def unlink(file, *arguments, **options):
        """As on Windows: no file that is open."""
        if system == "windows" and streams and not streams[0].closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        removed(file)

    monkeypatch.setattr(Path, "unlink", unlink)
    with FolderLock(tmp_path / "a" / "b") as lock:
        streams.append(lock._stream)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with FolderLock(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("system", ["windows"], indirect=True)
def test_what_another_process_is_still_writing_is_not_removed(system, tmp_path):
    """And what a killed one left is. Reading is free while it is locked."""
    for name in ("written", "left"):
        (tmp_path / f".x.{name}.partial").write_text("half")
    with open(tmp_path / ".x.written.partial", "r+b") as stream:
        assert atomic.try_lock(stream)
        assert stream.tell() == 0
        atomic.remove_abandoned(tmp_path / "x")
        assert os.listdir(tmp_path) == [".x.written.partial"]
    with atomic.replacing(tmp_path / "x") as stream:
        stream.write(b"whole")
    assert (os.listdir(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"whole")


def test_a_disk_without_locks_keeps_nobody_from_training(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    for name, module in pretended_windows.modules(none).items():
        monkeypatch.setitem(sys.modules, name, module)
    with FolderLock(tmp_path), FolderLock(tmp_path):
        pass


def test_a_lock_that_cannot_be_written_leaves_no_folders(system, tmp_path):
    """Nor does a name that the disk does not take, below one that it does."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are POSIX's")
    there = tmp_path / "there"
    there.mkdir()
    for folder in (tmp_path / "a" / "b", there):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.RLIM_INFINITY))  # the nearest to a full disk
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                FolderLock(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert caught.value.filename == str(folder / ".lock")
    assert list(tmp_path.iterdir()) == [there]
    FolderLock(there).close()


def test_a_folder_whose_parent_alone_can_be_made_leaves_no_parent(tmp_path, monkeypatch):
    made = Path.mkdir

    def mkdir(folder, *arguments, **options):
        if folder.name == "b":
            (tmp_path / "a").mkdir()
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        made(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PermissionError):
        FolderLock(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
