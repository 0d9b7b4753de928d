"""A model folder to another one: what the stages learned, without the training's state, its pictures and its images."""

import shutil
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.generator.depth_pose.files import load_part
from taichi_nerf.generator.model_folder import ModelFolder
from taichi_nerf.training.atomic import replacing
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint

LARGE = 2048  # numbers from which a tensor is stored in 16 bits; smaller ones are schedules, means and biases


def copy_model(source: ModelFolder, target: ModelFolder, half: bool) -> None:
    """The stages that there are. `half`: large tensors in 16 bits, which the loaders widen again."""
    target.path.mkdir(parents=True, exist_ok=True)
    for name in ("generator", "refiner", "features"):
        if getattr(source, name).exists():
            state, _ = load_checkpoint(getattr(source, name))
            save_checkpoint(getattr(target, name), halved(state) if half else state, {})
    for name in ("directions", "about"):
        if getattr(source, name).exists():
            shutil.copyfile(getattr(source, name), getattr(target, name))
    if source.depth_pose.exists():
        target.depth_pose.mkdir(exist_ok=True)
        for file in sorted(source.depth_pose.iterdir()):
            if file.suffix != ".pth" or not half:
                shutil.copyfile(file, target.depth_pose / file.name)
                continue
            with replacing(target.depth_pose / file.name) as stream:
                torch.save(halved(load_part(file)), stream)


def halved(values: Any) -> Any:
    """Of a tree of dictionaries."""
    if isinstance(values, dict):
        return {name: halved(value) for name, value in values.items()}
    if isinstance(values, Tensor) and values.dtype == torch.float32 and values.numel() >= LARGE:
        return values.half()
    return values
