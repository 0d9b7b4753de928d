"""The network that tells the noise in a noisy patch: the U-Net of Ho et al. (2020) as DiffusioNeRF has it.

At each level two residual blocks and linear attention, then half the resolution; full attention in the middle; the same upwards,
beside what was seen on the way down. With the published settings it has 36,254,980 parameters, under the published names.

ε = denoiser(x, t): x [n, channels, h, w] in [-1, 1] plus noise, t [n] from 0 to T - 1; h and w multiples of `multiple`.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from taichi_nerf.priors.denoiser_blocks import (
    N_GROUPS,
    Added,
    Attention,
    LinearAttention,
    Normalised,
    ResidualBlock,
    TimeEncoding,
    upsample,
)


@dataclass(frozen=True)
class DenoiserSettings:
    width: int = 64  # channels at full resolution
    multipliers: tuple[int, ...] = (1, 2, 4, 8)  # of the width, from level to level
    channels: int = 4  # of patches

    def __post_init__(self) -> None:
        if self.width % N_GROUPS or self.width < 1:
            raise ValueError(f"width: expected a multiple of {N_GROUPS}, got {self.width}")
        if not self.multipliers or min(self.multipliers) < 1 or self.channels < 1:
            raise ValueError(f"expected multipliers and channels from 1 on, got {self.multipliers} and {self.channels}")

    @property
    def multiple(self) -> int:
        """What the sides of patches have to be a multiple of."""
        return int(2 ** (len(self.multipliers) - 1))


class Denoiser(nn.Module):
    def __init__(self, settings: DenoiserSettings = DenoiserSettings()):
        super().__init__()
        self.settings = settings
        width, n_time = settings.width, 4 * settings.width
        widths = [width, *(width * multiplier for multiplier in settings.multipliers)]
        pairs = list(pairwise(widths))
        self.init_conv = nn.Conv2d(settings.channels, width, 7, padding=3)
        self.time_mlp = nn.Sequential(TimeEncoding(width), nn.Linear(width, n_time), nn.GELU(), nn.Linear(n_time, n_time))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (n_in, n_out) in enumerate(pairs):
            last = level == len(pairs) - 1
            smaller = nn.Conv2d(n_in, n_out, 3, padding=1) if last else nn.Conv2d(n_in, n_out, 4, 2, 1)
            self.downs.append(nn.ModuleList([*_blocks(n_in, n_in, n_time), smaller]))
        middle = widths[-1]
        self.mid_block1 = ResidualBlock(middle, middle, n_time)
        self.mid_attn = Added(Normalised(middle, Attention(middle)))
        self.mid_block2 = ResidualBlock(middle, middle, n_time)
        for level, (n_in, n_out) in reversed(list(enumerate(pairs))):
            larger = upsample(n_out, n_in) if level else nn.Conv2d(n_out, n_in, 3, padding=1)
            self.ups.append(nn.ModuleList([*_blocks(n_out + n_in, n_out, n_time), larger]))
        self.final_res_block = ResidualBlock(2 * width, width, n_time)
        self.final_conv = nn.Conv2d(width, settings.channels, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:  # [n, channels, h, w], [n] → [n, channels, h, w]
        if x.shape[1] != self.settings.channels or x.shape[2] % self.settings.multiple or x.shape[3] % self.settings.multiple:
            expected = f"[n, {self.settings.channels}, h, w], h and w multiples of {self.settings.multiple}"
            raise ValueError(f"denoiser: expected patches {expected}; got {list(x.shape)}")
        time = self.time_mlp(t.to(x.dtype))
        x = first = self.init_conv(x)
        passed = []
        for level in self.downs:
            block1, block2, attention, smaller = _layers(level)
            x = block1(x, time)
            passed.append(x)
            x = attention(block2(x, time))
            passed.append(x)
            x = smaller(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for level in self.ups:
            block1, block2, attention, larger = _layers(level)
            x = block1(torch.cat([x, passed.pop()], 1), time)
            x = attention(block2(torch.cat([x, passed.pop()], 1), time))
            x = larger(x)
        return self.final_conv(self.final_res_block(torch.cat([x, first], 1), time))


def _layers(level: nn.Module) -> list[nn.Module]:
    return list(level.children())


def _blocks(n_in: int, n_out: int, n_time: int) -> list[nn.Module]:
    attention = Added(Normalised(n_out, LinearAttention(n_out)))
    return [ResidualBlock(n_in, n_out, n_time), ResidualBlock(n_in, n_out, n_time), attention]
