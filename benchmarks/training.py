"""Train on a procedural scene and tell where the time of a step goes.

    python benchmarks/training.py [--scene DIR] [--seconds 20] [--preset fast] [--set field.log2_table_size=19] [--json FILE]
    taichi-nerf benchmark training --arch vulkan --set backend.resident=false

Each stage is timed where the trainer calls it, means over the second half of the run; "the rest" is what lies between.
The first line of the table is throughput over that half; the second what crossed between host and device where a backend copies
(launch.py tells how it is counted), how many kernels were launched, and how often the host waited for them.
A training that stays on the device does not wait for its stages, so they tell little there: a few more steps after the end, in
which the host waits for every kernel, tell how long each of them takes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from taichi_nerf.benchmarks.kernels import now
from taichi_nerf.launch import watching
from taichi_nerf.ops import compositing
from taichi_nerf.procedural import make_scene
from taichi_nerf.runtime import Backend, Traffic, start, traffic
from taichi_nerf.scenes import load_scene
from taichi_nerf.training.config import Config, RunSettings, SceneSettings
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.methods import changed
from taichi_nerf.training.presets import choose
from taichi_nerf.training.resident_model import ResidentNgpModel
from taichi_nerf.training.trainer import Trainer

MOST_KERNELS = 16  # lines of the table; the JSON has all


@dataclass(frozen=True)
class Result:
    rays_per_second: float
    samples_per_second: float
    samples_per_ray: float
    shaded_per_ray: float  # looked at in full
    step: float  # milliseconds
    stages: dict[str, float]  # milliseconds of a step
    is_resident: bool
    uploaded: float  # bytes of a step, on backends that copy
    downloaded: float
    launches: float  # of a step
    waits: float  # of the host for the device, on backends that copy
    device_peak: int  # bytes of arrays on the device, torch's on CUDA included; 0 where torch's memory is the host's
    kernels: dict[str, tuple[float, float]]  # launches of a step and milliseconds, each waited for


class Clock:
    """Milliseconds by stage, of one step after another."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before = now()
            result = function(*arguments, **options)
            self.stages[stage] += 1e3 * (now() - before)
            return result

        return call

    def end_step(self, milliseconds: float) -> None:
        self.stages["the rest"] = milliseconds - sum(self.stages.values())
        self.steps.append({**self.stages, "step": milliseconds})
        self.stages.clear()


def measure(config: Config, scene: Any, device: torch.device) -> Result:
    trainer, clock = Trainer(config, scene, device), Clock()
    trainer.warm_up()
    model, rows = trainer.model, []
    looked_at: list[torch.Tensor] = []
    crossings: list[Traffic] = []
    composite = compositing.composite_rays

    def counted(*samples: Any) -> Any:
        looked_at.append(samples[4][:, 1].sum())  # of their spans: there may be room for more
        return composite(*samples)

    parts = (
        parts_of_resident(trainer)
        if isinstance(model, ResidentNgpModel)
        else (
            ("occupancy grid, every 16th step", model, "before_step"),
            ("pixels", trainer, "draw"),
            ("rays", model.rig, "rays"),
            ("march", model.sampler, "forward"),
            ("glance: encode, density network", model.field, "glance"),
            ("choose what is visible", compositing, "visible_samples"),
            ("look: both networks", model.field, "forward"),
            ("backward", torch.Tensor, "backward"),
            ("Adam", trainer.optimiser, "step"),
            ("verdict", trainer, "_verdict"),
        )
    )
    with ExitStack() as stack:
        for stage, owner, name in parts:
            stack.enter_context(patch.object(owner, name, clock.timed(stage, getattr(owner, name))))
        stack.enter_context(patch.object(compositing, "composite_rays", clock.timed("composite", counted)))
        while not trainer.is_done:
            before, crossed = time.perf_counter(), replace(traffic)
            rows.append(trainer.step())
            clock.end_step(1e3 * (time.perf_counter() - before))
            crossings.append(since(crossed))
    half = len(rows) // 2
    seconds = rows[-1].seconds - rows[half - 1].seconds
    n_rays, n_samples = sum(row.n_rays for row in rows[half:]), sum(row.n_samples for row in rows[half:])
    stages = {
        name: statistics.fmean(step.get(name, 0.0) for step in clock.steps[half:])
        for name in [*(part[0] for part in parts), "composite", "the rest"]
        if name != "composite" or looked_at  # on the device it is no stage of its own
    }
    step = statistics.fmean(step["step"] for step in clock.steps[half:])
    looked = model.pipeline.kept_per_ray if isinstance(model, ResidentNgpModel) else sum(map(int, looked_at[half:])) / n_rays
    means = {
        name: statistics.fmean(getattr(crossing, name) for crossing in crossings[half:])
        for name in ("uploaded", "downloaded", "n_launches", "n_waits")
    }
    on_gpu = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Result(
        n_rays / seconds, n_samples / seconds, n_samples / n_rays, looked, step, stages, isinstance(model, ResidentNgpModel),
        means["uploaded"], means["downloaded"], means["n_launches"], means["n_waits"], traffic.peak + on_gpu,
        kernels_of_a_step(trainer),
    )  # fmt: skip


def parts_of_resident(trainer: Trainer) -> tuple[tuple[str, Any, str], ...]:
    model: Any = trainer.model
    return (
        ("occupancy grid, every 16th step", model, "before_step"),
        ("pixels", trainer, "draw"),
        ("rays", model, "rays"),
        ("render, until torch has it", model.pipeline, "render"),
        ("backward", torch.Tensor, "backward"),
        ("finite gradients", model, "gradients_are_finite"),
        ("Adam", trainer.optimiser, "step"),
    )


def since(before: Traffic) -> Traffic:
    """What has crossed."""
    return Traffic(**{field.name: getattr(traffic, field.name) - getattr(before, field.name) for field in fields(Traffic)})


def kernels_of_a_step(trainer: Trainer, n_steps: int = 4) -> dict[str, tuple[float, float]]:
    """Launches and milliseconds by kernel, longest first, from a few steps that wait for each."""
    found: dict[str, list[float]] = defaultdict(list)
    with watching(lambda name, milliseconds: found[name].append(milliseconds)):
        for _ in range(n_steps):
            trainer.step()
    longest = sorted(found.items(), key=lambda item: -sum(item[1]))
    return {name: (len(times) / n_steps, sum(times) / n_steps) for name, times in longest}


def table(result: Result, backend: Backend) -> str:
    crossing = f"{result.uploaded + result.downloaded:,.0f} bytes between host and device a step ({result.uploaded:,.0f} up)"
    where = "stays on the device" if result.is_resident else "through torch"
    lines = [
        f"{backend.arch} on {backend.device_name}, {torch.get_num_threads()} torch threads; means over the last half",
        "",
        f"{result.samples_per_second / 1e6:.2f} M samples/s, {result.rays_per_second / 1e3:.0f} k rays/s; "
        f"{result.samples_per_ray:.1f} samples a ray, {result.shaded_per_ray:.1f} of them looked at in full",
        f"{where}: {crossing if backend.copies else 'nothing is copied'}, {result.launches:.1f} launches"
        + (f", {result.waits:.1f} waits" if backend.copies else "")
        + (f"; device arrays {result.device_peak / 2**20:.0f} MiB at most" if result.device_peak else ""),
        "",
        "| stage | ms of a step | share |",
        "|---|--:|--:|",
    ]
    lines += [f"| {name} | {ms:.2f} | {100 * ms / result.step:.0f} % |" for name, ms in result.stages.items()]
    lines += [f"| all | {result.step:.2f} | |", "", "| kernel, waited for | launches | ms of a step |", "|---|--:|--:|"]
    lines += [f"| {name} | {count:.1f} | {ms:.2f} |" for name, (count, ms) in list(result.kernels.items())[:MOST_KERNELS]]
    return "\n".join(lines)


def run(scene_folder: Path | None, seconds: float, settings: list[str], backend: Backend, preset: str = "default") -> Result:
    """Measure on a scene, or on a procedural one that is made for it."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        folder = scene_folder
        if folder is None:
            folder = Path(temporary) / "objects"
            make_scene("objects", folder, n_views=100, n_val=1, n_test=1, size=200)
        scene = load_scene(folder)
        config, _ = choose(
            scene, SceneSettings(str(folder)), RunSettings(preset=preset, time_budget=seconds), backend.torch_device
        )
        return measure(changed(config, settings, scene), scene, backend.torch_device)


def as_json(result: Result, backend: Backend) -> str:
    return json.dumps({"backend": asdict(backend), "torch": torch.__version__, "training": asdict(result)}, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    backend = start(options.arch)
    result = run(options.scene, options.seconds, options.settings, backend, options.preset)
    print(table(result, backend))
    if options.json:
        write_json(options.json, as_json(result, backend))


if __name__ == "__main__":
    main()
