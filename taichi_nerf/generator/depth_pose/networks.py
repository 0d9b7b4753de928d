"""Monodepth2's networks (Godard et al. 2019): a ResNet-18 encoder, a decoder to inverse depth, a decoder to relative pose.

`width` is the number of channels of the first layer: 64 as published, less for small images. Parameters are named as there, so
its encoder.pth, depth.pth, pose_encoder.pth and pose.pth fit (`files`).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from taichi_nerf.fields.image_encoder import Block

SCALES = 4
MEAN, SPREAD = 0.45, 0.225  # of ImageNet's pictures, about
POSE_SCALE = 0.01  # so that poses begin near the identity


class ResNet(nn.Module):
    """ResNet-18 without its classifier."""

    def __init__(self, n_in: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for i in range(4):
            after = width << i
            setattr(self, f"layer{i + 1}", nn.Sequential(Block(before, after, 1 if i == 0 else 2), Block(after, after, 1)))
            before = after


class Encoder(nn.Module):
    """Images [n, 3 · n_images, h, w] from 0 to 1 to features at a half, a quarter … a thirty-second of their size."""

    def __init__(self, width: int = 64, n_images: int = 1):
        super().__init__()
        self.channels = [width, *(width << i for i in range(4))]
        self.encoder = ResNet(3 * n_images, width)

    def forward(self, images: Tensor) -> list[Tensor]:
        net = self.encoder
        values = (images - MEAN) / SPREAD
        found = [net.bn1(net.conv1(values)).relu()]
        values = functional.max_pool2d(found[0], 3, 2, 1)
        for i in range(1, 5):
            values = getattr(net, f"layer{i}")(values)
            found.append(values)
        return found


class Convolution3(nn.Module):
    """3x3 with reflecting borders."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3)

    def forward(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.conv(functional.pad(values, (1, 1, 1, 1), mode="reflect")))


class ConvolutionElu(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = Convolution3(n_in, n_out)

    def forward(self, values: Tensor) -> Tensor:
        return functional.elu(self.conv(values))


class DepthDecoder(nn.Module):
    """Features to disparity from 0 to 1 [n, 1, h / 2^s, w / 2^s] at four scales s, the largest first."""

    def __init__(self, channels: list[int]):
        super().__init__()
        unit = channels[0]
        self.channels = [max(4, unit * k // 4) for k in (1, 2, 4, 8, 16)]
        layers: list[nn.Module] = []
        for i in range(4, -1, -1):
            layers.append(ConvolutionElu(channels[-1] if i == 4 else self.channels[i + 1], self.channels[i]))
            layers.append(ConvolutionElu(self.channels[i] + (channels[i - 1] if i > 0 else 0), self.channels[i]))
        layers += [Convolution3(self.channels[s], 1) for s in range(SCALES)]
        self.decoder = nn.ModuleList(layers)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        found: list[Tensor] = []
        values = features[-1]
        for step, i in enumerate(range(4, -1, -1)):
            values = functional.interpolate(self.decoder[2 * step](values), scale_factor=2.0, mode="nearest")
            if i > 0:
                values = torch.cat([values, features[i - 1]], 1)
            values = self.decoder[2 * step + 1](values)
            if i < SCALES:
                found.insert(0, torch.sigmoid(self.decoder[10 + i](values)))
        return found


class PoseDecoder(nn.Module):
    """The last features of a pair to axis-angle and translation [n, 6]; the second pose that it tells is not used, as there."""

    def __init__(self, n_channels: int):
        super().__init__()
        hidden = n_channels // 2
        sizes = [(n_channels, hidden, 1), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, 12, 1)]
        self.net = nn.ModuleList(nn.Conv2d(n_in, n_out, k, padding=k // 2) for n_in, n_out, k in sizes)

    def forward(self, features: list[Tensor]) -> Tensor:
        values = features[-1]
        for layer in self.net[:-1]:
            values = layer(values).relu()
        return cast(Tensor, POSE_SCALE * self.net[-1](values).mean((2, 3))[:, :6])
