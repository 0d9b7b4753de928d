"""The generator of StyleGAN2 (Karras et al. 2020): z → w → image, with skip connections of colors.

    generator = Generator(GeneratorSettings(resolution=64))
    w = generator.mapping(z, truncation=0.7)        # [n, n_layers, w_dim]: W+, one code a layer
    images = generator.synthesis(w)                 # [n, 3, 64, 64] from −1 to 1

Modules and parameters are named as in NVIDIA's PyTorch code.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator as Random
from torch import Tensor, nn
from torch.nn import functional

from taichi_nerf.generator.stylegan2.layers import (
    GAIN,
    SLOPE,
    FullyConnected,
    modulated_convolution,
    resampling_filter,
    upsampled,
)

Noise = Literal["const", "random", "none"]
AVERAGING = 0.995  # of the running mean of w
CLAMP = 256.0  # of activations, where 16 bits are used


@dataclass(frozen=True)
class GeneratorSettings:
    """Sizes. The defaults are the published ones; channels at resolution r are min(channel_base / r, channel_max)."""

    resolution: int = 256
    z_dim: int = 512
    w_dim: int = 512
    n_mapping: int = 8  # layers from z to w
    channel_base: int = 16384
    channel_max: int = 512

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution: expected a power of two from 8 on, got {self.resolution}")

    def channels(self, resolution: int) -> int:
        return max(1, min(self.channel_base // resolution, self.channel_max))

    @property
    def resolutions(self) -> list[int]:
        return [2**k for k in range(2, int(math.log2(self.resolution)) + 1)]

    @property
    def n_layers(self) -> int:
        """Codes that the synthesis takes: 2 log₂ resolution − 2."""
        return 2 * int(math.log2(self.resolution)) - 2


class Mapping(nn.Module):
    """z to w: normalised to unit second moment, then fully connected layers that learn a hundred times slower."""

    w_avg: Tensor

    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.n, self.n_layers = settings.n_mapping, settings.n_layers
        for i in range(self.n):
            n_in = settings.z_dim if i == 0 else settings.w_dim
            setattr(self, f"fc{i}", FullyConnected(n_in, settings.w_dim, multiplier=0.01, activated=True))
        self.register_buffer("w_avg", torch.zeros(settings.w_dim))

    def forward(self, z: Tensor, truncation: float = 1.0, cutoff: int | None = None, update_average: bool = False) -> Tensor:
        """[n, n_layers, w_dim]. Truncation moves the codes of the layers below `cutoff` towards the mean: w̄ + ψ (w − w̄)."""
        w = self.w(z)
        if update_average:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, AVERAGING))
        codes = w[:, None].repeat(1, self.n_layers, 1)
        if truncation != 1.0:
            moved = self.w_avg.lerp(codes[:, :cutoff], truncation)
            codes = moved if cutoff is None else torch.cat([moved, codes[:, cutoff:]], 1)
        return codes

    def w(self, z: Tensor) -> Tensor:
        """[n, w_dim], before truncation."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for i in range(self.n):
            w = getattr(self, f"fc{i}")(w)
        return w


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, n_in: int, n_out: int, w_dim: int, resolution: int, up: bool = False):
        super().__init__()
        self.resolution, self.up = resolution, up
        self.affine = FullyConnected(w_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", resampling_filter())

    def forward(self, values: Tensor, w: Tensor, noise: Noise, random: Random | None, clamp: float | None) -> Tensor:
        # The gain of the ReLU comes before it, where it costs nothing.
        taps = self.resample_filter
        values = modulated_convolution(values, self.weight, self.affine(w), self.bias, up=self.up, taps=taps, gain=GAIN)
        strength = self.noise_strength * GAIN
        if noise == "const":
            values = values + (self.noise_const * strength).to(values.dtype)
        elif noise == "random":
            shape = (len(values), 1, self.resolution, self.resolution)
            drawn = torch.randn(shape, generator=random, device=values.device)
            values = values + (drawn * strength).to(values.dtype)
        values = functional.leaky_relu(values, SLOPE)
        return values if clamp is None else values.clamp(-clamp, clamp)


class ToColor(nn.Module):
    """Features to colors: a modulated 1x1 convolution without demodulation."""

    def __init__(self, n_in: int, w_dim: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain = 1 / math.sqrt(n_in)

    def forward(self, values: Tensor, w: Tensor, clamp: float | None) -> Tensor:
        styles = self.affine(w) * self.gain
        colors = modulated_convolution(values, self.weight, styles, self.bias, demodulate=False).float()
        return colors if clamp is None else colors.clamp(-clamp, clamp)


class SynthesisBlock(nn.Module):
    """One resolution: the convolution that doubles it, another one, and colors."""

    resample_filter: Tensor

    def __init__(self, n_in: int, n_out: int, w_dim: int, resolution: int):
        super().__init__()
        self.resolution = resolution
        self.register_buffer("resample_filter", resampling_filter())
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(n_out, 4, 4))
        else:
            self.conv0 = SynthesisLayer(n_in, n_out, w_dim, resolution, up=True)
        self.conv1 = SynthesisLayer(n_out, n_out, w_dim, resolution)
        self.torgb = ToColor(n_out, w_dim)


class Synthesis(nn.Module):
    """Codes [n, n_layers, w_dim] to images [n, 3, resolution, resolution].

    Block r takes the code of its first convolution, of its second, and lends that of the next block's first to its colors.
    `precision` is the type of the convolutions; colors are added up in 32 bits.
    """

    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.settings = settings
        self.precision = torch.float32
        self.clamp: float | None = None
        n_in = 0
        for resolution in settings.resolutions:
            n_out = settings.channels(resolution)
            setattr(self, f"b{resolution}", SynthesisBlock(n_in, n_out, settings.w_dim, resolution))
            n_in = n_out

    def forward(self, codes: Tensor, noise: Noise = "const", random: Random | None = None) -> Tensor:
        return self.with_features(codes, None, noise, random)[0]

    def with_features(
        self, codes: Tensor, at: int | None, noise: Noise = "const", random: Random | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Images, and what comes out of the block of resolution `at` [n, channels, at, at]."""
        image: Tensor | None = None
        features = None
        values = codes.new_zeros(0)
        layer = 0
        for resolution in self.settings.resolutions:
            block: SynthesisBlock = getattr(self, f"b{resolution}")
            if resolution == 4:
                values = block.const.to(self.precision).expand(len(codes), -1, -1, -1)
                values = values.contiguous(memory_format=torch.channels_last)
            else:
                values = block.conv0(values, codes[:, layer], noise, random, self.clamp)
                layer += 1
            values = block.conv1(values, codes[:, layer], noise, random, self.clamp)
            layer += 1
            colors = block.torgb(values, codes[:, layer], self.clamp)
            image = colors if image is None else upsampled(image, block.resample_filter) + colors
            if resolution == at:
                features = values
        assert image is not None
        return image, features


class Generator(nn.Module):
    """Mapping and synthesis."""

    def __init__(self, settings: GeneratorSettings):
        super().__init__()
        self.settings = settings
        self.mapping = Mapping(settings)
        self.synthesis = Synthesis(settings)

    def forward(self, z: Tensor, truncation: float = 1.0, noise: Noise = "const") -> Tensor:
        return self.synthesis(self.mapping(z, truncation), noise)


def latents_of_seeds(seeds: list[int], z_dim: int) -> Tensor:
    """z [n, z_dim] of each seed, the same on every device, whichever other seeds are asked for."""
    return torch.stack([torch.randn(z_dim, generator=Random().manual_seed(seed)) for seed in seeds])


def as_bytes(images: Tensor) -> Tensor:
    """[n, h, w, 3] bytes of images [n, 3, h, w] from −1 to 1."""
    return (images.detach().float().permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def smaller(images: Tensor, size: int) -> Tensor:
    """Images [n, c, h, w] at `size` pixels a side by means of areas; they stay as they are if they have it."""
    return images if images.shape[-1] == size else functional.interpolate(images, size=(size, size), mode="area")
