"""A model folder to another one: what the stages learned, without the training's state, its pictures and its images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.export.files import write_whole
from taichi_nerf.generator.depth_pose.files import load_part
from taichi_nerf.generator.model_folder import ModelFolder
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint
from taichi_nerf.weight_files import weight_bytes

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
            copy_whole(getattr(source, name), getattr(target, name))
    if source.depth_pose.exists():
        target.depth_pose.mkdir(exist_ok=True)
        for file in sorted(source.depth_pose.iterdir()):
            if file.suffix != ".pth" or not half:
                copy_whole(file, target.depth_pose / file.name)
            else:
                write_whole(target.depth_pose / file.name, weight_bytes(halved(load_part(file))))


def copy_whole(source: Path, target: Path) -> None:
    write_whole(target, source.read_bytes())


def halved(values: Any) -> Any:
    """Of a tree of dictionaries."""
    if isinstance(values, dict):
        return {name: halved(value) for name, value in values.items()}
    if isinstance(values, Tensor) and values.dtype == torch.float32 and values.numel() >= LARGE:
        return values.half()
    return values
