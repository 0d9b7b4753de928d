"""pixelNeRF's network: residual blocks over an encoded place, features added before the first, the mean over views in between.

x = lin_in(code);  before block i < n_inject: x += lin_z[i](features);  block: x += fc_1(relu(fc_0(relu(x))));  before block
n_inject: x = mean over views of x;  out = lin_out(relu(x))

lin_z is affine and bilinear weights sum to one, so it may as well be applied to the whole feature image before the lookup:
lin_z(lookup(F)) = lookup(lin_z(F)). `project` does that, and a point then costs no product with lin_z at all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.fields.image_encoder import enlarged

N_OUT = 4  # red, green, blue, density


class ResidualBlock(nn.Module):
    def __init__(self, n: int, generator: torch.Generator):
        super().__init__()
        self.fc_0, self.fc_1 = linear(n, n, generator), linear(n, n, generator)
        nn.init.zeros_(self.fc_1.weight)


class ResnetMlp(nn.Module):
    def __init__(self, n_code: int, n_features: int, n_hidden: int, n_blocks: int, n_inject: int, generator: torch.Generator):
        super().__init__()
        self.n_hidden, self.n_inject = n_hidden, n_inject
        self.lin_in = linear(n_code, n_hidden, generator)
        self.blocks = nn.ModuleList(ResidualBlock(n_hidden, generator) for _ in range(n_blocks))
        self.lin_z = nn.ModuleList(linear(n_features, n_hidden, generator) for _ in range(n_inject))
        self.lin_out = linear(n_hidden, N_OUT, generator)

    def project(self, taps: Sequence[Tensor]) -> Tensor:  # [n, channels, h, w] of several sizes
        """All lin_z of features that `upsampled` would make of these: [n, h, w, n_inject * n_hidden]. Smaller taps are
        multiplied before they are enlarged, for interpolation is linear, too."""
        size, first, total = taps[0].shape[2:], 0, None
        weight, bias = (torch.cat([getattr(layer, name) for layer in self.lin_z]) for name in ("weight", "bias"))
        for tap in taps:
            rows = tap.permute(0, 2, 3, 1)  # channels innermost, as the lookup reads them
            part = rows @ weight[:, first : first + tap.shape[1]].T
            if tap.shape[2:] != size:
                part = enlarged(part.permute(0, 3, 1, 2).contiguous(), size).permute(0, 2, 3, 1)
            total, first = part + bias if total is None else total + part, first + tap.shape[1]
        assert total is not None
        return total.contiguous()

    def forward(self, code: Tensor, injected: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """[n, 4] from codes [n_views, n, n_code] and projected features [n_views, n, n_inject * n_hidden]."""
        x = _apply(self.lin_in, code.to(dtype))
        parts = injected.to(dtype).chunk(self.n_inject, -1)
        block: Any
        for index, block in enumerate(self.blocks):
            if index == self.n_inject:
                x = x.mean(0, keepdim=True)
            if index < self.n_inject:
                x = x + parts[index]
            inner = _apply(block.fc_0, x.relu())
            # Without gradients in place: a fresh array costs more than the sum that goes into it.
            x = x + _apply(block.fc_1, inner.relu()) if torch.is_grad_enabled() else x.add_(_apply(block.fc_1, inner.relu_()))
        if len(self.blocks) <= self.n_inject:
            x = x.mean(0, keepdim=True)
        out = _apply(self.lin_out, x.relu())[0]
        return out.float() if dtype == torch.bfloat16 else out


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """He et al. 2015, by inputs; no bias at first."""
    layer = nn.Linear(n_in, n_out)
    with torch.no_grad():
        layer.weight.normal_(0, (2 / n_in) ** 0.5, generator=generator)
        layer.bias.zero_()
    return layer


def _apply(layer: Any, x: Tensor) -> Tensor:
    """An nn.Linear, in the precision of x."""
    return nn.functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
