"""Options that several commands of `taichi-nerf generator` share."""

import sys
from typing import TYPE_CHECKING

import click

from taichi_nerf.apps.scene_options import Views

if TYPE_CHECKING:
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.runtime import Backend
    from taichi_nerf.training.interrupt import StopSignals

model_option = click.option("--model", "model", required=True, metavar="MODEL", help="A model folder.")


class Seeds(Views):
    """500-599 or 1,4,7"""

    name = "seeds"
    EXPECTED = "seeds such as 500-599 or 1,4,7"
    LARGEST = 10**7  # all that have as many digits


class LayerRange(click.ParamType):
    """0-4: the codes 0 to 4."""

    name = "first-last"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition("-")
        if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
            self.fail(f"expected the first and the last layer, such as 0-4, got {value!r}", param, ctx)
        return int(first), int(last) + 1


def ended(stop: "StopSignals") -> None:
    """Leave with the signal's exit status if a stage was ended by one; what it learned up to then is saved."""
    if stop.requested:
        click.echo("stopped before its end; what was learned until then is saved", err=True)
        sys.exit(stop.exit_status)


def hold_generator(folder: "ModelFolder") -> None:
    """Keep others from training the generator as long as the command lasts."""
    from taichi_nerf.training.folder_lock import FolderLock

    click.get_current_context().with_resource(FolderLock(folder.path))


def hold_stages(folder: "ModelFolder") -> None:
    """Keep others from what is learned about the generator as long as the command lasts. It may be trained meanwhile: who is
    not its trainer gets its last saved state."""
    from taichi_nerf.generator.model_folder import STAGES_LOCK
    from taichi_nerf.training.folder_lock import FolderLock

    click.get_current_context().with_resource(FolderLock(folder.path, "--model", STAGES_LOCK))


def start_backend(arch: str) -> "Backend":
    from taichi_nerf import runtime

    return runtime.start(arch)
