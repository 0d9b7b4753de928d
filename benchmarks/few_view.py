"""What a few views are worth: photometric loss alone, with geometric terms, with the prior besides. Held-out views of scenes.

    python -m taichi_nerf.benchmarks.few_view --seeds 1,2,3,4,5,6,7,8 --views 3 --json few_view.json
    python -m taichi_nerf.benchmarks.few_view --scene dtu_scan65_400x300 --protocol dtu --views 3 --downscale 4

Procedural scenes, rooms seen from one side (`--rooms rooms`: from anywhere in them) for odd seeds and objects for even ones, with
true depths. Priors learn from seeds of 10,000 on, so none of these was ever seen. PSNR is the mean over held-out views (in the
mask, where a scene has masks), the depth error the median over all of their pixels of |z - true z| in metres, where the scene has
depth maps.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taichi_nerf.export.colors import color_depth, to_bytes
from taichi_nerf.export.files import write_png
from taichi_nerf.metrics import psnr
from taichi_nerf.procedural import make_scene
from taichi_nerf.runtime import Backend, start
from taichi_nerf.scenes import SceneData
from taichi_nerf.training import methods
from taichi_nerf.training.config import Config, NgpConfig, RunSettings, SceneSettings
from taichi_nerf.training.few_views import with_few_views
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.memory import keep_freed_memory
from taichi_nerf.training.model import Model
from taichi_nerf.training.pictures import over, picture_of_view, rays_of_all_pixels, truth_of_view
from taichi_nerf.training.prior_term import metres_of
from taichi_nerf.training.scene_files import open_scene
from taichi_nerf.training.targets import depths_of
from taichi_nerf.training.trainer import Trainer

VARIANTS = ("photometric", "geometric", "prior")
N_HELD_OUT = 8
DRAWN = 3  # views of a picture


@dataclass(frozen=True)
class Figures:
    psnr: float
    depth_error: float | None  # metres
    seconds: float  # of training


@dataclass(frozen=True)
class Settings:
    views: int = 3
    protocol: str = "spread"
    steps: int = 2000
    size: int = 100
    prior: str = "builtin"
    downscale: float = 1.0
    metric_scale: float | None = None  # procedural scenes know theirs
    changes: tuple[str, ...] = ()


def measure(folder: Path, variant: str, settings: Settings, device: torch.device) -> tuple[Figures, list[Any]]:
    """Train on some views; figures of the others, and pictures: truth, render, true depth, depth."""
    config, scene = configured(folder, variant, settings, device)
    trainer = Trainer(config, scene, device)
    trainer.warm_up()
    while not trainer.is_done:
        trainer.step()
    seconds = trainer.stopwatch.seconds
    ratios, errors, pictures = [], [], []
    for view in (int(view) for view in scene.splits["test"]):
        shown = compare(trainer.model, scene, view, config.batch.masks == "alpha", metres_of(scene, settings.metric_scale)[0])
        ratios.append(psnr(shown["render"], shown["truth"], shown["inside"]))
        if shown["error"] is not None:
            errors.append(shown["error"])
        pictures.append(shown)
    error = float(torch.cat(errors).median()) if errors else None
    return Figures(float(np.mean(ratios)), error, seconds), pictures


def configured(folder: Path, variant: str, settings: Settings, device: torch.device) -> tuple[Config, SceneData]:
    place = SceneSettings(str(folder), n_views=settings.views, protocol=settings.protocol, downscale=settings.downscale,  # type: ignore[arg-type]
                          metric_scale=settings.metric_scale)  # fmt: skip
    scene = open_scene(place)
    config, _ = methods.choose(scene, place, RunSettings(steps=settings.steps), device)
    assert isinstance(config, NgpConfig)
    # The spread is a geometric term, too: the first variant has none.
    config = replace(config, loss=replace(config.loss, spread=0.0))
    prior = settings.prior if variant == "prior" else None
    config, _ = with_few_views(config, scene, variant != "photometric", prior)
    idle = {"photometric": ("geometry.", "prior."), "geometric": ("prior.",), "prior": ()}[variant]
    return methods.changed(config, [change for change in settings.changes if not change.startswith(idle)]), scene


def step_times(folder: Path, settings: Settings, device: torch.device, n_steps: int) -> dict[str, float]:
    """Milliseconds of a step of each variant, means over steps that take turns, after `settings.steps` steps each."""
    trainers = {}
    for variant in VARIANTS:
        config, scene = configured(folder, variant, replace(settings, steps=10**6), device)
        trainers[variant] = Trainer(config, scene, device)
        trainers[variant].warm_up()
    times: dict[str, list[float]] = {variant: [] for variant in trainers}
    for _ in range(settings.steps + n_steps):
        for variant, trainer in trainers.items():
            before = time.perf_counter()
            trainer.step()
            times[variant].append(1e3 * (time.perf_counter() - before))
    return {variant: float(np.mean(some[settings.steps :])) for variant, some in times.items()}


def compare(model: Model, scene: SceneData, view: int, masks_are_alpha: bool, metres: float) -> dict[str, Any]:
    """A view rendered, true, their depths in metres along the axis, and how far these are apart where that is known."""
    size = [int(side) for side in scene.cameras.sizes[view]]
    picture = picture_of_view(model, view, size)
    color, alpha, inside = truth_of_view(scene, view, masks_are_alpha)
    white = torch.ones(3)
    rays = rays_of_all_pixels(model.rig, view, *size)
    cosines = (rays.directions * model.rig.poses()[view, :, 2]).sum(-1).view(picture.depth.shape)
    depth = (picture.depth * cosines * metres).cpu()
    true_depth, error = torch.zeros_like(depth), None
    if scene.depths is not None and not scene.depths.missing[view]:
        true_depth = torch.from_numpy(depths_of(scene, [view])).view(depth.shape) * metres
        if scene.depths.kind == "ray":
            true_depth = true_depth * cosines.cpu()
        known = true_depth > 0
        error = (depth - true_depth).abs()[known]
    return {
        "render": over(picture.color.cpu(), picture.opacity.cpu(), white),
        "truth": torch.lerp(white, color, alpha[..., None]),
        "inside": inside,
        "depth": depth,
        "true_depth": true_depth,
        "error": error,
    }


def run(
    folders: list[tuple[str, int | None, Path]],  # name, seed
    settings: Settings,
    backend: Backend,
    variants: tuple[str, ...] = VARIANTS,
    pictures: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Figures of every scene and variant."""
    keep_freed_memory()
    rows = []
    for name, seed, folder in folders:
        row: dict[str, Any] = {"name": name, "seed": seed}
        shown = {}
        for variant in variants:
            before = time.perf_counter()
            figures, shown[variant] = measure(folder, variant, settings, backend.torch_device)
            row[variant] = asdict(figures)
            report(f"{name} {variant}: {spell(figures)} ({time.perf_counter() - before:.0f} s in all)")
        if pictures is not None:
            write_png(pictures / f"{name}.png", page(shown))
        rows.append(row)
    return rows


def spell(figures: Figures) -> str:
    depth = "" if figures.depth_error is None else f", depth error {figures.depth_error:.3f} m"
    return f"{figures.psnr:.2f} dB{depth}, {figures.seconds:.1f} s"


def page(shown: dict[str, list[Any]]) -> Any:
    """Rows of views: the truth, then what each variant renders; under the colors the depths."""
    first = next(iter(shown.values()))
    rows = []
    for i in range(min(DRAWN, len(first))):
        known = first[i]["true_depth"][first[i]["true_depth"] > 0]
        near, far = (known.quantile(torch.tensor([0.02, 0.98])).tolist()) if len(known) else (0.5, 4.0)
        far = max(far, 1.05 * near)
        colors = [first[i]["truth"], *(shown[variant][i]["render"] for variant in shown)]
        depths = [first[i]["true_depth"], *(shown[variant][i]["depth"] for variant in shown)]
        rows.append(np.concatenate([to_bytes(color) for color in colors], 1))
        rows.append(np.concatenate([color_depth(depth, near, far) for depth in depths], 1))
    return np.concatenate(rows)


def mean(rows: list[dict[str, Any]], variants: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variant in variants:
        depths = [row[variant]["depth_error"] for row in rows if row[variant]["depth_error"] is not None]
        found[variant] = {
            "psnr": float(np.mean([row[variant]["psnr"] for row in rows])),
            "depth_error": float(np.mean(depths)) if depths else None,
            "seconds": float(np.mean([row[variant]["seconds"] for row in rows])),
        }
    return found


def table(rows: list[dict[str, Any]], variants: tuple[str, ...]) -> str:
    """Markdown."""
    lines = ["| scene | " + " | ".join(f"{variant}: dB | m" for variant in variants) + " |"]
    lines.append("|---" + "|--:|--:" * len(variants) + "|")
    for row in [*rows, {"name": "mean", **mean(rows, variants)}]:
        cells = []
        for variant in variants:
            error = row[variant]["depth_error"]
            cells += [f"{row[variant]['psnr']:.2f}", "–" if error is None else f"{error:.3f}"]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def procedural(seeds: list[int], size: int, folder: Path, rooms: str = "facing") -> list[tuple[str, int | None, Path]]:
    """A room for each odd seed, objects for each even one."""
    found: list[tuple[str, int | None, Path]] = []
    for seed in seeds:
        family = rooms if seed % 2 else "objects"
        place = folder / f"{family}_{seed}_{size}"
        if not place.exists():
            make_scene(family, place, seed=seed, n_views=20, n_val=0, n_test=N_HELD_OUT, size=size)
        found.append((f"{family}_{seed}", seed, place))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3,4,5,6,7,8", help="of procedural scenes")
    parser.add_argument("--scene", type=Path, action="append", default=[], help="a folder instead; may be repeated")
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--protocol", choices=["spread", "even", "dtu"], default="spread")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--rooms", choices=["facing", "rooms"], default="facing", help="rooms: from anywhere in them, views far apart"
    )
    parser.add_argument("--size", type=int, default=100, help="pixels a side of procedural pictures")
    parser.add_argument("--downscale", type=float, default=1.0)
    parser.add_argument("--metric-scale", type=float)
    parser.add_argument("--prior", default="builtin")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--scenes-folder", type=Path, help="where procedural scenes are kept, and found the next time")
    parser.add_argument("--pictures", type=Path, help="a folder for renders and depths")
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--time", type=int, metavar="N", help="instead: milliseconds of N steps of each, after --steps")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    backend = start(options.arch, options.threads)
    if options.threads:
        torch.set_num_threads(options.threads)
    variants = tuple(options.variants.split(","))
    with tempfile.TemporaryDirectory() as temporary:
        if options.scene:
            folders: list[tuple[str, int | None, Path]] = [(folder.name, None, folder) for folder in options.scene]
            metric_scale = options.metric_scale
        else:
            seeds = [int(seed) for seed in options.seeds.split(",")]
            folders = procedural(seeds, options.size, options.scenes_folder or Path(temporary), options.rooms)
            metric_scale = 1.0
        settings = Settings(options.views, options.protocol, options.steps, options.size, options.prior, options.downscale,
                            metric_scale, tuple(options.changes))  # fmt: skip
        if options.time:
            print(json.dumps(step_times(folders[0][2], settings, backend.torch_device, options.time)))
            return
        rows = run(folders, settings, backend, variants, options.pictures, lambda text: print(text, flush=True))
    print(table(rows, variants))
    if options.json:
        about = {"settings": asdict(settings), "backend": asdict(backend)}
        write_json(options.json, json.dumps({"scenes": rows, "mean": mean(rows, variants), **about}, indent=1))


if __name__ == "__main__":
    main()
