"""The discriminator of StyleGAN2 (Karras et al. 2020): residual blocks, the spread of the batch, one number an image.

Modules and parameters are named as in NVIDIA's PyTorch code.
"""

import math

import torch
from torch import Tensor, nn

from taichi_nerf.generator.stylegan2.generator import GeneratorSettings
from taichi_nerf.generator.stylegan2.layers import Convolution, FullyConnected

GROUP = 4  # images over which a spread is measured


def spread_of_batch(values: Tensor, group: int = GROUP) -> Tensor:
    """[n, c + 1, h, w]: one more channel, the mean standard deviation over a group of images (Karras et al. 2018).

    Images n / group apart form a group, as in the published code; a batch that does not divide is one group.
    """
    n, c, h, w = values.shape
    size = group if n % group == 0 else n
    grouped = values.float().reshape(size, n // size, c, h, w)
    deviation = (grouped.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # [n / size]
    return torch.cat([values, deviation.repeat(size).view(n, 1, 1, 1).expand(n, 1, h, w).to(values.dtype)], 1)


class Block(nn.Module):
    """Half the resolution: two convolutions, and one of a single pixel past them."""

    def __init__(self, n_in: int, n_out: int, from_colors: bool):
        super().__init__()
        if from_colors:
            self.fromrgb = Convolution(3, n_in, 1)
        self.conv0 = Convolution(n_in, n_in, 3)
        self.conv1 = Convolution(n_in, n_out, 3, down=True)
        self.skip = Convolution(n_in, n_out, 1, down=True, activated=False, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        past = self.skip(values, gain=math.sqrt(0.5))
        return self.conv1(self.conv0(values), gain=math.sqrt(0.5)) + past


class Last(nn.Module):
    """From 4x4 to a number."""

    def __init__(self, n_channels: int):
        super().__init__()
        self.conv = Convolution(n_channels + 1, n_channels, 3)
        self.fc = FullyConnected(n_channels * 16, n_channels, activated=True)
        self.out = FullyConnected(n_channels, 1)

    def forward(self, values: Tensor) -> Tensor:
        values = self.conv(spread_of_batch(values))
        return self.out(self.fc(values.float().flatten(1)))


class Discriminator(nn.Module):
    """Images [n, 3, h, w] from −1 to 1 to logits [n, 1]: high for what looks real."""

    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.settings = settings
        self.precision = torch.float32
        self.sizes = settings.resolutions[:0:-1]  # from the images' down to 8
        for size in self.sizes:
            block = Block(settings.channels(size), settings.channels(size // 2), size == settings.resolution)
            setattr(self, f"b{size}", block)
        self.b4 = Last(settings.channels(4))

    def forward(self, images: Tensor) -> Tensor:
        values = images.to(self.precision).contiguous(memory_format=torch.channels_last)
        values = getattr(self, f"b{self.sizes[0]}").fromrgb(values)
        for size in self.sizes:
            values = getattr(self, f"b{size}")(values)
        return self.b4(values)
