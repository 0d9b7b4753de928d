"""Monodepth2's folders, from and to: encoder.pth, depth.pth, pose_encoder.pth, pose.pth; and what they do not say, settings.json.

Its encoder.pth holds the size of the images beside the weights, and all encoders a classifier that nobody uses; both are written,
and neither is needed. Nothing in a file is executed.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.export.files import write_whole
from taichi_nerf.file_error import FileError
from taichi_nerf.generator.depth_pose.model import DepthPose, DepthPoseSettings
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.atomic import replacing
from taichi_nerf.weight_files import read_weights, weight_bytes

PARTS = {"encoder": "encoder", "depth": "depth_decoder", "pose_encoder": "pose_encoder", "pose": "pose_decoder"}
N_CLASSES = 1000  # of ImageNet's classifier
SETTINGS = "settings.json"


class DepthPoseError(FileError):
    """A folder of networks that cannot be used. The message is one line and names the file."""


def save_depth_pose(folder: Path, model: DepthPose) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in PARTS.items():
        state: dict[str, Any] = {name: value.detach().cpu() for name, value in getattr(model, part).state_dict().items()}
        if file.endswith("encoder"):
            n_features = 8 * model.settings.width
            state["encoder.fc.weight"] = torch.zeros(N_CLASSES, n_features) if n_features == 512 else torch.zeros(1, n_features)
            state["encoder.fc.bias"] = torch.zeros(len(state["encoder.fc.weight"]))
        if file == "encoder":
            state |= {"height": model.settings.size, "width": model.settings.size, "use_stereo": False}
        with replacing(folder / f"{file}.pth") as stream:
            stream.write(weight_bytes(state))
    told = {**to_json_dict(model.settings), "focal": float(model.root_of_focal.detach().square())}
    write_whole(folder / SETTINGS, json.dumps(told, indent=1).encode() + b"\n")


def load_depth_pose(folder: Path) -> DepthPose:
    """Frozen. A folder of Monodepth2's has no settings.json: its own are taken (0.1 to 100, pivot 0, shift 1)."""
    states = {file: load_part(folder / f"{file}.pth") for file in PARTS}
    settings, focal = _settings(folder, states["encoder"])
    with torch.device("meta"):  # shapes alone: what does not fit costs no memory, whatever sizes the files claim
        shapes = DepthPose(settings)
    fitting = {part: _fitting(getattr(shapes, part), states[file], folder / f"{file}.pth") for file, part in PARTS.items()}
    model = DepthPose(settings)
    for part, state in fitting.items():
        getattr(model, part).load_state_dict(state)
    if focal is not None:
        model.root_of_focal.data.fill_(focal**0.5)
    return model.eval().requires_grad_(False)


def _settings(folder: Path, encoder: dict[str, Any]) -> tuple[DepthPoseSettings, float | None]:
    file = folder / SETTINGS
    if file.is_file():
        try:
            told = json.loads(file.read_bytes())
            focal = float(told.pop("focal"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DepthPoseError(file, f"is not what this program writes ({error})") from None
        return from_json_dict(DepthPoseSettings, told, str(file)), focal
    first = encoder.get("encoder.conv1.weight")
    if not isinstance(first, Tensor):
        raise DepthPoseError(folder / "encoder.pth", "has no encoder.conv1.weight; expected Monodepth2's encoder")
    size = max(64, int(encoder.get("height", 64)) // 32 * 32)
    return DepthPoseSettings(width=len(first), size=size, nearest=0.1, farthest=100.0, pivot=0.0, shift=1.0), None


def _fitting(module: nn.Module, state: dict[str, Any], file: Path) -> dict[str, Tensor]:
    """What the module has of a file, if that is all that it has."""
    ours = module.state_dict()
    known = {name: value for name, value in state.items() if name in ours and isinstance(value, Tensor)}
    wrong = [name for name in ours if name not in known or known[name].shape != ours[name].shape]
    if wrong:
        found = tuple(known[wrong[0]].shape) if wrong[0] in known else "missing"
        raise DepthPoseError(file, f"{wrong[0]}: expected shape {tuple(ours[wrong[0]].shape)}, it is {found}")
    return known


def load_part(file: Path) -> dict[str, Any]:
    """What one of the folder's files holds."""
    found = read_weights(file, f"{file.name} of Monodepth2", DepthPoseError)
    if not isinstance(found, dict):
        raise DepthPoseError(file, "expected weights by name")
    return found
