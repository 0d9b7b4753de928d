"""The layers of StyleGAN2 (Karras et al. 2020): equalised learning rates, resampling by [1, 3, 3, 1], modulated convolution.

A weight is drawn from N(0, 1) and multiplied by `gain` when it is used, so that Adam's steps have the same relative size
everywhere (Karras et al. 2018).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE, GAIN = 0.2, math.sqrt(2)  # of the leaky ReLU; the gain keeps the variance
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the resampling filter
SMALL = 1e-8


def resampling_filter() -> Tensor:
    """[4, 4] the outer product of the taps; adds up to 1."""
    taps = torch.tensor(TAPS)
    taps = taps[:, None] * taps
    return taps / taps.sum()


def leaky_relu(values: Tensor, gain: float = GAIN) -> Tensor:
    return functional.leaky_relu(values, SLOPE) * gain


def filtered(images: Tensor, taps: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Every channel convolved with the filter; `padding` before and after, in both directions. The filter is symmetric."""
    before, after = padding
    n_channels = images.shape[1]
    kernel = (taps * gain).to(images.dtype).expand(n_channels, 1, -1, -1)
    if before == after:
        return functional.conv2d(images, kernel, padding=before, groups=n_channels)
    return functional.conv2d(functional.pad(images, (before, after, before, after)), kernel, groups=n_channels)


def upsampled(images: Tensor, taps: Tensor) -> Tensor:
    """[n, c, 2 h, 2 w]: zeros between the pixels, then the filter, times four."""
    n, c, h, w = images.shape
    spread = functional.pad(images.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)
    return filtered(spread, taps, (2, 1), gain=4.0)


def downsampled(images: Tensor, taps: Tensor) -> Tensor:
    """[n, c, h / 2, w / 2]: the filter, then every other pixel."""
    return filtered(images, taps, (1, 1))[:, :, ::2, ::2]


class FullyConnected(nn.Module):
    """y = x Wᵀ m / √n_in + m b with the multiplier m of the learning rate; then a leaky ReLU, if any."""

    def __init__(self, n_in: int, n_out: int, *, multiplier: float = 1.0, bias: float = 0.0, activated: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / multiplier)
        self.bias = nn.Parameter(torch.full((n_out,), bias))
        self.multiplier, self.gain, self.activated = multiplier, multiplier / math.sqrt(n_in), activated

    def forward(self, values: Tensor) -> Tensor:  # [..., n_in]
        found = functional.linear(values, self.weight * self.gain, self.bias * self.multiplier)
        return leaky_relu(found) if self.activated else found


class Convolution(nn.Module):
    """A plain convolution of the discriminator, at half the resolution with `down`; bias and leaky ReLU if `activated`."""

    resample_filter: Tensor

    def __init__(self, n_in: int, n_out: int, kernel: int, *, down: bool = False, activated: bool = True, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.register_buffer("resample_filter", resampling_filter())
        self.down, self.activated, self.gain, self.kernel = down, activated, 1 / math.sqrt(n_in * kernel**2), kernel

    def forward(self, images: Tensor, gain: float = 1.0) -> Tensor:
        gain = GAIN * gain if self.activated else gain  # before the ReLU is the same as after it, and cheaper
        weight = (self.weight * (self.gain * gain)).to(images.dtype)
        bias = None if self.bias is None else (self.bias * gain).to(images.dtype)
        if not self.down:
            found = functional.conv2d(images, weight, bias, padding=self.kernel // 2)
        elif self.kernel == 1:
            found = functional.conv2d(downsampled(images, self.resample_filter), weight, bias)
        else:
            found = functional.conv2d(filtered(images, self.resample_filter, (2, 2)), weight, bias, stride=2)
        return functional.leaky_relu(found, SLOPE) if self.activated else found


def modulated_convolution(
    images: Tensor,  # [n, n_in, h, w]
    weight: Tensor,  # [n_out, n_in, k, k]
    styles: Tensor,  # [n, n_in]
    bias: Tensor,  # [n_out]
    *,
    demodulate: bool = True,
    up: bool = False,
    taps: Tensor | None = None,
    gain: float = 1.0,
) -> Tensor:
    """Each image convolved with its own w' = s_i w_oik / √(Σ_ik (s_i w_oik)² + 1e-8) (eqs. 1 and 3), plus the bias, times gain.

    Scaling the images before and after a convolution that all of them share is the same function, and needs no weights per
    image: Σ_ik (s_i w_oik)² = Σ_i s_i² Σ_k w_oik².
    """
    found = images * styles[:, :, None, None].to(images.dtype)
    shared = weight.to(images.dtype)
    if up:
        assert taps is not None
        found = functional.conv_transpose2d(found, shared.transpose(0, 1), stride=2)
        found = filtered(found, taps, (1, 1), gain=4.0)
    else:
        found = functional.conv2d(found, shared, padding=weight.shape[-1] // 2)
    shift = (bias * gain).to(found.dtype).view(1, -1, 1, 1)
    if not demodulate:
        return found * gain + shift
    norms = torch.rsqrt(styles.square() @ weight.square().sum((2, 3)).T + SMALL) * gain
    return torch.addcmul(shift, found, norms[:, :, None, None].to(found.dtype))
