"""Patches to train a denoiser on, cut from pictures with depth.

A picture has colors, depth along the axis in metres and a focal length in pixels. Patches are windows of it, shrunk to `size`
pixels so that the focal length in patch pixels lies between two bounds: the angle of a pixel is part of what a prior knows.
Pictures that are much finer than any patch are shrunk once, at the start.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf.priors.channels import NEAREST, Variant, to_channels

MOST_UNKNOWN = 0.05  # share of a window whose depth is not known
LEAST_FILLED = 0.1  # share of a window that shows something
ATTEMPTS = 50  # to find such a window
FINER = 1.25  # than the finest patches: pictures that are kept


class RgbdPicture(NamedTuple):
    color: Tensor  # [h, w, 3] uint8
    inverse: Tensor  # [h, w] float16: 1 / metres, 0 where there is nothing, below 0 where unknown
    alpha: Tensor  # [h, w] uint8: 0 where nothing is
    focal: float  # pixels
    n_pixels: int = 0  # that it had before it was shrunk; 0: as many as it has


@dataclass(frozen=True)
class Augmentation:
    """What else a patch could have been."""

    mirrored: bool = True
    hue: float = 0.3  # share of patches whose colors change places
    brightness: float = 0.25  # how far gains and exponents of colors stray from 1, in logarithms
    depth: float = 0.3  # how far lengths stray: scenes may be scaled to metres by a guess


class PatchSet:
    """Random patches of many pictures. Windows are as likely as the pictures that they are cut from are large."""

    def __init__(
        self,
        pictures: list[RgbdPicture],
        size: int = 24,
        focal: tuple[float, float] = (70.0, 130.0),  # of patches, in their pixels
        variant: Variant = "rgbd",
        augmentation: Augmentation = Augmentation(),
        nearest: float = NEAREST,  # metres: what inverse depth of patches is a share of
    ):
        usable = [picture for picture in pictures if _largest_focal(picture, size) >= focal[0]]
        if not usable:
            raise ValueError(f"no picture holds a patch of {size} pixels at a focal length of {focal[0]:g} or more")
        self.pictures = [no_finer(picture, focal[1]) for picture in usable]
        self.size, self.focal, self.nearest = size, focal, nearest
        self.variant, self.augmentation = variant, augmentation
        self._areas = torch.tensor([float(picture.n_pixels or picture.inverse.numel()) for picture in usable])

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n patches [n, channels, size, size] in [-1, 1]."""
        places = torch.multinomial(self._areas, n, replacement=True, generator=generator).tolist()
        windows = [self._window(self.pictures[place], generator) for place in places]
        color, inverse = (torch.stack(part) for part in zip(*windows, strict=True))
        return to_channels(*self._changed(color, inverse, generator), self.variant)

    def _window(self, picture: RgbdPicture, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Color [size, size, 3] and inverse depth [size, size], from 0 to 1."""
        height, width = picture.inverse.shape
        low, high = self.focal[0], min(self.focal[1], picture.focal)
        for _ in range(ATTEMPTS):
            chance, x, y, *background = torch.rand(6, generator=generator).tolist()
            focal = low * (max(high, low) / low) ** chance
            side = min(max(round(self.size * picture.focal / focal), self.size), height, width)
            left, top = int(x * (width - side + 1)), int(y * (height - side + 1))
            inside = (slice(top, top + side), slice(left, left + side))
            inverse = picture.inverse[inside].float()
            unknown = inverse < 0
            share = float(unknown.float().mean())
            alpha = picture.alpha[inside].float()[..., None] / 255
            if share <= MOST_UNKNOWN and float(alpha.mean()) >= LEAST_FILLED:
                break
        if bool(unknown.all()):
            inverse = torch.zeros_like(inverse)
        elif share:
            inverse = torch.where(unknown, inverse[~unknown].median(), inverse)
        inverse = (self.nearest * inverse).clamp(max=1)
        color = torch.lerp(torch.tensor(background), picture.color[inside].float() / 255, alpha)
        both = torch.cat([color, inverse[..., None] * alpha], -1).movedim(-1, 0)
        small = both if side == self.size else nn.functional.adaptive_avg_pool2d(both, self.size)
        return small[:3].movedim(0, -1), small[3]

    def _changed(self, color: Tensor, inverse: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n, settings = len(color), self.augmentation
        chance = torch.rand(5, n, 1, 1, generator=generator)
        if settings.mirrored:
            flip = chance[0] < 0.5
            color, inverse = torch.where(flip[..., None], color.flip(2), color), torch.where(flip, inverse.flip(2), inverse)
        if settings.hue:
            order = torch.randperm(3, generator=generator)
            color = torch.where((chance[1] < settings.hue)[..., None], color[..., order], color)
        gain, power = ((settings.brightness * (2 * share - 1)).exp()[..., None] for share in (chance[2], chance[3]))
        color = (gain * color.clamp_min(1e-4) ** power).clamp(0, 1)
        return color, (inverse * (settings.depth * (2 * chance[4] - 1)).exp()).clamp(0, 1)


def no_finer(picture: RgbdPicture, focal: float) -> RgbdPicture:
    """The picture as fine as patches of at most that focal length need it. Once is enough: then it stays as it is."""
    return shrunk(picture, int(picture.focal / (FINER * focal)))


def shrunk(picture: RgbdPicture, times: int) -> RgbdPicture:
    """The picture by means over squares of so many pixels, what is unknown of which is unknown."""
    if times < 2:
        return picture
    alpha = picture.alpha.float()[..., None] / 255
    inverse = picture.inverse.float()[..., None]
    parts = torch.cat([alpha * picture.color.float(), alpha * inverse.clamp_min(0), alpha, (inverse < 0).float()], -1)
    color, inverse, alpha, unknown = nn.functional.avg_pool2d(parts.movedim(-1, 0), times).movedim(0, -1).split([3, 1, 1, 1], -1)
    filled = alpha.clamp_min(1e-6)
    return RgbdPicture(
        (color / filled).round().byte(),
        torch.where(unknown > 0, -1.0, inverse / filled).half()[..., 0],
        (255 * alpha[..., 0]).round().byte(),
        picture.focal / times,
        picture.n_pixels or picture.inverse.numel(),
    )


def _largest_focal(picture: RgbdPicture, size: int) -> float:
    """Of patches that fit: those of the smallest windows."""
    return picture.focal if min(picture.inverse.shape) >= size else -math.inf
