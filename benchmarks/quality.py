"""Train a scene with budgets of time, each anew, and tell how good its test views are: the figures that README quotes.

    taichi-nerf benchmark quality --scene SCENE --seconds 30,60,120,300 [--set A.B=C …] [--json FILE]

The same as `taichi-nerf train --time-budget` and `taichi-nerf evaluate` for each budget, in one process and kept nowhere. A
longer budget should never give a worse model.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch

from taichi_nerf.report import Report
from taichi_nerf.runtime import Backend
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.evaluate import evaluate
from taichi_nerf.training.methods import changed, choose
from taichi_nerf.training.presets import usual_background
from taichi_nerf.training.run import load_run, train
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.training.scene_files import open_scene


@dataclass(frozen=True)
class Row:
    budget: float  # seconds
    psnr: float  # mean over the test views
    ssim: float
    n_steps: int
    rays_per_second: float
    samples_per_second: float
    seconds_per_picture: float


def measure(
    scene_folder: Path, budget: float, preset: str, changes: Sequence[str], device: torch.device,
    report: Report,
) -> Row:  # fmt: skip
    settings = SceneSettings(str(scene_folder.resolve()))
    scene = open_scene(settings)
    run = RunSettings(preset=preset, time_budget=budget, background=usual_background(scene))
    config = changed(choose(scene, settings, run, device)[0], changes)
    with tempfile.TemporaryDirectory() as temporary:
        with RunFolder.create(Path(temporary) / "run") as folder:
            trained = train(config, scene, folder, device, report=report)
            rows = folder.read_metrics()
        found = evaluate(load_run(Path(temporary) / "run", device), "test", report=report)
    ends = [0.0, *(row["seconds"] for row in rows)]
    lasted = [end - start for start, end in pairwise(ends)]
    rays, samples = (
        sum(row[name] * s for row, s in zip(rows, lasted, strict=True)) / sum(lasted)
        for name in ("rays_per_second", "samples_per_second")
    )
    return Row(budget, found["psnr"], found["ssim"], trained.n_steps, rays, samples, found["seconds_per_image"])


def table(scene: Path, rows: list[Row], changes: Sequence[str], backend: Backend) -> str:
    lines = [
        f"{', '.join([scene.name, *changes])}, test views; {backend.arch} on {backend.device_name}, torch {torch.__version__}",
        "",
        "| budget | PSNR | SSIM | steps | rays/s | samples/s | a picture |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.budget:g} s | {row.psnr:.2f} dB | {row.ssim:.3f} | {row.n_steps:,} | {row.rays_per_second / 1e3:.0f} k "
        f"| {row.samples_per_second / 1e6:.2f} M | {row.seconds_per_picture:.2f} s |"
        for row in rows
    ]
    return "\n".join(lines)


def as_json(scene: Path, rows: list[Row], changes: Sequence[str], backend: Backend) -> str:
    about = {"scene": scene.name, "settings": list(changes), "backend": asdict(backend), "torch": torch.__version__}
    return json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1)
