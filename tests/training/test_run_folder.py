"""A run's folder: never lost, never shared, never half-written."""

import contextlib
import errno
import io
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import PurePath

import pytest

from taichi_nerf import __version__
from taichi_nerf.training import run_folder
from taichi_nerf.training.content_hash import END, WHOLE, content_hash
from taichi_nerf.training.run_folder import RunError, RunFolder

CONFIG = {
    "settings": {"field": {"n_levels": 12}},
    "scene": {"location": "/data/chair", "content_hash": "00"},
    "arch": "cpu",
    "device": "some processor",
}


def made(path):
    """A run with a file of every kind that is ours, and some that are not."""
    with RunFolder.create(path) as run:
        run.write_config(CONFIG)
        run.append_metrics({"step": 1})
        for file in (run.checkpoint, run.eval_folder("test") / "metrics.json", run.eval_folder("test") / "r_0" / "a.png"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
        for file in (run.plots / "training.png", run.preview / "0.png", path / "orbit.mp4", run.preview / "notes.txt"):
            file.parent.mkdir(exist_ok=True)
            file.write_text("")
    return run


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def complaint(function, *arguments, **options):
    with pytest.raises(RunError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_config_tells_what_was_given_and_the_versions(tmp_path):
    with RunFolder.create(tmp_path / "a" / "run") as run:
        run.write_config(CONFIG)
    config = RunFolder.open(tmp_path / "a" / "run").read_config()
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert config["format"] == run_folder.FORMAT
    assert config["versions"]["taichi_nerf"] == __version__
    assert set(config["versions"]) == {"taichi_nerf", "torch", "taichi", "numpy", "python"}
    assert "config.json: has to have scene, device" in complaint(run.write_config, {"settings": {}, "arch": "cpu"})


def test_a_run_is_never_overwritten_unless_asked(tmp_path):
    run = made(tmp_path / "run")
    before = {file: (run.path / file).read_bytes() for file in files(run.path)}
    told = complaint(RunFolder.create, run.path)
    assert told == f"{run.path}: holds a run already; --resume goes on with it, --overwrite replaces it"
    assert {file: (run.path / file).read_bytes() for file in files(run.path)} == before


def test_overwriting_removes_what_is_ours_and_nothing_else(tmp_path):
    run = made(tmp_path / "run")
    (run.path / ".checkpoint.safetensors.12345678.partial").write_text("half")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.png").write_text("")
    os.symlink(elsewhere, run.path / "eval" / "linked")
    with RunFolder.create(run.path, overwrite=True) as new:
        new.write_config(CONFIG)
        new.append_metrics({"step": 7})
        new.write_config(CONFIG)  # once more: what this run wrote stays
    assert files(run.path) == [".lock", "config.json", "metrics.jsonl", "orbit.mp4", "preview/notes.txt"]
    assert new.read_metrics() == [{"step": 7}]
    assert files(elsewhere) == ["mine.png"]
    assert not (run.path / "plots").exists()


def test_a_run_is_replaced_only_when_the_new_one_begins(tmp_path):
    run = made(tmp_path / "run")
    before = {file: (run.path / file).read_bytes() for file in files(run.path) if file != ".lock"}
    with pytest.raises(MemoryError), RunFolder.create(run.path, overwrite=True):
        raise MemoryError
    with pytest.raises(RunError), RunFolder.create(run.path, overwrite=True) as new:
        new.write_config({"settings": {}})
    assert {file: (run.path / file).read_bytes() for file in files(run.path) if file != ".lock"} == before


def test_a_run_is_not_replaced_on_a_disk_that_has_no_room_for_the_new_ones_settings(tmp_path, monkeypatch):
    run = made(tmp_path / "run")
    before = {file: (run.path / file).read_bytes() for file in files(run.path) if file != ".lock"}

    class Full(io.BytesIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "replacing", lambda file: contextlib.nullcontext(Full()))
    with pytest.raises(OSError, match="No space left"), RunFolder.create(run.path, overwrite=True) as new:
        new.write_config(CONFIG)
    assert {file: (run.path / file).read_bytes() for file in files(run.path) if file != ".lock"} == before


def test_a_replacement_that_is_killed_leaves_no_checkpoint_beside_settings_of_another_run(tmp_path, monkeypatch):
    run = made(tmp_path / "run")
    before, removed = run.config.read_bytes(), []

    def killed(file, *arguments, **options):
        removed.append(file)
        os.unlink(file)
        raise KeyboardInterrupt

    with RunFolder.create(run.path, overwrite=True) as new:
        monkeypatch.setattr(type(run.path), "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            new.write_config({**CONFIG, "arch": "cuda"})
        monkeypatch.undo()
    assert removed[0] == run.checkpoint
    assert run.config.read_bytes() == before


def test_a_start_that_fails_leaves_no_folder_it_made_but_keeps_those_of_others(tmp_path):
    with pytest.raises(MemoryError), RunFolder.create(tmp_path / "runs" / "new"):
        raise MemoryError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with RunFolder.create(tmp_path / "runs" / "new") as new:
        (new.path / "notes.txt").write_text("")
    assert files(tmp_path) == ["runs/new/notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there", ["notes.txt", "plots/mine.png", "config.json", "checkpoint.safetensors"])
def test_a_folder_that_is_no_run_is_refused_and_kept(there, overwrite, tmp_path):
    file = tmp_path / "docs" / there
    file.parent.mkdir(parents=True)
    file.write_text('{"name": "of another program"}')
    told = complaint(RunFolder.create, tmp_path / "docs", overwrite)
    assert told == f"{tmp_path / 'docs'}: is no run and not empty (it holds {there.split('/')[0]}); choose another --out"
    assert files(tmp_path / "docs") == [there]
    assert complaint(RunFolder.create, file, overwrite) == f"{file}: is a file; a run is a folder"


def test_an_empty_folder_or_one_that_a_killed_start_left_is_fine(tmp_path):
    for name, content in (("empty", []), ("left", [".lock", ".config.json.12345678.partial"])):
        (tmp_path / name).mkdir()
        for file in content:
            (tmp_path / name / file).write_text("half")
        with RunFolder.create(tmp_path / name) as run:
            run.write_config(CONFIG)
        assert files(tmp_path / name) == [".lock", "config.json"]


def test_a_file_in_the_place_of_a_run_is_told_and_where_the_run_is(tmp_path):
    made(tmp_path / "run")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    assert complaint(RunFolder.open, tmp_path / "weights.pt") == f"{tmp_path / 'weights.pt'}: is a file; a run is a folder"
    inside = tmp_path / "run" / "config.json"
    assert complaint(RunFolder.open, inside) == f"{inside}: is a file; a run is a folder: {tmp_path / 'run'}"


def test_a_link_to_what_is_gone_is_no_place_for_a_run(tmp_path):
    (tmp_path / "run").symlink_to("gone")
    assert complaint(RunFolder.create, tmp_path / "run") == f"{tmp_path / 'run'}: is a link to what is not there"


def test_a_run_folder_may_be_named_by_a_text(tmp_path):
    with RunFolder.create(str(tmp_path / "run")) as run:
        run.write_config(CONFIG)
    assert RunFolder.open(str(tmp_path / "run")).config == tmp_path / "run" / "config.json"


def test_a_run_that_is_missing_is_told(tmp_path):
    gone = tmp_path / "gone"
    assert complaint(RunFolder.open, gone) == f"{gone}: no such run; `taichi-nerf train SCENE --out {gone}` makes one"
    assert "holds no run (no config.json)" in complaint(RunFolder.open, tmp_path)
    made(tmp_path / "run")
    assert complaint(RunFolder.open, tmp_path) == f"{tmp_path}: holds no run itself (no config.json); {tmp_path / 'run'} is one"
    (tmp_path / "config.json").write_text("[1")
    assert complaint(RunFolder.open, tmp_path) == f"{tmp_path / 'config.json'}: is no config.json of taichi_nerf"


def test_a_run_of_another_format_names_the_version_that_wrote_it(tmp_path):
    run = made(tmp_path / "run")
    config = json.loads(run.config.read_text()) | {"format": 7, "versions": {"taichi_nerf": "9.1.0"}}
    run.config.write_text(json.dumps(config))
    told = complaint(RunFolder.open, run.path)
    assert told.startswith(f"{run.config}: was written by taichi_nerf 9.1.0 (format 7), this is {__version__} (format 1); ")
    assert "`pip install taichi-nerf==9.1.0`" in told
    RunFolder.create(run.path, overwrite=True).close()


# -- one process at a time

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom taichi_nerf.training.run_folder import RunFolder\n"
    "run = RunFolder.open(Path(sys.argv[1])).locked()\nprint('held', flush=True)\ntime.sleep(60)\n"
)


def test_two_processes_cannot_train_into_one_run_and_a_killed_one_blocks_nobody(tmp_path):
    pytest.importorskip("fcntl")
    run = made(tmp_path / "run")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        told = complaint(RunFolder.open(run.path).locked)
        assert told.startswith(f"{run.path}: another process is training into it (process {process.pid} on ")
        before = files(run.path)
        assert "another process is training into it" in complaint(RunFolder.create, run.path, overwrite=True)
        assert files(run.path) == before
        assert RunFolder.open(run.path).read_metrics() == [{"step": 1}]  # reading is free
    finally:
        process.kill()
        process.communicate()
    with RunFolder.open(run.path).locked():
        assert complaint(RunFolder.open(run.path).locked).startswith(f"{run.path}: is held by this process already")
    RunFolder.create(run.path, overwrite=True).close()


# -- metrics


def test_metrics_come_back_with_null_for_what_is_no_number(tmp_path):
    with RunFolder.create(tmp_path) as run:
        assert run.read_metrics() == []
        run.append_metrics({"step": 1, "loss": math.nan, "psnr": 20.5, "more": {"a": [math.inf, 1]}})
        run.append_metrics({"step": 2, "loss": 0.25})
    first, second = run.metrics.read_text().splitlines()
    assert json.loads(first, parse_constant=pytest.fail) == {"step": 1, "loss": None, "psnr": 20.5, "more": {"a": [None, 1]}}
    assert run.read_metrics()[1] == {"step": 2, "loss": 0.25} == json.loads(second)
    with pytest.raises(ValueError, match=r"metrics\.jsonl: a row of metrics needs its step, got \['loss'\]"):
        run.append_metrics({"loss": 1.0})


def test_resuming_drops_the_rows_after_the_checkpoint(tmp_path):
    with RunFolder.create(tmp_path) as run:
        run.truncate_metrics(3)
        for step in (1, 2, 3, 4, 5):
            run.append_metrics({"step": step, "loss": 1 / step})
        whole = run.metrics.read_bytes()
        run.truncate_metrics(3)
        run.append_metrics({"step": 4, "loss": 1 / 4})
        run.append_metrics({"step": 5, "loss": 1 / 5})
    assert run.metrics.read_bytes() == whole


def test_a_line_that_was_cut_off_anywhere_costs_only_itself(tmp_path):
    with RunFolder.create(tmp_path) as run:
        run.append_metrics({"step": 1, "loss": 0.5})
        run.append_metrics({"step": 2, "loss": 0.25})
        whole = run.metrics.read_bytes()
        first = whole.index(b"\n") + 1
        for n in range(len(whole)):
            run.metrics.write_bytes(whole[:n])
            left = [{"step": 1, "loss": 0.5}] if n >= first else []
            assert run.read_metrics() == left
            run.append_metrics({"step": 3})
            assert run.read_metrics() == [*left, {"step": 3}]
            run.metrics.write_bytes(whole[:n])
            run.truncate_metrics(9)
            assert run.metrics.read_bytes() == whole[: first if n >= first else 0]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    run = made(tmp_path / "run")
    for line in ("{", "[]", '{"loss": 1}'):
        run.metrics.write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
        with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2: expected a JSON object with a step"):
            run.read_metrics()


def test_a_split_may_not_lead_out_of_the_run(tmp_path):
    run = made(tmp_path / "run")
    assert run.eval_folder("test") == run.path / "eval" / "test"
    for name in ("", ".", "..", "../x", "a\\b"):
        assert "is no name of a split" in complaint(run.eval_folder, name)


# -- the scene's content


def scene(folder, **contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def test_a_copy_of_a_scene_is_the_same_scene_and_any_small_change_makes_it_another(tmp_path):
    large = bytes(range(256)) * 2048
    middle = len(large) // 2
    same = {"a": b"one", "b": b"two", "large": large}
    first = scene(tmp_path / "first", **same)
    hashed = content_hash(first)
    assert len(hashed) == 32
    assert content_hash(reversed(scene(tmp_path / "copy", **same))) == hashed
    others = [
        {"a": b"one", "b": b"tvo", "large": large},
        {"a": b"two", "b": b"one", "large": large},
        {"a": b"one", "c": b"two", "large": large},
        {"a": b"onet", "b": b"wo", "large": large},
        {"a": b"one", "b": b"two", "large": large, "d": b""},
        {"a": b"one", "b": b"two"},
        {"a": b"one", "b": b"two", "large": b"\1" + large[1:]},
        {"a": b"one", "b": b"two", "large": large[:-1] + b"\1"},
        {"a": b"one", "b": b"two", "large": large + b"\0"},
        {"a": b"one", "b": b"two", "large": large + large[-256:]},  # of the same ends, but longer
    ]
    hashes = {content_hash(scene(tmp_path / str(i), **other), tmp_path / str(i)) for i, other in enumerate(others)}
    assert len(hashes | {hashed}) == len(others) + 1
    # What the docstring says is not noticed.
    unnoticed = {**same, "large": large[:middle] + b"\xff" + large[middle + 1 :]}
    assert END < middle < len(large) - END
    assert len(large) > WHOLE
    assert content_hash(scene(tmp_path / "unnoticed", **unnoticed)) == hashed
    with pytest.raises(ValueError, match=r"gone: could not be read \(No such file or directory\)"):
        content_hash([tmp_path / "gone"])


def test_a_scene_is_the_same_where_paths_are_sorted_without_regard_to_case(tmp_path, monkeypatch):
    """As Windows' are: a run that was made on another system found its scene changed."""
    for name in ("B.txt", "a.txt"):
        (tmp_path / name).write_text(name)
    hashed = content_hash(tmp_path.iterdir(), tmp_path)
    monkeypatch.setattr(PurePath, "__lt__", lambda path, other: str(path).lower() < str(other).lower())
    assert content_hash(tmp_path.iterdir(), tmp_path) == hashed


def test_a_config_from_which_something_was_taken_is_told_of(tmp_path):
    folder = made(tmp_path / "run")
    config = json.loads(folder.config.read_text())
    folder.config.write_text(json.dumps({key: value for key, value in config.items() if key not in ("settings", "scene")}))
    assert complaint(folder.read_config) == f"{folder.config}: is damaged: settings, scene are missing"


def test_a_long_file_of_metrics_is_cut_line_by_line(tmp_path):
    folder = RunFolder(tmp_path)
    line = '{"step": %d, "seconds": 1.5, "loss": null}\n'
    folder.metrics.write_text("".join(line % step for step in range(20_000)) + '{"step": 2')
    tracemalloc.start()
    folder.truncate_metrics(19_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < folder.metrics.stat().st_size / 4
    assert [row["step"] for row in folder.read_metrics()] == list(range(19_001))
