"""A generator whose truth is known: a textured ball that number 0 of its code turns and number 1 colors.

It stands in for StyleGAN2 where directions, depth, pose and refiner are tested. The ball's middle is one unit before the camera.
"""

import math

import torch
from torch import nn

from taichi_nerf.generator.stylegan2.generator import GeneratorSettings

RADIUS, TURN = 0.3, 0.35  # turn: radians for one unit of code
FIELD_OF_VIEW = 40.0


class BallMapping(nn.Module):
    def __init__(self, n_layers):
        super().__init__()
        self.n_layers = n_layers
        self.register_buffer("w_avg", torch.zeros(4))
        self.register_buffer("scale", torch.tensor([1.5, 1.0, 0.5, 0.25]))

    def w(self, z):
        return z * self.scale

    def forward(self, z, truncation=1.0):
        return truncation * self.w(z)[:, None].repeat(1, self.n_layers, 1)


class BallSynthesis(nn.Module):
    def __init__(self, size):
        super().__init__()
        slope = math.tan(math.radians(FIELD_OF_VIEW) / 2)
        at = (torch.arange(size) + 0.5) / size * 2 - 1
        rays = torch.stack([*(slope * each for each in torch.meshgrid(at, at, indexing="xy")), torch.ones(size, size)], -1)
        # |t d − c|² = r² with c = (0, 0, 1)
        a, b = rays.square().sum(-1), rays[..., 2]
        inside = b * b - a * (1 - RADIUS**2)
        self.register_buffer("hit", inside > 0)
        t = (b - inside.clamp_min(0).sqrt()) / a
        self.register_buffer("depth", torch.where(self.hit, t, torch.tensor(1.3)))
        self.register_buffer("points", t[..., None] * rays - torch.tensor([0.0, 0.0, 1.0]))

    def forward(self, codes):
        return self.with_features(codes, None)[0]

    def with_features(self, codes, at):
        code = codes[:, 0]
        angle = TURN * code[:, 0]
        x, y, z = (self.points[None, ..., i] for i in range(3))
        c, s = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
        body = torch.stack([c * x - s * z, y.expand(len(codes), -1, -1), s * x + c * z], -1) / RADIUS
        waves = torch.tensor([[5.0, 2.0, 1.0], [1.0, -4.0, 3.0], [3.0, 3.0, -4.0]], dtype=body.dtype)
        color = 0.6 * torch.sin(body @ waves.T + torch.tensor([0.3, 1.0, 2.0], dtype=body.dtype))
        color = color + 0.4 * torch.stack([code[:, 1], -code[:, 1], 0 * code[:, 1]], -1).view(-1, 1, 1, 3)
        image = torch.where(self.hit[None, ..., None], color, torch.ones(()).to(color)).permute(0, 3, 1, 2)
        return image, image[:, :, ::4, ::4]


class Ball(nn.Module):
    """A generator of `taichi_nerf.generator`, as far as its other parts look at one."""

    def __init__(self, size=64):
        super().__init__()
        self.settings = GeneratorSettings(size, 4, 4)
        self.mapping = BallMapping(self.settings.n_layers)
        self.synthesis = BallSynthesis(size)
