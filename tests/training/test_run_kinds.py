"""Folders of one training, given to the commands of another."""

import json

import pytest
import torch
from click.testing import CliRunner

from taichi_nerf.apps.main import main
from taichi_nerf.settings import to_json_dict
from taichi_nerf.training.config import NgpConfig, SceneSettings
from taichi_nerf.training.nerf_config import NerfConfig
from taichi_nerf.training.pixelnerf_config import ObjectSettings, PixelNerfConfig
from taichi_nerf.training.pixelnerf_model import load_prior
from taichi_nerf.training.prior_run import PriorConfig, read_config
from taichi_nerf.training.run import load_run
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.training.run_kinds import OBJECTS, PATCHES, SCENE, kind_of

CPU = torch.device("cpu")
CONFIGS = {SCENE: NgpConfig(SceneSettings("")), OBJECTS: PixelNerfConfig(ObjectSettings("")), PATCHES: PriorConfig()}


def folder_of(path, kind, config=None):
    """A folder that is nothing but its config.json."""
    settings = to_json_dict(config or CONFIGS[kind])
    if kind == PATCHES:
        path.mkdir()
        (path / "config.json").write_text(json.dumps({"kind": "prior", "settings": settings}))
    else:
        with RunFolder.create(path) as folder:
            folder.write_config({"settings": settings, "scene": {}, "arch": "cpu", "device": "none"})
    return path


@pytest.mark.parametrize("kind", CONFIGS)
def test_sections_tell_the_kind(kind, tmp_path):
    assert kind_of(folder_of(tmp_path / "run", kind)) == kind
    assert kind_of(folder_of(tmp_path / "nerf", SCENE, NerfConfig(SceneSettings("")))) == SCENE
    assert kind_of(tmp_path) is None
    (tmp_path / "config.json").write_text("[1]")
    assert kind_of(tmp_path) is None


OPENERS = {
    SCENE: lambda path: load_run(path, CPU),
    OBJECTS: lambda path: load_prior(path, CPU),
    PATCHES: lambda path: read_config(path, None, None),
}


@pytest.mark.parametrize("made", CONFIGS)
@pytest.mark.parametrize("wanted", CONFIGS)
def test_a_run_of_another_kind_is_named_and_so_is_what_takes_it(made, wanted, tmp_path):
    if made == wanted:
        return
    path = folder_of(tmp_path / "run", made)
    with pytest.raises(RunError, match=f"is of `taichi-nerf {made}`, not of `taichi-nerf {wanted}`; `taichi-nerf .*{path}"):
        OPENERS[wanted](path)


@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        (OBJECTS, ("evaluate", "RUN")),
        (OBJECTS, ("view", "RUN")),
        (OBJECTS, ("render", "RUN", "--out", "x.gif")),
        (OBJECTS, ("train", "--out", "RUN", "--resume")),
        (PATCHES, ("evaluate", "RUN")),
        (PATCHES, ("pixelnerf", "evaluate", "RUN", "set")),
        (SCENE, ("pixelnerf", "render", "here", "--model", "RUN", "--out", "x.gif")),
        (SCENE, ("pixelnerf", "train", "--out", "RUN", "--resume")),
        (SCENE, ("prior", "train", "--out", "RUN", "--resume")),
    ],
)
def test_commands_tell_it_in_one_line(made, arguments, tmp_path):
    path = str(folder_of(tmp_path / "run", made))
    given = [path if word == "RUN" else word for word in arguments]
    result = CliRunner().invoke(main, [*given, "--arch", "cpu"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {path}: is of `taichi-nerf {made}`, not of")
    assert result.stderr.count("\n") == 1


def test_a_folder_without_a_prior_tells_which_file_it_lacks(tmp_path):
    path = folder_of(tmp_path / "run", OBJECTS)
    result = CliRunner().invoke(main, ["prior", "sample", str(path), "--arch", "cpu"])
    assert (result.exit_code, f"{path / 'prior.safetensors'}: no such prior" in result.stderr) == (1, True)
