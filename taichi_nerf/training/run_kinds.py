"""Which training a folder is of. All write a config.json, and those of older versions do not name their kind: its sections tell.

folder = open_kind(path, SCENE)     # or RunError, which names the command that takes what is there
"""

import json
from pathlib import Path

from taichi_nerf.quoting import quote
from taichi_nerf.training.run_folder import CONFIG, RunError, RunFolder

SCENE, OBJECTS, PATCHES = "train", "pixelnerf train", "prior train"  # by the command that makes them
SECTIONS = {SCENE: {"scene", "run"}, OBJECTS: {"objects", "encoder"}, PATCHES: {"prior", "patches"}}
TAKEN_BY = {
    SCENE: "`taichi-nerf evaluate {0}` takes it, as do render, export and view",
    OBJECTS: "`taichi-nerf pixelnerf evaluate {0}` takes it, and `taichi-nerf pixelnerf render PICTURES --model {0}`",
    PATCHES: "`taichi-nerf train SCENE --prior {0}` takes it, as do prior score and prior sample",
}


def kind_of(path: Path) -> str | None:
    """The command that made the folder; None if that cannot be told."""
    try:
        settings = json.loads((path / CONFIG).read_bytes())["settings"]
        return next((kind for kind, sections in SECTIONS.items() if sections <= settings.keys()), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def require_kind(path: Path, wanted: str) -> None:
    """Complain about a folder that is known to be of another training."""
    found = kind_of(path)
    if found is not None and found != wanted:
        takers = TAKEN_BY[found].format(quote(path))
        raise RunError(path, f"is of `taichi-nerf {found}`, not of `taichi-nerf {wanted}`; {takers}")


def open_kind(path: Path, wanted: str) -> RunFolder:
    """`RunFolder.open` for who can use one kind alone."""
    require_kind(path, wanted)
    return RunFolder.open(path)
