"""A residual network over pictures, in torchvision's layout, and the pyramid of features that pixelNeRF looks points up in.

He et al. 2016; Yu et al. 2021, section 4.1. Taps: after the first convolution (half the picture's size), and after each of three
stages. `features` brings all of them to the size of the first, by bilinear interpolation that keeps corners in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from taichi_nerf.fields.ranges import WIDTHS, check_ranges

N_BLOCKS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


@dataclass(frozen=True)
class EncoderSettings:
    kind: Literal["resnet10", "resnet18", "resnet34"] = "resnet34"
    width: int = 64  # channels of the first stage; each further one has twice as many
    n_stages: int = 4  # of which three are looked at: torchvision's files have a fourth
    first_pool: bool = True  # halve once more before the first stage; not for pictures of 64 pixels, says the published code

    def __post_init__(self) -> None:
        check_ranges(self, width=(1, WIDTHS[1] // 8), n_stages=(3, 4))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the taps."""
        return self.width, self.width, 2 * self.width, 4 * self.width


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))), each convolution with batch normalisation."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        same = stride == 1 and n_in == n_out
        self.downsample = None if same else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """torchvision's names without the classifier: conv1, bn1, layer1 to layer4."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        width, self.first_pool = settings.width, settings.first_pool
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        n_in = width
        for stage in range(settings.n_stages):
            n_out, n_blocks = width << stage, N_BLOCKS[settings.kind][stage]
            strides = [1 if stage == 0 else 2] + [1] * (n_blocks - 1)
            blocks = [Block(n_in if i == 0 else n_out, n_out, stride) for i, stride in enumerate(strides)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            n_in = n_out

    def taps(self, x: Tensor) -> list[Tensor]:  # [n, 3, h, w]
        """[n, width, h / 2, w / 2], then of stages one to three. A fourth stage is not computed."""
        found = [self.bn1(self.conv1(x)).relu()]
        y = nn.functional.max_pool2d(found[0], 3, 2, 1) if self.first_pool else found[0]
        for name in ("layer1", "layer2", "layer3"):
            y = self.get_submodule(name)(y)
            found.append(y)
        return found


class ImageEncoder(nn.Module):
    """Pictures to features."""

    def __init__(self, settings: EncoderSettings, generator: torch.Generator):
        super().__init__()
        self.settings = settings
        self.model = ResNet(settings)
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, by outputs, as torchvision begins
                std = (2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1])) ** 0.5
                with torch.no_grad():
                    module.weight.normal_(0, std, generator=generator)

    @property
    def n_features(self) -> int:
        return sum(self.settings.widths)

    def forward(self, pictures: Tensor) -> list[Tensor]:  # [n, 3, h, w] from 0 to 1
        """The taps."""
        return self.model.taps((pictures - 0.5) / 0.5)

    def features(self, pictures: Tensor) -> Tensor:  # [n, 3, h, w] → [n, n_features, h / 2, w / 2]
        return torch.cat(upsampled(self(pictures)), 1)


def upsampled(taps: Sequence[Tensor]) -> list[Tensor]:
    """All at the size of the first."""
    size = taps[0].shape[2:]
    return [tap if tap.shape[2:] == size else enlarged(tap, size) for tap in taps]


def enlarged(tap: Tensor, size: Sequence[int]) -> Tensor:
    return nn.functional.interpolate(tap, size=list(size), mode="bilinear", align_corners=True)
