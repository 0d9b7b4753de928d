"""`view` and the viewer's options of `train`, as a user meets them on the command line."""

import signal
from types import SimpleNamespace

import pytest
import sample_transforms
from click.testing import CliRunner

from taichi_nerf.apps.main import main


def invoke(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--kernel", "compositing"), "such as compositing=my_kernels.py"),
        (("--kernel", "compositing=absent.py"), "absent.py: no such file"),
        (("--token", "short"), "eight or more letters"),
        (("--token", "with/slash-in-it"), "eight or more letters"),
        (("--port", "70000"), "--port"),
    ],
)
def test_misuse_is_told(tmp_path, options, told):
    status, _, err = invoke("view", tmp_path, *options)
    assert status == 2
    assert told in err


def test_a_folder_that_is_neither_run_nor_scene_is_one_line(tmp_path):
    status, _, err = invoke("view", tmp_path)
    assert status == 1
    assert err.startswith(f"error: {tmp_path}")
    assert err.count("\n") == 1


def test_what_is_not_there_is_neither_told_to_be_no_run_nor_no_scene(tmp_path):
    for options in ((), ("--arch", "cpu"), ("--watch-kernels",), ("--n-views", 3), ("--scene", tmp_path)):
        status, _, err = invoke("view", tmp_path / "rnu", *options)
        assert (status, err) == (1, f"error: {tmp_path / 'rnu'}: no such run or scene\n")


def test_a_run_is_one_without_its_config_as_well(tmp_path, monkeypatch):
    """What the checkpoint says is asked, as by `evaluate`."""
    opened = []
    monkeypatch.setattr("taichi_nerf.apps.run_options.open_run", lambda *arguments: opened.append(arguments) or 1 / 0)
    (tmp_path / "checkpoint.safetensors").touch()
    invoke("view", tmp_path)
    assert [folder for folder, *_ in opened] == [tmp_path]


def test_a_host_where_nobody_can_listen_is_one_line_before_anything_is_made(small_scene, tmp_path):
    host = ("--host", "no.such.host.invalid")
    for command in (
        ("view", small_scene),
        ("train", small_scene, "--out", tmp_path / "run", "--view", "--steps", 5, "--arch", "cpu"),
    ):
        status, _, err = invoke(*command, *host)
        assert status == 1
        assert "\nerror: --host no.such.host.invalid: cannot listen there" in f"\n{err}"
        assert "whoever reaches this machine" not in err
    assert not (tmp_path / "run").exists()


def test_a_scene_has_no_kernels_to_watch(small_scene):
    status, _, err = invoke("view", small_scene, "--watch-kernels")
    assert status == 2
    assert "is no run" in err


def test_options_are_refused_where_they_would_do_nothing(small_scene, tmp_path):
    for option in (("--scene", small_scene), ("--arch", "cpu")):
        status, _, err = invoke("view", small_scene, *option)
        assert status == 2
        assert "is no run" in err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    for option in (("--n-views", 3), ("--downscale", 1), ("--allow-outside",)):
        status, _, err = invoke("view", tmp_path / "run", *option)
        assert status == 2
        assert f"{option[0]} is for a scene" in err


class Served:
    """What the commands ask of a viewer."""

    url = "http://here"

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def warm_up(self):
        pass

    def serve(self, *_):
        pass


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_viewer_is_ended_by_a_signal_and_that_is_its_success(sent, monkeypatch, small_scene):
    class Signalled(Served):
        def serve(self, stop, kernels):
            signal.raise_signal(sent)
            assert stop()

    monkeypatch.setattr("taichi_nerf.viewer.viewer.Viewer", Signalled)
    assert invoke("view", small_scene) == (0, "http://here\n", "")


def test_compiling_for_a_run_is_told_on_stderr(monkeypatch, tmp_path, small_scene):
    run = SimpleNamespace(scene=None, model=None, config=SimpleNamespace(run=SimpleNamespace(background="white")))
    monkeypatch.setattr("taichi_nerf.viewer.viewer.Viewer", Served)
    monkeypatch.setattr("taichi_nerf.apps.run_options.open_run", lambda *_: run)
    (tmp_path / "config.json").touch()
    assert invoke("view", tmp_path) == (0, "http://here\n", "")
    run.model = "of some kind"
    status, out, err = invoke("view", tmp_path)
    assert (status, out, "compiling kernels" in err) == (0, "http://here\n", True)


@pytest.mark.parametrize("option", [("--port", 9000), ("--host", "0.0.0.0"), ("--token", "auto"), ("--resolution", 256)])
def test_options_of_the_viewer_are_refused_where_there_is_none(small_scene, tmp_path, option):
    status, _, err = invoke("train", small_scene, "--out", tmp_path / "run", "--steps", 5, "--arch", "cpu", *option)
    assert (status, f"{option[0]} is of the viewer: it goes with --view" in err) == (2, True)


def test_a_scene_is_shown_as_its_options_say(monkeypatch, tmp_path):
    """Its pictures may lie outside, as the errors of `view` recommend."""
    shown = []

    class Seen(Served):
        def __init__(self, scene, *_):
            shown.append(scene)

    monkeypatch.setattr("taichi_nerf.viewer.viewer.Viewer", Seen)
    sample_transforms.make(tmp_path / "scene")
    (tmp_path / "scene" / "images").rename(tmp_path / "elsewhere")
    file = tmp_path / "scene" / "transforms.json"
    file.write_text(file.read_text().replace("images/", "../elsewhere/"))
    status, _, err = invoke("view", tmp_path / "scene")
    assert status == 1
    assert "--allow-outside" in err
    status, out, err = invoke("view", tmp_path / "scene", "--allow-outside", "--downscale", 2, "--scale", 3)
    assert status == 0, err
    assert out == "http://here\n"
    assert shown[0].scene_from_source.scale == 3


def test_another_host_is_warned_of_and_has_a_token(tmp_path, capsys):
    from taichi_nerf.apps.view_options import place_of

    options = {"host": "0.0.0.0", "port": 0, "token": None, "resolution": 512}
    place = place_of(options, tmp_path)
    assert len(place.token) >= 20
    assert place.token != place_of(options, tmp_path).token
    err = capsys.readouterr().err
    assert err.startswith("warning: --host 0.0.0.0")
    assert place_of({**options, "host": "127.0.0.1"}, tmp_path).token is None
    assert capsys.readouterr().err == ""
