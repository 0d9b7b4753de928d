"""NeRF's step of training against the same network written plainly in torch: rays per second of both.

    python benchmarks/nerf.py [--preset small] [--seconds 20] [--rays 1024] [--width 0] [--json FILE]

Both see the same pixels of a procedural scene, from near to far, with equally many samples and Adam. The plain version is what a
reader of the paper writes: nn.Linear, torch.cat of sines and cosines, cumprod, searchsorted. Each runs in float32, and where the
hardware multiplies bfloat16 in that, too: plain torch by `torch.autocast`. They take turns, a step each, so that whatever else
the machine does meets all alike. Figures are medians.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.benchmarks.kernels import now
from taichi_nerf.procedural import make_scene
from taichi_nerf.runtime import Backend, start
from taichi_nerf.scenes import load_scene
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.nerf_config import NerfConfig
from taichi_nerf.training.trainer import Trainer


@dataclass(frozen=True)
class Rates:
    """At one precision, in rays per second."""

    precision: str
    ours: float
    plain: float
    ratio: float


@dataclass(frozen=True)
class Result:
    rates: list[Rates]
    n_rays: int
    n_samples: str
    network: str


class PlainNetwork(nn.Module):
    def __init__(self, config: NerfConfig):
        super().__init__()
        field, self.encoding = config.field, config.encoding
        n, n_view = 3 + 6 * self.encoding.n_frequencies, 3 + 6 * self.encoding.n_view_frequencies
        self.skip = field.skip_after
        widths = [n] + [field.n_hidden + n * (i == self.skip) for i in range(field.n_layers - 1)]
        self.layers = nn.ModuleList(nn.Linear(width, field.n_hidden) for width in widths)
        self.density, self.feature = nn.Linear(field.n_hidden, 1), nn.Linear(field.n_hidden, field.n_hidden)
        self.view, self.color = nn.Linear(field.n_hidden + n_view, field.n_view_hidden), nn.Linear(field.n_view_hidden, 3)

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        x, d = encoded(x, self.encoding.n_frequencies), encoded(d, self.encoding.n_view_frequencies)
        h = x
        for index, layer in enumerate(self.layers):
            h = torch.relu(layer(h))
            if index == self.skip and index + 1 < len(self.layers):
                h = torch.cat([x, h], -1)
        seen = torch.relu(self.view(torch.cat([self.feature(h), d], -1)))
        return torch.relu(self.density(h))[..., 0], torch.sigmoid(self.color(seen))


def encoded(x: Tensor, n: int) -> Tensor:
    return torch.cat([x, *(wave(2.0**k * x) for k in range(n) for wave in (torch.sin, torch.cos))], -1)


class Plain:
    """The whole step, in torch alone."""

    def __init__(self, config: NerfConfig, near: float, far: float, device: torch.device):
        self.config, self.near, self.far, self.device = config, near, far, device
        self.networks = nn.ModuleList([PlainNetwork(config), PlainNetwork(config)]).to(device)
        self.optimiser = torch.optim.Adam(self.networks.parameters(), 5e-4)

    def step(self, origins: Tensor, directions: Tensor, truth: Tensor) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.field.precision == "bfloat16"):
            loss = self.loss(origins, directions, truth)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def loss(self, origins: Tensor, directions: Tensor, truth: Tensor) -> Tensor:
        n, sizes = len(origins), self.config.nerf
        even = torch.linspace(0, 1, sizes.n_samples, device=origins.device)
        t = self.near + (self.far - self.near) * (even + torch.rand(n, sizes.n_samples, device=origins.device) / sizes.n_samples)
        coarse, weights = self.render(self.networks[0], origins, directions, t)
        with torch.no_grad():
            both = torch.cat([t, drawn((t[:, 1:] + t[:, :-1]) / 2, weights[:, 1:-1], sizes.n_samples_fine)], -1).sort(-1).values
        fine, _ = self.render(self.networks[1], origins, directions, both)
        return (coarse - truth).square().mean() + (fine - truth).square().mean()

    def render(self, network: nn.Module, origins: Tensor, directions: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x = origins[:, None] + t[..., None] * directions[:, None]
        density, color = (out.float() for out in network(x, directions[:, None].expand_as(x)))
        gaps = torch.cat([t.diff(), torch.full_like(t[:, :1], 1e10)], -1)
        alpha = 1 - torch.exp(-density * gaps)
        light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)[:, :-1]
        weights = alpha * light
        return (weights[..., None] * color).sum(1) + 1 - weights.sum(1, keepdim=True), weights


def drawn(edges: Tensor, weights: Tensor, n: int) -> Tensor:
    share = (weights + 1e-5) / (weights + 1e-5).sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(share[:, :1]), share.cumsum(-1)], -1)
    u = torch.rand(len(edges), n, device=edges.device)
    above = torch.searchsorted(cdf, u, right=True).clamp(1, cdf.shape[1] - 1)
    low, high = cdf.gather(1, above - 1), cdf.gather(1, above)
    inside = (u - low) / (high - low).clamp_min(1e-5)
    return torch.lerp(edges.gather(1, above - 1), edges.gather(1, above), inside.clamp(0, 1))


def run(preset: str, seconds: float, n_rays: int, width: int, backend: Backend) -> Result:
    device = backend.torch_device
    with tempfile.TemporaryDirectory() as folder:
        path = make_scene("objects", Path(folder) / "scene", n_views=20, n_val=0, n_test=2, size=100, n_samples=1)
        scene = load_scene(path)
        chosen, _ = methods.choose(scene, SceneSettings(str(path)), RunSettings("nerf", preset, steps=10**6), device)
        config: Any = chosen
        field = replace(config.field, n_hidden=width or config.field.n_hidden)
        nerf = replace(config.nerf, within_box=False, endless=True)  # as published: every ray costs the same
        config = replace(config, field=field, nerf=nerf, batch=replace(config.batch, n_rays=n_rays))
        keep_freed_memory()
        precisions = dict.fromkeys(["float32", config.field.precision])
        pairs = {precision: _pair(config, precision, scene, device) for precision in precisions}
        times: dict[str, tuple[list[float], list[float]]] = {precision: ([], []) for precision in precisions}
        spent, n_turns = 0.0, 0
        while spent < seconds or n_turns < 3:
            for precision, (trainer, plain) in pairs.items():
                before = now()
                trainer.step()
                between = now()
                batch = trainer.draw(n_rays)
                rays = trainer.model.rig.rays(batch.positions, batch.views)
                plain.step(rays.origins, rays.directions, batch.color)
                times[precision][0].append(between - before)
                times[precision][1].append(now() - between)
                spent += now() - before
            n_turns += 1
    rates = []
    for precision, both in times.items():
        ours, theirs = (n_rays / statistics.median(some[1:]) for some in both)
        rates.append(Rates(precision, ours, theirs, ours / theirs))
    return Result(rates, n_rays, f"{nerf.n_samples} + {nerf.n_samples_fine}", f"{field.n_layers} x {field.n_hidden}")


def _pair(config: Any, precision: str, scene: Any, device: torch.device) -> tuple[Trainer, Plain]:
    config = replace(config, field=replace(config.field, precision=precision))
    return Trainer(config, scene, device), Plain(config, scene.bounds.near, scene.bounds.far, device)


def table(result: Result, backend: Backend) -> str:
    lines = [
        f"NeRF, {result.network}, {result.n_samples} samples, {result.n_rays} rays a step, on {backend.device_name}",
        "",
        "| precision | ours, rays/s | plain torch, rays/s | ratio |",
        "|---|--:|--:|--:|",
    ]
    return "\n".join(
        [*lines, *(f"| {rate.precision} | {rate.ours:.0f} | {rate.plain:.0f} | {rate.ratio:.2f} |" for rate in result.rates)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rays", type=int, default=1024)
    parser.add_argument("--width", type=int, default=0, help="of the layers; 0: the preset's")
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    backend = start(options.arch)
    result = run(options.preset, options.seconds, options.rays, options.width, backend)
    print(table(result, backend))
    if options.json:
        write_json(options.json, json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
