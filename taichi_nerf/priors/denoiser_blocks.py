"""The parts of the denoiser. Their parameters are named as in the checkpoints that DiffusioNeRF published."""

import math

import torch
from torch import Tensor, nn

N_HEADS, HEAD_WIDTH = 4, 32
N_GROUPS = 8  # of group normalisation
SHARPNESS = 10.0  # of full attention over unit vectors
EPSILON = 1e-5


class StandardConv(nn.Conv2d):
    """Convolution by filters of mean 0 and variance 1 (Qiao et al. 2019), which are kept while nothing trains them."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, 3, padding=1)
        self._kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.weight.requires_grad:
            return nn.functional.conv2d(x, self.filters(), self.bias, padding=1)
        if self._kept is None or self._kept.device != x.device or self._kept.dtype != self.weight.dtype:
            self._kept = self.filters()
        return nn.functional.conv2d(x, self._kept, self.bias, padding=1)

    def filters(self) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) * torch.rsqrt(variance + EPSILON)

    def train(self, mode: bool = True) -> "StandardConv":
        self._kept = None
        return super().train(mode)

    def _load_from_state_dict(self, *arguments: object) -> None:
        self._kept = None
        super()._load_from_state_dict(*arguments)


class ChannelNorm(nn.Module):
    """Mean 0 and variance 1 over the channels of each pixel, times a gain."""

    def __init__(self, width: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + EPSILON) * self.g


class Block(nn.Module):
    """Convolution, group normalisation, and what the time makes of it: x (1 + scale) + shift."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.proj = StandardConv(n_in, n_out)
        self.norm = nn.GroupNorm(N_GROUPS, n_out)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = torch.addcmul(shift, x, scale + 1)
        return nn.functional.silu(x)


class ResidualBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, n_time: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(n_time, 2 * n_out))
        self.block1, self.block2 = Block(n_in, n_out), Block(n_out, n_out)
        self.res_conv = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, 1)
        return self.block2(self.block1(x, (scale, shift))) + self.res_conv(x)


class LinearAttention(nn.Module):
    """Attention in O(pixels): softmax(q)ᵀ (softmax(k) vᵀ), the latter a small matrix (Shen et al. 2018)."""

    def __init__(self, width: int):
        super().__init__()
        self.to_qkv = nn.Conv2d(width, 3 * N_HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(N_HEADS * HEAD_WIDTH, width, 1), ChannelNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        q, k, v = _heads(self.to_qkv(x))
        q, k = q.softmax(-2) * HEAD_WIDTH**-0.5, k.softmax(-1)
        context = k @ (v / (height * width)).mT  # [n, heads, key, value]
        return self.to_out((context.mT @ q).reshape(n, -1, height, width))


class Attention(nn.Module):
    """Full attention by cosines."""

    def __init__(self, width: int):
        super().__init__()
        self.to_qkv = nn.Conv2d(width, 3 * N_HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(N_HEADS * HEAD_WIDTH, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        q, k, v = _heads(self.to_qkv(x))
        # Each component is normalised over all pixels, not each pixel's vector: so the published network was trained.
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        attention = (q.mT @ k * SHARPNESS).softmax(-1)
        return self.to_out((v @ attention.mT).reshape(n, -1, height, width))


class Normalised(nn.Module):
    """A layer of the normalised input."""

    def __init__(self, width: int, layer: nn.Module):
        super().__init__()
        self.fn, self.norm = layer, ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Added(nn.Module):
    """A layer that adds to its input."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.fn = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class TimeEncoding(nn.Module):
    """sin and cos of t at frequencies from 1 to 10^-4."""

    def __init__(self, width: int):
        super().__init__()
        self.n_frequencies = width // 2

    def forward(self, t: Tensor) -> Tensor:  # [n] → [n, width]
        step = math.log(10_000) / (self.n_frequencies - 1)
        angles = t[:, None] * torch.exp(-step * torch.arange(self.n_frequencies, device=t.device))
        return torch.cat([angles.sin(), angles.cos()], -1)


def upsample(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(n_in, n_out, 3, padding=1))


def _heads(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[n, heads, width of a head, pixels] each."""
    n = len(qkv)
    q, k, v = qkv.reshape(n, 3, N_HEADS, HEAD_WIDTH, -1).unbind(1)
    return q, k, v
