"""A model folder: a generator and what was learned about it, one file a stage.

    MODEL/generator.safetensors    the generator's running mean and its sizes
    MODEL/directions.npz           directions in W, GANSpace's layout, and which of them is the yaw
    MODEL/depth_pose/              depth and pose networks, Monodepth2's layout
    MODEL/refiner.safetensors      the latent refiner
    MODEL/features.safetensors     features of the set, for evaluation
    MODEL/about.json               of each stage: settings, seconds, machine
    MODEL/gan.safetensors, gan.jsonl, images.npz     the training's state, its course, its pictures
    MODEL/pictures/*.png           what each stage looks like
    MODEL/.lock, .stages.lock      held by who trains the generator, and by who runs one of the stages after it: they write
                                   different files but for about.json, which they change in turn (.about.lock)

`builtin` is the folder beside this file, with the model of procedural heads that comes with the program.
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

from taichi_nerf import __version__
from taichi_nerf.export.files import write_whole
from taichi_nerf.file_error import FileError, one_line
from taichi_nerf.generator.stylegan2.generator import Generator, GeneratorSettings
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.atomic import in_turn
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint

BUILTIN = Path(__file__).parent / "builtin"
STAGES_LOCK = ".stages.lock"
BEFORE_ITS_FIRST_STATE = ("images.npz", "gan.jsonl", "pictures")  # what a training leaves that was killed by then
TRAIN = "train IMAGES --out MODEL"  # the command that makes a generator


class ModelError(FileError):
    """A model folder that lacks something. The message is one line, names the file, and tells how to make it."""


class ModelFolder:
    """The files of one model; `name` is a folder or `builtin`."""

    def __init__(self, name: Path | str):
        self.path = BUILTIN if str(name) == "builtin" else Path(name)
        self.name = str(name)
        self.generator = self.path / "generator.safetensors"
        self.directions = self.path / "directions.npz"
        self.depth_pose = self.path / "depth_pose"
        self.refiner = self.path / "refiner.safetensors"
        self.features = self.path / "features.safetensors"
        self.about = self.path / "about.json"
        self.gan = self.path / "gan.safetensors"
        self.metrics = self.path / "gan.jsonl"
        self.images = self.path / "images.npz"
        self.pictures = self.path / "pictures"

    @property
    def is_fixed(self) -> bool:
        """Whether nothing may be put into it beside what was asked for: it is the built-in one, or not ours to write."""
        return self.path == BUILTIN or not os.access(self.path, os.W_OK)

    def may_change(self) -> "ModelFolder":
        """The folder, unless it is the built-in one."""
        if self.path == BUILTIN:
            hint = "`taichi-nerf generator convert builtin FOLDER` copies it"
            raise ModelError(self.name, f"comes with the program and stays as it is; {hint}")
        return self

    def may_begin(self) -> "ModelFolder":
        """The folder, unless a training that begins would replace what is there; later stages belong to the one they saw."""
        if self.gan.exists():
            raise ModelError(self.path, "holds a training already; --resume goes on with it")
        if self.generator.exists():
            raise ModelError(self.path, "holds a generator already, without its training; choose another folder")
        there = sorted(file.name for file in self.path.iterdir()) if self.path.is_dir() else []
        others = [name for name in there if name not in BEFORE_ITS_FIRST_STATE and not name.startswith(".")]
        if others:
            raise ModelError(self.path, f"is no model and not empty (it holds {others[0]}); choose another --out")
        return self

    def needs(self, file: Path, stage: str) -> Path:
        """The file or folder if it is there; otherwise which command makes it, or the generator if even that is missing."""
        if file.exists():
            return file
        self._refuse_file()
        if not self.path.is_dir():
            raise ModelError(self.name, f"no such model folder; `taichi-nerf generator {TRAIN}` makes one")
        if not self.generator.exists():
            file, stage = self.generator, TRAIN
        raise ModelError(file, f"is missing; `taichi-nerf generator {stage}` makes it")

    def save_generator(self, generator: Generator) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        state = {"settings": to_json_dict(generator.settings), "weights": generator.state_dict()}
        save_checkpoint(self.generator, state, {})

    def load_generator(self) -> Generator:
        """Frozen, in 32 bits, on the CPU."""
        state, _ = load_checkpoint(self.needs(self.generator, TRAIN))
        try:
            generator = Generator(from_json_dict(GeneratorSettings, state["settings"], str(self.generator)))
            generator.load_state_dict(state["weights"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ModelError(self.generator, f"is no generator ({one_line(error, 120)})") from None
        return generator.eval().requires_grad_(False)

    def _refuse_file(self) -> None:
        if self.path.is_file():
            raise ModelError(self.name, "is a file; a model is a folder (`taichi-nerf generator convert` makes one)")

    def read_about(self) -> dict[str, Any]:
        self._refuse_file()
        try:
            found = json.loads(self.about.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ModelError(self.about, f"cannot be read ({error})") from None
        return found if isinstance(found, dict) else {}

    def tell_about(self, stage: str, told: dict[str, Any]) -> None:
        """Note how a stage was made; what was told of the others stays."""
        machine = {"machine": f"{platform.system()} {platform.machine()}", "taichi_nerf": __version__}
        with in_turn(self.path / ".about.lock"):
            text = json.dumps({**self.read_about(), stage: {**told, **machine}}, indent=1)
            write_whole(self.about, text.encode() + b"\n")
