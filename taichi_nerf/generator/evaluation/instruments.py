"""What a model is measured with: its own features, or networks and real images that the user brings."""

from pathlib import Path

import torch

from taichi_nerf.generator.evaluation.feature_files import load_features
from taichi_nerf.generator.evaluation.features import NAME
from taichi_nerf.generator.evaluation.published_features import embedder as load_embedder
from taichi_nerf.generator.evaluation.published_features import inception_features
from taichi_nerf.generator.evaluation.report import Embed, Instruments
from taichi_nerf.generator.heads import HELD_OUT, heads, pictures_of
from taichi_nerf.generator.image_set import open_image_set
from taichi_nerf.generator.model_folder import ModelFolder
from taichi_nerf.generator.stages import make_features
from taichi_nerf.report import Report, silent

N_REAL = 100  # persons whose pictures stand for real images of the built-in model


def instruments(
    folder: ModelFolder, images: str | None, inception: Path | None, embedder: Path | None, train: int | None,
    device: torch.device, report: Report = silent,
) -> Instruments:  # fmt: skip
    """Features, embedder and regressor of the model's own or of the user's files, and real images."""
    if train is not None:
        folder.may_change()  # said now rather than after minutes of training
    # Files are opened first: one that cannot be used is told of before minutes of rendering and training.
    published = None if inception is None else inception_features(inception)
    other = None if embedder is None else load_embedder(embedder)
    size = folder.load_generator().settings.resolution
    real = None
    if images is not None:
        # What the folder holds stays: it is what later evaluations take unasked.
        real = pictures_of(images, size, folder.images, not (folder.is_fixed or folder.images.exists()), report)
    elif folder.images.exists():
        real = open_image_set(folder.images, size)
    if train is not None:
        if real is None:
            raise ValueError("--train-features needs real images: give --images")
        make_features(folder, real, train, device, report=report)
    if real is None and folder.name == "builtin":
        real = heads(range(HELD_OUT, HELD_OUT + N_REAL), 4, size, report=report)
    own = load_features(folder.features).to(device) if folder.features.exists() else None
    name = None if own is None else NAME
    features: Embed | None = None if own is None else own.features
    if published is not None:
        features, name = published, "inception-2015-12-05"
    identity: Embed | None = None if own is None else own.identity
    if other is not None:
        identity = other
    yaws = own.yaws if own is not None and own.settings.knows_yaw else None
    return Instruments(name, features, identity, yaws, None if real is None else real.images)
