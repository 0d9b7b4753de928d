"""One trained scene through three kernels: fog as trained, an x-ray, a cartoon.

    taichi-nerf demo --out demo
    python examples/look_through.py demo/run --out look_through.png

Nothing is trained anew: `swap` puts a kernel of examples/kernels/ in the place of the project's own, and the same field,
sampler and renderer call it.
"""

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path

import torch

from taichi_nerf import start, swap
from taichi_nerf.export.colors import side_by_side
from taichi_nerf.export.files import write_png
from taichi_nerf.kernels import compositing
from taichi_nerf.rendering import Culling
from taichi_nerf.training.pictures import over, picture_by
from taichi_nerf.training.render_path import cameras_of_path
from taichi_nerf.training.run import Run, load_run

HERE = Path(__file__).parent / "kernels"


def kernel_of(file: Path):
    """`composite_rays` as a file defines it."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.composite_rays


def look(run: Run, width: int) -> torch.Tensor:  # [h, w, 3]
    cameras, _ = cameras_of_path(run.scene, "orbit", 8, width)
    picture = picture_by(run.model, cameras, 1)
    return over(picture.color.cpu(), picture.opacity.cpu(), torch.ones_like(picture.color.cpu()))


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run", type=Path)
parser.add_argument("--out", type=Path, default="look_through.png")
parser.add_argument("--width", type=int, default=320)
arguments = parser.parse_args()

run = load_run(arguments.run, start("auto").torch_device)
pictures = [look(run, arguments.width)]
with swap(compositing, composite_rays=kernel_of(HERE / "cartoon.py")):
    pictures.append(look(run, arguments.width))
# Samples that light does not reach are left out before they are composited: an x-ray wants them all.
run.model.config = replace(run.model.config, culling=Culling(early_stop=0, least_weight=0))
with swap(compositing, composite_rays=kernel_of(HERE / "xray.py")):
    pictures.append(look(run, arguments.width))
write_png(arguments.out, side_by_side(pictures))
print(f"as trained, cartoon, x-ray: {arguments.out}")
