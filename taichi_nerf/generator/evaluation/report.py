"""The figures of turned subjects: consistency with the source, distances to real images, and how far they turn.

    {"gan_space": {"warp_error", "ssim", "identity", "fid", "kid", "yaw_span"}, "refined": {…},
     "yaw_correlation", "pose_correlation", "pose_preservation", "kid_difference": {"value", "deviation"},
     "ranges": {"20", "40", "full"}, "features", "missing"}

What cannot be measured is null, and `missing` says which file would let it be. Angles are degrees from where the source looks.
FID and KID within a range are distances to the real images within it, if yaws can be told of these; else to all of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.generator.evaluation.distances import frechet_distance, kernel_difference, kernel_distance
from taichi_nerf.generator.evaluation.turned import Both, Views
from taichi_nerf.metrics import ssim

Embed = Callable[[Tensor], Tensor]  # images [n, 3, h, w] from −1 to 1 to vectors [n, d]
RANGES = {"20": 20.0, "40": 40.0, "full": 360.0}
CHUNK = 128
FEWEST = 16  # images from which a distance between sets is told
MISSING = {
    "fid": "features of images: MODEL/features.safetensors (`generator evaluate --train-features`), or --inception with "
    "inception-2015-12-05.pt from NVIDIA's stylegan2-ada-pytorch metrics",
    "real": "real images: give --images, or train the model with heads",
    "identity": "an embedder: MODEL/features.safetensors, or --embedder with a TorchScript file (ArcFace for faces)",
    "yaw": "a yaw regressor: features trained on images with known yaw; the pose network's angle is used instead",
}


class Instruments:
    """What measures: features for distances, an embedder for identity, a regressor for yaw; each may be missing."""

    def __init__(self, name: str | None = None, features: Embed | None = None, identity: Embed | None = None,
                 yaws: Embed | None = None, real: NDArray[np.uint8] | None = None):  # fmt: skip
        self.name, self.features, self.identity, self.yaws = name, features, identity, yaws
        self.real = None if real is None or features is None else in_chunks(features, _with_channels_first(real))
        self.real_yaws = None if real is None or yaws is None else in_chunks(yaws, _with_channels_first(real))

    def real_within(self, degrees: float, ahead: Tensor) -> Tensor:
        """Features of the real images that look at most so far from where sources, by their yaws, do."""
        assert self.real is not None
        if self.real_yaws is None or degrees >= RANGES["full"]:
            return self.real
        middle = torch.atan2(ahead.sin().mean(), ahead.cos().mean())
        return self.real[_degrees(self.real_yaws - middle).abs() <= degrees]


def _with_channels_first(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def as_floats(images: Tensor) -> Tensor:
    """[n, 3, h, w] from −1 to 1; of bytes or as they are."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


@torch.no_grad()
def in_chunks(function: Embed, images: Tensor) -> Tensor:
    """Bytes become floats a chunk at a time: tens of thousands of images are gigabytes as floats."""
    return torch.cat([function(as_floats(chunk)).cpu() for chunk in images.split(CHUNK)])


def _degrees(angles: Tensor) -> Tensor:
    """Of radians, from −180 to 180."""
    return torch.rad2deg(torch.atan2(angles.sin(), angles.cos()))


def figures(both: Both, tools: Instruments) -> dict[str, Any]:
    """All figures, ready for JSON."""
    missing = {}
    if tools.features is None:
        missing["fid"] = missing["kid"] = MISSING["fid"]
    elif tools.real is None:
        missing["fid"] = missing["kid"] = MISSING["real"]
    if tools.identity is None:
        missing["identity"] = MISSING["identity"]
    if tools.yaws is None:
        missing["yaw"] = MISSING["yaw"]
    views = {"gan_space": both.gan_space} | ({} if both.refined is None else {"refined": both.refined})
    measured = {name: _Measured(each, tools) for name, each in views.items()}
    found: dict[str, Any] = {name: each.within(RANGES["full"], tools) for name, each in measured.items()}
    plain = measured["gan_space"]
    found["yaw_correlation"] = None if tools.yaws is None else correlation(both.gan_space.steps.expand_as(plain.yaws), plain.yaws)
    found["pose_correlation"] = None if tools.yaws is None else correlation(both.gan_space.turns, plain.yaws)
    if both.refined is not None:
        found["pose_preservation"] = slope(both.gan_space.turns, both.refined.turns)
        found["kid_difference"] = difference(plain, measured["refined"], tools)
    found["ranges"] = {
        name: {method: each.within(limit, tools) for method, each in measured.items()} for name, limit in RANGES.items()
    }
    found["features"] = tools.name
    found["missing"] = missing
    return found


class _Measured:
    """What is known of every image of some views."""

    def __init__(self, views: Views, tools: Instruments):
        n, k = views.images.shape[:2]
        flat = views.images.flatten(0, 1)
        self.views = views
        self.features = None if tools.features is None else in_chunks(tools.features, flat).unflatten(0, (n, k))
        identity = None if tools.identity is None else in_chunks(tools.identity, flat).unflatten(0, (n, k))
        self.likeness = None
        if identity is not None:
            self.likeness = torch.cosine_similarity(identity, identity[:, views.middle, None], dim=-1)
        yaws = views.turns if tools.yaws is None else in_chunks(tools.yaws, flat).view(n, k)
        self.ahead = yaws[:, views.middle]
        self.yaws = _degrees(yaws - self.ahead[:, None])
        pictures = ((flat + 1) / 2).permute(0, 2, 3, 1).unflatten(0, (n, k))
        self.ssims = torch.tensor([[ssim(p, row[views.middle]) for p in row] for row in pictures])

    def within(self, degrees: float, tools: Instruments) -> dict[str, float | None]:
        """Means over the turned images at most so far from the source; the sources themselves do not count."""
        chosen = self.yaws.abs() <= degrees
        chosen[:, self.views.middle] = False
        fid = kid = None
        if self.features is not None and tools.real is not None:
            sets = self.features[chosen], tools.real_within(degrees, self.ahead)
            made, real = (each.double().numpy() for each in sets)
            if len(made) >= FEWEST and len(real) >= 2:
                fid = frechet_distance(made, real)
                kid = kernel_distance(made, real)
        angles = torch.where(chosen | (torch.arange(chosen.shape[1]) == self.views.middle), self.yaws, 0.0)
        return {
            "warp_error": mean(self.views.warp_errors[chosen]),
            "ssim": mean(self.ssims[chosen]),
            "identity": None if self.likeness is None else mean(self.likeness[chosen]),
            "fid": fid,
            "kid": kid,
            "yaw_span": mean(angles.amax(1) - angles.amin(1)),
            "n_images": int(chosen.sum()),
        }


def difference(plain: _Measured, refined: _Measured, tools: Instruments) -> dict[str, float] | None:
    """By how much refining changes KID, of independent pairs alone, and how much of that chance explains."""
    if plain.features is None or refined.features is None or tools.real is None or len(plain.features) < 3 or len(tools.real) < 2:
        return None
    turned = torch.arange(plain.features.shape[1]) != plain.views.middle
    sets = (plain.features[:, turned], refined.features[:, turned], tools.real)
    value, deviation = kernel_difference(*(each.double().numpy() for each in sets))
    return {"value": value, "deviation": deviation}


def mean(values: Tensor) -> float | None:
    """Of what is a number; null of nothing."""
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, of all pairs."""
    a, b = a.flatten().double(), b.flatten().double()
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 0 else None


def slope(a: Tensor, b: Tensor) -> float | None:
    """Of b = s a, by least squares: the share of a turn that is kept."""
    a, b = a.flatten().double(), b.flatten().double()
    return float(a @ b / a.square().sum()) if float(a.abs().sum()) > 0 else None
