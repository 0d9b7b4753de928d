"""Where commands are run: consoles of other encodings, pipes that end, streams that are closed, shells of other systems."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sample_blender

from taichi_nerf import quoting

COMMAND = [sys.executable, "-m", "taichi_nerf"]
NEITHER_OPEN = [sys.executable, "-c", "import os, sys; os.close(1); os.close(2); os.execv(sys.argv[1], sys.argv[1:])"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_text_that_a_console_lacks_is_no_reason_to_fail(encoding, tmp_path):
    """A pipe on Windows has such an encoding: the ellipsis of a help text is not in one, a Greek folder in neither."""
    scene = tmp_path / "σκηνή"
    sample_blender.make(scene)
    environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
    for arguments in (["benchmark", "--help"], ["scene", "info", str(scene)]):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
    assert str(scene).encode(encoding, "backslashreplace") in done.stdout


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    """As `taichi-nerf scene info … | true`."""
    sample_blender.make(tmp_path)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "scene", "info", str(tmp_path)], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(os.name != "posix", reason="streams are closed by POSIX shells")
def test_a_command_whose_streams_are_closed_does_its_work(tmp_path):
    """As a scheduler may start it: progress finds no stream to ask whether it is a terminal."""
    sample_blender.make(tmp_path / "scene")
    convert = ["scene", "convert", str(tmp_path / "scene"), str(tmp_path / "out")]
    assert subprocess.run([*NEITHER_OPEN, *COMMAND, *convert]).returncode == 0
    assert (tmp_path / "out" / "transforms.json").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode whatever the locale is")
def test_a_name_that_the_locale_cannot_spell_is_told_so(tmp_path):
    frame = {"file_path": "bild_ü.png", "transform_matrix": np.eye(4).tolist()}
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": 1.0, "frames": [frame]}))
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*COMMAND, "scene", "info", str(tmp_path)], capture_output=True, env=environment)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"is no file name in the encoding of this locale (ascii); LC_ALL=C.UTF-8 has all of them" in done.stderr


def test_suggested_commands_are_quoted_as_the_systems_shell_takes_them(monkeypatch):
    """cmd.exe takes single quotes for a part of the name, and a backslash needs none."""
    assert quoting.quote(Path("my runs/it's")) == """'my runs/it'"'"'s'"""
    assert quoting.quote(Path("-run")) == "./-run"
    monkeypatch.setattr(quoting.os, "name", "nt")
    assert quoting.quote(r"C:\runs\mine") == r"C:\runs\mine"
    assert quoting.quote(r"C:\my runs\a&b") == r'"C:\my runs\a&b"'
