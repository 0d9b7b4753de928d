"""Swap the compositing kernel: a ray stops at the first dense sample, as at a surface, instead of fading through fog."""

import taichi as ti
import torch

from taichi_nerf import start, swap
from taichi_nerf.kernels import compositing
from taichi_nerf.ops.compositing import composite_rays

A, B = ti.types.ndarray(ndim=1), ti.types.ndarray(ndim=2)


@ti.kernel
def first_surface(density: A, color: B, t0: A, t1: A, spans: B, back: B, stop: ti.f32, c: B, opacity: A, depth: A, w: A):
    for r in range(spans.shape[0]):
        opacity[r], depth[r] = 0, 0
        for i in range(spans[r, 0], spans[r, 0] + spans[r, 1]):
            w[i] = ti.cast(opacity[r] == 0 and density[i] > 1, ti.f32)
            opacity[r], depth[r] = opacity[r] + w[i], depth[r] + w[i] * t0[i]
            for k in range(color.shape[1]):
                c[r, k] = ti.select(w[i] > 0, color[i, k], ti.select(opacity[r] == 0, back[r, k], c[r, k]))


start("cpu")
t, spans = torch.arange(4.0), torch.tensor([[0, 4]], dtype=torch.int32)
samples = (torch.tensor([0.2, 0.5, 3.0, 9.0]), torch.rand(4, 3), t, t + 1, spans)
print("fog:", composite_rays(*samples).weights)
with swap(compositing, composite_rays=first_surface):
    print("surface:", composite_rays(*samples).weights)
