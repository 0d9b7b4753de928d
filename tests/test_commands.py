"""The commands, as a user meets them: help, typos, errors in one line, exit statuses."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from taichi_nerf.apps.command import Command, describe
from taichi_nerf.apps.main import main
from taichi_nerf.apps.progress import Rate, progress
from taichi_nerf.training.json_file import expect_place, write_json


def invoke(*arguments):
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help_with_an_example_and_debug(name):
    status, out, _ = invoke(name, "--help")
    assert status == 0
    assert "Example" in out
    assert "--debug" in out


def test_a_typo_names_its_neighbour():
    status, _, err = invoke("backend")
    assert status == 2
    assert "Did you mean backends?" in err


def test_a_wrong_option_value_is_misuse():
    status, _, err = invoke("benchmark", "kernels", "--only", "hash_gird")
    assert status == 2
    assert "no kernel family 'hash_gird'" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "scene", "--out", "run", "--time-budget", "nan"),
        ("prior", "sample", "--eta", "nan"),
        ("generator", "depth-pose", "--model", "m", "--reach", "nan"),
    ],
)
def test_what_is_no_number_is_misuse(arguments):
    status, _, err = invoke(*arguments)
    assert (status, f"Invalid value for {arguments[-2]}: nan is no number" in err) == (2, True)


def test_what_has_no_end_is_misuse():
    status, _, err = invoke("train", "scene", "--out", "run", "--time-budget", "inf")
    assert (status, "Invalid value for --time-budget: expected a finite number, got inf" in err) == (2, True)


def commands_with_a_seed(group, *names):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_with_a_seed(command, *names, name)
        elif any("--seed" in parameter.opts for parameter in command.params):
            yield (*names, name)


@pytest.mark.parametrize("seed", ["-1", str(2**31), str(2**70)])
@pytest.mark.parametrize("names", list(commands_with_a_seed(main)), ids=" ".join)
def test_a_seed_that_nothing_can_be_made_of_is_misuse(names, seed):
    status, _, err = invoke(*names, "--seed", seed)
    assert (status, f"Invalid value for '--seed': {seed} is not in the range 0<=x<=2147483647" in err) == (2, True), err


def test_backends_tells_of_every_backend_as_json():
    status, out, _ = invoke("backends", "--json")
    told = json.loads(out)
    assert status == 0
    assert [row["arch"] for row in told["backends"]] == ["cuda", "metal", "vulkan", "cpu"]
    assert told["auto"] in {row["arch"] for row in told["backends"] if row["works"]}
    assert all(row["device"] if row["works"] else row["reason"] for row in told["backends"])


def test_an_asked_for_backend_that_is_missing_is_one_line_and_status_1():
    missing = "metal" if sys.platform != "darwin" else "cuda"
    status, out, err = invoke("benchmark", "kernels", "--only", "compositing", "--arch", missing)
    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"error: the {missing} backend does not work here")


def test_debug_shows_the_traceback():
    missing = "metal" if sys.platform != "darwin" else "cuda"
    status, _, err = invoke("benchmark", "--only", "compositing", "--arch", missing, "--debug")
    assert status == 1
    assert "Traceback" in err


def test_benchmark_kernels_prints_a_table_and_writes_json(tmp_path):
    file, older = tmp_path / "figures.json", tmp_path / "older.json"
    older.write_text("{}")
    os.link(older, file)
    status, out, err = invoke("benchmark", "kernels", "--only", "compositing", "--n", "500", "--arch", "cpu", "--json", str(file))
    assert status == 0, err
    assert older.read_text() == "{}", "written over in place, as a full disk would have spoilt it"
    assert "| compositing.composite_rays | 500 |" in out
    row = json.loads(file.read_text())["rows"][0]
    assert row["n"] == 500
    assert min(row["forward"], row["backward"], row["forward_reference"], row["backward_reference"]) > 0


@pytest.mark.parametrize("command", [
    ("benchmark", "kernels", "--only", "compositing"), ("generator", "evaluate", "--model", "builtin")
])  # fmt: skip
def test_a_json_file_that_cannot_be_written_fails_before_measuring(tmp_path, command):
    place = tmp_path / "no"
    status, out, err = invoke(*command, "--json", str(place / "x.json"))
    assert (status, out, err) == (1, "", f"error: {place}: No such file or directory\n")
    place.touch()
    status, out, err = invoke(*command, "--json", str(place / "x.json"))
    assert (status, out, err) == (1, "", f"error: {place / 'x.json'}: cannot be written: {place} is a file, not a folder\n")


def test_figures_replace_a_file_in_one_step_and_no_device(tmp_path, capfd):
    link, file = tmp_path / "link.json", tmp_path / "figures.json"
    link.symlink_to(file)
    write_json(link, "[1]")
    assert (link.is_symlink(), file.read_text(), len(list(tmp_path.iterdir()))) == (True, "[1]", 2)
    expect_place(Path(os.devnull))
    write_json(Path(os.devnull), "[2]")
    assert not Path(os.devnull).is_file()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="systems with /dev")
def test_figures_for_a_stream_that_is_a_file_come_behind_what_it_holds(tmp_path):
    code = (
        "from pathlib import Path\nfrom taichi_nerf.training.json_file import expect_place, write_json\n"
        "expect_place(Path('/dev/stdout')); print('a table', flush=True); write_json(Path('/dev/stdout'), '[1]')"
    )
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "a table\n[1]"


def test_figures_that_are_interrupted_leave_those_of_before(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    file = tmp_path / "figures.json"
    file.write_text("[1]")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_json(file, "[2]")
    assert (file.read_text(), len(list(tmp_path.iterdir()))) == ("[1]", 1)


def test_an_unexpected_error_names_its_type():
    assert describe(KeyError("x")) == "KeyError: 'x' (--debug shows where)"
    assert describe(ValueError("two\nlines")) == "two lines"
    for error, told in (
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 37.3 GiB for an array with shape (100000, 100000)"), " for 37.3 GiB more"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: tried to allocate 400 bytes."),
            " for 400 bytes more",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"), " for 2.00 GiB more"),
    ):
        assert describe(error) == f"not enough memory{told} (--debug shows where)"
    assert describe(OSError(12, "Cannot allocate memory")) == "not enough memory (--debug shows where)"
    assert describe(ValueError("out of memory/a.png: no such file")) == "out of memory/a.png: no such file"
    assert describe(FileNotFoundError(2, "No such file or directory", "a.json")) == "a.json: No such file or directory"


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interruption_has_the_exit_status_of_its_signal(sent, status):
    code = (
        "import click, time\n"
        "from taichi_nerf.apps.command import Command\n"
        "@click.command(cls=Command)\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.kill(process.pid, sent)
    _, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert "Traceback" not in err


def test_commands_are_of_the_class_that_has_one_line_errors():
    commands = [c for command in main.commands.values() for c in getattr(command, "commands", {"": command}).values()]
    assert all(isinstance(command, Command) for command in commands)


def test_ctrl_c_that_other_code_swallows_ends_the_command_at_its_next_report():
    """Taichi's start-up has a bare `except`."""
    code = (
        "import click, time\n"
        "from taichi_nerf.apps.command import Command\n"
        "from taichi_nerf.apps.progress import progress\n"
        "@click.command(cls=Command)\n"
        "def wait():\n"
        "    with progress() as report:\n"
        "        try:\n            print('ready', flush=True)\n            time.sleep(60)\n"
        "        except: pass\n"
        "        report(0.5, 'going on')\n        print('swallowed')\n"
        "wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")


@pytest.mark.parametrize("out", [("--out", ""), ("--out=",)])
def test_an_empty_path_is_not_the_current_folder(out, tmp_path, monkeypatch):
    """`--out "$OUT"` where no OUT is set."""
    monkeypatch.chdir(tmp_path)
    status, _, err = invoke("scene", "make", "objects", *out, "--n-views", "1", "--size", "8")
    assert (status, "is empty" in err) == (2, True), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [
    ("pixelnerf", "train", "no_objects", "--out", "a", "--steps", "1", "--prefix", ""),  # empty unless something is given
    ("pixelnerf", "train", "no_objects", "--out", "a", "--steps", "1", "--prefix="),
    ("pixelnerf", "train", "no_objects", "--out", "a", "--steps", "1", "--set=objects.prefix="),
    ("train", "no_scene", "--out=a="),
])  # fmt: skip
def test_what_may_be_empty_and_what_only_ends_in_an_equals_sign_is_taken(words):
    _, _, err = invoke(*words)
    assert "is empty" not in err
    assert "no_" in err


def test_a_scene_may_have_a_name_of_one_letter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = invoke("scene", "info", "s")
    assert (status, err.startswith("error: s: ")) == (1, True), err


def swallowing(then):
    """What a command prints, and its status, in which Ctrl-C is swallowed as `import taichi` does it, and that goes on so."""

    @click.command(cls=Command)
    def command():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        then()

    done = CliRunner().invoke(command)
    return done.exit_code, done.output


def test_ctrl_c_that_was_swallowed_ends_the_command_before_its_first_report():
    """Kernels are compiled before it: half a minute in which the command seemed not to hear."""

    def compile_kernels():
        with progress():
            click.echo("compiling")

    assert swallowing(compile_kernels) == (130, "interrupted\n")


def test_an_import_that_ctrl_c_cut_short_is_no_error():
    def load():
        raise ImportError("initialization failed")

    assert swallowing(load) == (130, "interrupted\n")


EARLY = """
import signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == wanted:
            signal.raise_signal(signal.SIGINT)
wanted = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background has it ignored
sys.meta_path.insert(0, Finder())
from taichi_nerf.apps.main import main
main()
"""


@pytest.mark.parametrize("imported", ["click", "taichi_nerf.apps.view", "taichi_nerf.training.interrupt", "taichi"])
def test_ctrl_c_while_the_program_is_imported_is_no_traceback(imported):
    """Of the first seconds: the commands, what catches Ctrl-C later, and what a command imports."""
    done = subprocess.run([sys.executable, "-c", EARLY, imported, "backends"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_progress_tells_how_fast_things_are_counted():
    rate = Rate()
    assert rate.told("frame 1 of 9", 10.0) == "frame 1 of 9"  # which waited for compiling
    assert rate.told("frame 3 of 9", 11.0) == "frame 3 of 9, 2.0 frames/s"
    assert rate.told("frame 4 of 9", 16.0) == "frame 4 of 9, 2.0 s/frame"
    assert rate.told("test view 2 of 3", 17.0) == "test view 2 of 3"
    assert rate.told("test view 3 of 3", 17.5) == "test view 3 of 3, 2.0 views/s"
    assert rate.told("test view 1 of 3", 18.0) == "test view 1 of 3"  # anew
    assert rate.told("compiling", 19.0) == "compiling"


def test_benchmark_quality_tells_how_good_test_views_are_after_each_budget(small_scene, tmp_path):
    file = tmp_path / "figures.json"
    options = ("--scene", str(small_scene), "--seconds", "0.5,1", "--arch", "cpu", "--json", str(file))
    options += ("--set", "batch.n_rays_most=64")
    status, out, err = invoke("benchmark", "quality", *options)
    assert status == 0, err
    rows = json.loads(file.read_text())["rows"]
    assert [row["budget"] for row in rows] == [0.5, 1.0]
    assert all(0 < row["psnr"] < 60 and row["n_steps"] > 0 and row["rays_per_second"] > 0 for row in rows)
    assert f"| 1 s | {rows[1]['psnr']:.2f} dB |" in out
    assert out.startswith("objects, batch.n_rays_most=64, test views; cpu on ")
    status, _, err = invoke("benchmark", "quality", *options[:-1], "batch.n_rays_most=0")
    assert status != 0
    assert "n_rays_most" in err


@pytest.mark.parametrize(("options", "complaint"), [
    (("quality",), "give --scene"),
    (("kernels", "--seconds", "3"), "--seconds is for training and quality"),
    (("quality", "--scene", "x", "--seconds", "3,soon"), "expected seconds such as 30,60"),
    (("quality", "--scene", "x", "--seconds", "0"), "more than 0"),
])  # fmt: skip
def test_benchmark_refuses_options_that_would_do_nothing(options, complaint):
    status, _, err = invoke("benchmark", *options)
    assert status == 2
    assert complaint in " ".join(err.split())


WRITERS = {
    "render": (["render", "no_run", "--out"], "a.mp4"),
    "export": (["export", "no_run", "--out"], "a.glb"),
    "pixelnerf": (["pixelnerf", "render", "no.png", "--turntable", "--out"], "a.gif"),
    "distil": (["pixelnerf", "render", "no.png", "--turntable", "--out", "a.gif", "--distil"], "folder"),
    "generator": (["generator", "render", "--model", "no_model", "--out"], "a.png"),
    "to scene": (["generator", "render", "--model", "no_model", "--to-scene"], "folder"),
    "preview": (["scene", "preview", "no_scene", "--out"], "a.png"),
    "sample": (["prior", "sample", "no_prior", "--out"], "a.png"),
    "score": (["prior", "score", "no_prior", "rooms:1", "--out"], "a.png"),
}


@pytest.mark.parametrize("case", WRITERS)
def test_where_nothing_can_be_written_is_told_before_anything_is_read(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    arguments, name = WRITERS[case]
    status, _, err = invoke(*arguments, f"file/inner/{name}")
    assert (status, err) == (1, f"error: file/inner/{name}: cannot be written: {tmp_path}/file is a file, not a folder\n")
    _, _, err = invoke(*arguments, f"new/{name}")  # which would be made
    assert "no" in err
    assert "written" not in err
    assert os.listdir() == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
def test_a_full_disk_is_told_before_anything_is_read(tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99)); import taichi_nerf.apps.main as m; m.main()"
    command = [sys.executable, "-B", "-c", limited, "render", "no_run", "--out", tmp_path / "a.mp4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path}/a.mp4: cannot be written: File too large\n")


@pytest.mark.parametrize("command", [WRITERS[name][0] for name in ("render", "pixelnerf", "generator", "export")])
def test_an_ending_that_nobody_writes_is_told_before_anything_is_read(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = invoke(*command, "turn.mp5")
    assert status == 1
    assert err.startswith("error: turn.mp5: expected a name that ends in .")
    assert err.count("\n") == 1
