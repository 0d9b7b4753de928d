"""How well the shipped pixelNeRF shows objects that it never saw, from one or two pictures.

    python benchmarks/few_image.py --category chair --seeds 10000-10019 --views 1,2 [--model builtin] [--json FILE]

Objects are procedural; seeds of 10,000 and more are in no training set. Of each there are 12 views from all around
(`view_object`); the first one or two are sources, and all but the first two are targets, whatever the number of sources.
The baseline knows no geometry: for each object the better of the source picture repeated and the mean picture of the
training objects; then the mean over objects.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taichi_nerf.metrics import psnr
from taichi_nerf.procedural.object_set import NEAR_FAR, view_object
from taichi_nerf.runtime import start
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.pixelnerf_evaluate import evaluate_object
from taichi_nerf.training.pixelnerf_model import Prior, load_prior
from taichi_nerf.training.pixelnerf_objects import ViewedObject, object_of

FAMILIES = {"chair": "chairs", "car": "cars"}
N_VIEWS, SIZE, MOST_SOURCES = 12, 64, 2
N_MEAN = 100  # objects that the mean picture is of


@dataclass(frozen=True)
class Result:
    category: str
    views: dict[str, float]  # PSNR by number of sources
    baseline: float  # with one source
    repeated: float  # the parts of the baseline
    mean_picture: float
    seconds_per_image: float
    objects: list[dict[str, Any]]


def procedural_object(family: str, seed: int) -> ViewedObject:
    views = view_object(family, seed, N_VIEWS, SIZE)
    pictures = torch.from_numpy(views.pictures)
    filled = (pictures != 255).any(-1)
    return object_of(str(seed), family, pictures, filled, views.cameras, *NEAR_FAR)


def measure(prior: Prior, category: str, seeds: list[int], counts: list[int], mean: torch.Tensor, device: torch.device) -> Result:
    """Every object, with each number of sources."""
    if max(counts) > MOST_SOURCES:
        raise ValueError(f"targets are all but the first {MOST_SOURCES} views; give at most so many sources")
    objects, times = [], []
    for seed in seeds:
        item = procedural_object(FAMILIES[category], seed)
        targets = list(range(MOST_SOURCES, N_VIEWS))
        row: dict[str, Any] = {"seed": seed, "views": {}}
        for n in counts:
            found = evaluate_object(prior, item, list(range(n)), targets, device)
            row["views"][str(n)] = found["psnr"]
            times.append(found["seconds_per_image"])
        pictures = item.pictures.float() / 255
        row["repeated"] = float(np.mean([psnr(pictures[0], pictures[view]) for view in targets]))
        row["mean_picture"] = float(np.mean([psnr(mean, pictures[view]) for view in targets]))
        row["baseline"] = max(row["repeated"], row["mean_picture"])
        objects.append(row)
    views = {str(n): float(np.mean([row["views"][str(n)] for row in objects])) for n in counts}
    of_baseline = {name: float(np.mean([row[name] for row in objects])) for name in ("baseline", "repeated", "mean_picture")}
    return Result(category, views, **of_baseline, seconds_per_image=float(np.median(times)), objects=objects)


def mean_picture(family: str, n: int = N_MEAN) -> torch.Tensor:
    """[h, w, 3] mean over views of objects of the training set."""
    pictures = [torch.from_numpy(view_object(family, seed, 2, SIZE, 1).pictures).float() for seed in range(n)]
    return torch.stack(pictures).mean((0, 1)) / 255


def as_text(result: Result) -> str:
    lines = [f"{result.category}, {len(result.objects)} objects that were not trained on, {SIZE} x {SIZE} pixels"]
    lines += [f"  {n} source view{'s' if n != '1' else ' '}  {value:6.2f} dB" for n, value in result.views.items()]
    parts = f"source repeated {result.repeated:.2f}, mean picture {result.mean_picture:.2f}"
    lines.append(f"  baseline        {result.baseline:6.2f} dB  ({parts})")
    return "\n".join([*lines, f"  {result.seconds_per_image:.2f} s a picture"])


def numbers(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", choices=sorted(FAMILIES), default="chair")
    parser.add_argument("--seeds", type=numbers, default=numbers("10000-10019"))
    parser.add_argument("--views", default="1,2")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    expect_place(arguments.json)
    device = start(arguments.arch).torch_device
    prior, mean = load_prior(arguments.model, device), mean_picture(FAMILIES[arguments.category])
    counts = [int(part) for part in arguments.views.split(",")]
    result = measure(prior, arguments.category, arguments.seeds, counts, mean, device)
    print(as_text(result))
    if arguments.json:
        write_json(arguments.json, json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
