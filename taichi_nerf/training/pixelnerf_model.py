"""A trained pixelNeRF in one file of weights, with the settings that it was trained with: `model.safetensors`.

    save_model(file, Prior(field, config), {"seed": "0"})
    prior = load_prior("builtin", device)       # or a run folder, a model file, or the authors' pixel_nerf_latest
    encoded = prior.encode(item, [0], device); picture = prior.picture(encoded, rays, size, near_far)

`builtin` is the model that comes with this package: chairs and cars of its procedural families, at 64 x 64 pixels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from taichi_nerf.choices import LEVELS
from taichi_nerf.fields.pixel_aligned_field import Encoded, PixelAlignedField
from taichi_nerf.file_error import one_line
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Picture
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.atomic import replacing
from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.pixelnerf_config import ObjectSettings, PixelNerfConfig, PixelNerfRun, changed, published
from taichi_nerf.training.pixelnerf_objects import ViewedObject
from taichi_nerf.training.pixelnerf_rays import render_picture
from taichi_nerf.training.pixelnerf_trainer import make_field
from taichi_nerf.training.run_folder import RunError
from taichi_nerf.training.run_kinds import OBJECTS, open_kind
from taichi_nerf.training.tensor_file import read_tensors, write_tensors
from taichi_nerf.weights import pixelnerf

BUILTIN = Path(__file__).with_name("pixelnerf_builtin.safetensors")
MODEL_FILE = "model.safetensors"
OF_TRAINING = dict.fromkeys(("run", "batch", "optimiser"), "on a model that is trained")


@dataclass(frozen=True)
class Prior:
    """What knows how objects look."""

    field: PixelAlignedField
    config: PixelNerfConfig
    name: str = ""

    @property
    def background(self) -> float:
        return LEVELS[self.config.objects.background]

    @torch.no_grad()
    def encode(self, item: ViewedObject, sources: list[int], device: torch.device) -> Encoded:
        """What these views tell of the object."""
        return self.field.encode(item.sources(sources, device))

    def picture(
        self, encoded: Encoded, rays: Rays, size: tuple[int, int], near_far: tuple[float, float], seed: int | None = None
    ) -> Picture:
        """What all pixels see, over the background. The published code draws its samples at random; `seed` does so, too."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return render_picture(self.field, encoded, rays, size, near_far, self.config.sampling, self.background, generator)


def save_model(file: Path, prior: Prior, about: dict[str, str]) -> None:
    """Weights in 16 bits would cost a thousandth of the colors; they stay in 32."""
    header = {"kind": "pixelnerf", "settings": json.dumps(to_json_dict(prior.config)), **about}
    with replacing(file) as stream:
        write_tensors(stream, dict(prior.field.state_dict()), header)


def load_prior(
    place: str | Path, device: torch.device, changes: Sequence[str] = (), idle: Mapping[str, str] = MappingProxyType({})
) -> Prior:
    """Ready to be asked, with `changes` of its settings: the authors' files say none. Those of training are none to change, nor
    what is `idle` for the caller, each with the reason."""
    idle = {**OF_TRAINING, **idle}
    file = BUILTIN if str(place) == "builtin" else Path(place)
    if not file.exists():
        raise RunError(file, "no such model: expected builtin, a run of `taichi-nerf pixelnerf train`, or a file of weights")
    if file.is_dir():
        return _of_run(file, device, changes, idle)
    if file.suffix != ".safetensors":
        return _published(file, device, changes, idle)
    try:
        tensors, header = read_tensors(file)
    except ValueError as error:
        raise RunError(file, str(error)) from None
    if header.get("kind") != "pixelnerf":
        raise RunError(file, "holds no pixelNeRF of this package")
    config = from_json_dict(PixelNerfConfig, json.loads(header["settings"]), str(file))
    return _with(tensors, changed(config, changes, idle), file, device)


def _of_run(path: Path, device: torch.device, changes: Sequence[str], idle: Mapping[str, str]) -> Prior:
    if (path / MODEL_FILE).is_file():
        return load_prior(path / MODEL_FILE, device, changes, idle)
    folder = open_kind(path, OBJECTS)
    config = from_json_dict(PixelNerfConfig, folder.read_config()["settings"], str(folder.config))
    return _with(load_checkpoint(folder.checkpoint)[0]["model"], changed(config, changes, idle), folder.checkpoint, device)


def _published(file: Path, device: torch.device, changes: Sequence[str], idle: Mapping[str, str]) -> Prior:
    """The authors' weights, with the sampling that they were trained with. All else is as for SRN's sets, if not changed."""
    config = published(ObjectSettings(""), PixelNerfRun(steps=1))
    config = replace(config, field=replace(config.field, compat="repo"))
    return _with(pixelnerf.read_checkpoint(file), changed(config, changes, idle), file, device)


def _with(tensors: dict[str, torch.Tensor], config: PixelNerfConfig, file: Path, device: torch.device) -> Prior:
    field = make_field(config)
    try:
        field.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        raise RunError(file, f"does not fit to its settings ({one_line(error, 160)})") from None
    return Prior(field.to(device).eval(), config, file.stem)
