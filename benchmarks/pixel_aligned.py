"""Looking up features and asking pixelNeRF's network, against the same written plainly in torch: time and peak memory.

    python benchmarks/pixel_aligned.py [--points 65536] [--views 1] [--json FILE]

Plain is what a reader of the paper writes: project, grid_sample of the concatenated pyramid, sines, nn.Linear, all at once.
Ours multiplies the feature images by lin_z once (that is counted, too), looks the products up by a kernel, and goes through the
network a part at a time. Both without gradients, in float32, of one 128 x 128 picture a view; sizes are the published ones (512
wide, 512 features) and those of the small preset. They take turns, so that whatever else the machine does meets both alike.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from taichi_nerf.benchmarks.kernels import now, peak_growth
from taichi_nerf.fields.image_encoder import upsampled
from taichi_nerf.fields.pixel_aligned_field import FREQUENCY, Encoded, PixelAlignedField, Sources
from taichi_nerf.runtime import start
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.pixelnerf_config import PRESETS, ObjectSettings, PixelNerfRun
from taichi_nerf.training.pixelnerf_trainer import make_field

SIZE, REPEATS = 128, 3


@dataclass(frozen=True)
class Row:
    preset: str
    n_points: int
    n_views: int
    ours: float  # milliseconds
    plain: float
    ratio: float
    memory: float | None  # MiB above what was there before
    memory_plain: float | None


def plain(field: PixelAlignedField, features: Tensor, sources: Sources, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Density and color, as the paper says it."""
    rotation, offset = sources.world_to_cameras[:, :, :3], sources.world_to_cameras[:, None, :, 3]
    local = x @ rotation.mT + offset
    uv = local[..., :2] / local[..., 2:] * sources.intrinsics[:, None, :2] + sources.intrinsics[:, None, 2:]
    size = uv.new_tensor([features.shape[3], features.shape[2]])
    on_grid = (uv - 0.5) * (size / (size - 1) * 2 / SIZE) - 1
    latent = nn.functional.grid_sample(features, on_grid[:, None], "bilinear", "border", align_corners=True)
    latent = latent[:, :, 0].permute(0, 2, 1)
    turned = x @ rotation.mT * field.axes
    parts = [encoded(turned, field.settings.n_frequencies), d @ rotation.mT * field.axes]
    if field.settings.places == "world_and_view":
        parts.insert(0, encoded(x, field.settings.n_frequencies).expand(len(turned), -1, -1))
    network = field.mlp_coarse
    h = network.lin_in(torch.cat(parts, -1))
    for index, block in enumerate(network.blocks):
        if index == network.n_inject:
            h = h.mean(0)
        if index < network.n_inject:
            h = h + network.lin_z[index](latent)
        h = h + block.fc_1(torch.relu(block.fc_0(torch.relu(h))))  # type: ignore[operator]
    out = network.lin_out(torch.relu(h))
    return field._density(out[:, 3]), torch.sigmoid(out[:, :3])


def encoded(x: Tensor, n: int) -> Tensor:
    return torch.cat([x, *(wave(FREQUENCY * 2.0**k * x) for k in range(n) for wave in (torch.sin, torch.cos))], -1)


@torch.no_grad()
def measure(preset: str, n_points: int, n_views: int, device: torch.device) -> Row:
    config = PRESETS[preset](ObjectSettings(""), PixelNerfRun(steps=1))
    config = replace(config, field=replace(config.field, precision="float32"))
    field = make_field(config).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, generator=generator).to(device)  # noqa: E731
    skew = draw(n_views, 3, 3) - 0.5
    away = torch.tensor([0.0, 0, 2], device=device).expand(n_views, 3)[..., None]
    poses = torch.cat([torch.linalg.matrix_exp(skew - skew.mT), away], -1)
    lens = torch.tensor([SIZE * 1.2, SIZE * 1.2, SIZE / 2, SIZE / 2], device=device).expand(n_views, 4).contiguous()
    sources = Sources(draw(n_views, 3, SIZE, SIZE), poses, lens)
    x, d = draw(n_points, 3) - 0.5, nn.functional.normalize(draw(n_points, 3) - 0.5, dim=-1)
    taps = field.encoder(sources.pictures)
    features = torch.cat(upsampled(taps), 1)

    def ours() -> tuple[Tensor, Tensor]:
        return field.look(Encoded(field.mlp_coarse.project(taps), None, sources), x, d)

    def theirs() -> tuple[Tensor, Tensor]:
        return plain(field, features, sources, x, d)

    torch.testing.assert_close(ours(), theirs(), rtol=2e-3, atol=2e-3)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for call, found in zip((ours, theirs), times, strict=True):
            begin = now()
            call()
            found.append(1e3 * (now() - begin))
    medians = [statistics.median(found) for found in times]
    memory = [peak_growth(call) for call in (ours, theirs)]
    ratio = medians[1] / medians[0]
    return Row(preset, n_points, n_views, medians[0], medians[1], ratio, memory[0], memory[1])


def as_text(rows: list[Row]) -> str:
    lines = ["| sizes | points | views | ms | torch | ratio | peak MiB | torch |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        memory = " | ".join("–" if value is None else f"{value:.0f}" for value in (row.memory, row.memory_plain))
        times = f"{row.ours:.0f} | {row.plain:.0f} | {row.ratio:.2f}×"
        lines.append(f"| {row.preset} | {row.n_points:,} | {row.n_views} | {times} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=2**16)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    expect_place(arguments.json)
    device = start(arguments.arch).torch_device
    rows = [measure(preset, arguments.points, arguments.views, device) for preset in PRESETS]
    print(as_text(rows))
    if arguments.json:
        write_json(arguments.json, json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
