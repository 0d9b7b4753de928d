"""Methods against each other on one scene, for equally long: mip-NeRF against NeRF at four scales, samplers under the hash grid.

    python -m taichi_nerf.benchmarks.methods scales [--seconds 120 | --steps N] [--scene DIR] [--json FILE]
    python -m taichi_nerf.benchmarks.methods samplers [--seconds 60 | --steps N] [--scene DIR] [--json FILE]
    taichi-nerf benchmark scales, taichi-nerf benchmark samplers

Contenders take turns, a step each of whichever has trained for less, so that whatever else the machine does meets all alike.
PSNR is the mean over the scene's test views, over white, by their width. Without --scene, one is made: `thin` for `scales`,
`unbounded` for `samplers`. For `scales` a scene is written at full, half, quarter and eighth size first.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from taichi_nerf.choices import Method
from taichi_nerf.metrics import psnr
from taichi_nerf.procedural import make_scene
from taichi_nerf.runtime import Backend, start
from taichi_nerf.scenes import SceneData, load_scene, read_source
from taichi_nerf.scenes.write_multiscale import write_multiscale
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.model import Model
from taichi_nerf.training.pictures import over, picture_of_view, truth_of_view
from taichi_nerf.training.presets import budget_of
from taichi_nerf.training.trainer import Trainer

Report = Callable[[str], None]


class Contender(NamedTuple):
    name: str
    method: Method
    preset: str
    settings: tuple[str, ...] = ()


CONTENDERS = {
    "scales": (Contender("nerf", "nerf", "small"), Contender("mipnerf", "mipnerf", "small")),
    "samplers": (Contender("occupancy", "ngp", "default"), Contender("proposal", "ngp", "default", ("sampler.kind=proposal",))),
}
FAMILY = {"scales": "thin", "samplers": "unbounded"}
SIZE = {"scales": 128, "samplers": 128}


@dataclass(frozen=True)
class Row:
    name: str
    n_steps: int
    seconds: float  # of training
    psnr: dict[int, float]  # by the width of pictures


def run(
    kind: str,
    seconds: float | None,
    steps: int | None,
    scene_folder: Path | None,
    backend: Backend,
    report: Report = lambda text: None,
) -> list[Row]:
    """Each contender trains for so many seconds, or so many steps: whichever comes first."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        folder = scene_folder
        if folder is None:
            report(f"making a scene of 100 views, {FAMILY[kind]}")
            folder = make_scene(FAMILY[kind], Path(temporary) / "scene", n_views=100, n_val=0, n_test=20, size=SIZE[kind])
        if kind == "scales":
            source = read_source(folder)
            folder = Path(temporary) / "scales"
            write_multiscale(source, folder)
        budget = RunSettings(steps=steps, time_budget=seconds)
        return compare(CONTENDERS[kind], load_scene(folder), str(folder), budget, backend.torch_device, report)


def compare(
    contenders: tuple[Contender, ...], scene: SceneData, path: str, budget: RunSettings, device: torch.device, report: Report
) -> list[Row]:
    """Train all of them in turns, and look at the test views."""
    trainers = []
    for contender in contenders:
        settings = replace(budget, method=contender.method, preset=contender.preset)
        config, _ = methods.choose(scene, SceneSettings(path), settings, device)
        trainers.append(Trainer(methods.changed(config, contender.settings), scene, device))
        trainers[-1].warm_up()
    report(f"training {' and '.join(contender.name for contender in contenders)}: {budget_of(trainers[0].config)} each")
    while waiting := [trainer for trainer in trainers if not trainer.is_done]:
        _ = min(waiting, key=lambda trainer: trainer.stopwatch.seconds).step().loss  # waited for: the GPU is the next one's
    report("looking at the test views")
    return [
        Row(contender.name, trainer.n_steps, trainer.stopwatch.seconds, by_width(trainer.model, scene))
        for contender, trainer in zip(contenders, trainers, strict=True)
    ]


def by_width(model: Model, scene: SceneData) -> dict[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for view in map(int, scene.splits["test"]):
        size = scene.cameras.sizes[view]
        picture = picture_of_view(model, view, size)
        color, alpha, inside = truth_of_view(scene, view, model.config.batch.masks == "alpha")
        white = torch.ones_like(color)
        truth = torch.lerp(white, color, alpha[..., None])
        found[int(size[0])].append(psnr(over(picture.color.cpu(), picture.opacity.cpu(), white), truth, inside))
    return {width: fmean(found[width]) for width in sorted(found, reverse=True)}


def table(rows: list[Row], backend: Backend) -> str:
    widths = list(rows[0].psnr)
    lines = [
        f"PSNR by the width of pictures, on {backend.device_name}",
        "",
        f"| | steps | seconds | {' | '.join(map(str, widths))} |",
        f"|---|--:|--:|{'--:|' * len(widths)}",
    ]
    lines += [f"| {row.name} | {row.n_steps} | {row.seconds:.0f} | {_spell(row.psnr[w] for w in widths)} |" for row in rows]
    gain = _spell(rows[-1].psnr[width] - rows[0].psnr[width] for width in widths)
    return "\n".join([*lines, f"| {rows[-1].name} - {rows[0].name} | | | {gain} |"])


def _spell(values: object) -> str:
    return " | ".join(f"{value:.2f}" for value in values)  # type: ignore[attr-defined]


def as_json(rows: list[Row], backend: Backend) -> str:
    return json.dumps({"backend": asdict(backend), "rows": [asdict(row) for row in rows]}, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(CONTENDERS))
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--seconds", type=float, help="of training, each; without --steps 120")
    parser.add_argument("--steps", type=int, help="each")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    backend = start(options.arch)
    seconds = options.seconds or (None if options.steps else 120.0)
    rows = run(options.kind, seconds, options.steps, options.scene, backend, report=lambda text: print(text, flush=True))
    print(table(rows, backend))
    if options.json:
        write_json(options.json, as_json(rows, backend))


if __name__ == "__main__":
    main()
