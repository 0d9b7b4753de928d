"""Time reading a scene of 100 pictures of 800 x 800, and building batches of rays with their colors from it.

    python benchmarks/scenes.py [--n-views 100] [--size 800] [--batch 1048576] [--arch cpu] [--json FILE]

The scene is written to a temporary folder first (not timed). Each figure is a median, and beside it the best, of 15 batches
after 3 warm-ups: other programs on the machine slow the median, hardly the best. Memory is the peak of the process's
resident memory over what it was before reading.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch

from taichi_nerf.ops import ray_generation
from taichi_nerf.runtime import start
from taichi_nerf.scenes import load_scene
from taichi_nerf.training.json_file import expect_place, write_json
from taichi_nerf.training.pixel_batches import draw_pixels, pack_pictures

REPEATS, WARM_UPS = 15, 3


@dataclass(frozen=True)
class Figures:
    n_views: int
    size: int
    n_threads: int
    seconds_to_open: float  # headers, cameras, splits
    seconds_to_read: float  # all pictures, decoded into the table
    table_mebibytes: float
    peak_mebibytes: float  # above what the process had before opening
    batch: int
    pixels_per_second: float  # medians
    rays_per_second: float  # pixels and rays
    best_pixels_per_second: float
    best_rays_per_second: float


def write_scene(folder: Path, n_views: int, size: int) -> None:
    """A ring of RGBA views in Blender's form, and one to test on; smooth with some noise, so that PNG files have a usual size."""
    generator = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    frames = []
    for i in range(n_views + 1):
        angle = 2 * np.pi * i / n_views
        color = 127 + 100 * np.sin(np.stack([7 * x + angle, 9 * y - angle, 5 * (x + y)], -1))
        color += generator.integers(-4, 5, color.shape)
        alpha = np.where(np.hypot(x - 0.5, y - 0.5) < 0.35, 255, 0)
        pixels = np.concatenate([color * (alpha[..., None] > 0), alpha[..., None]], -1).astype(np.uint8)
        imageio.imwrite(folder / f"r_{i}.png", pixels, compress_level=1)
        c, s = np.cos(angle), np.sin(angle)
        pose = [[-s, 0.0, c, 4 * c], [c, 0.0, s, 4 * s], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": f"./r_{i}", "transform_matrix": pose})
    for split, chosen in (("train", frames[:-1]), ("test", frames[-1:])):
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.69, "frames": chosen}))


class PeakMemory:
    """Samples the resident memory in a thread; `peak` is in bytes, above what it was at the beginning."""

    def __enter__(self) -> "PeakMemory":
        self.before, self.peak, self._stop = resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, resident() - self.before)

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, resident() - self.before)


def resident() -> int:
    """Bytes of memory in use; where the system tells only the peak so far, that; on Windows none."""
    try:
        import resource
    except ImportError:
        return 0
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def seconds_of(call: Callable[[], object]) -> list[float]:
    for _ in range(WARM_UPS):
        call()
    found = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        call()
        found.append(time.perf_counter() - before)
    return found


def run(n_views: int = 100, size: int = 800, batch: int = 2**20, n_threads: int = 2, arch: str = "cpu") -> Figures:
    start(arch)
    torch.set_num_threads(n_threads)
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder), n_views, size)
        with PeakMemory() as memory:
            begin = time.perf_counter()
            scene = load_scene(folder, cache_bytes=0)
            opened = time.perf_counter()
            table = pack_pictures(scene.images, scene.cameras.sizes, scene.splits["train"], n_threads=n_threads)
            read = time.perf_counter()
    cameras = scene.cameras
    poses, intrinsics, distortion = (
        torch.from_numpy(array).float() for array in (cameras.camera_to_worlds, cameras.intrinsics, cameras.distortion)
    )
    models = torch.from_numpy(cameras.models)
    generator = torch.Generator().manual_seed(0)

    def pixels() -> object:
        return draw_pixels(table, batch, generator)

    def rays() -> object:
        drawn = draw_pixels(table, batch, generator)
        return drawn.colors, ray_generation.generate_rays(drawn.positions, drawn.views, poses, intrinsics, distortion, models)

    of_pixels, of_rays = seconds_of(pixels), seconds_of(rays)
    return Figures(
        n_views,
        size,
        n_threads,
        opened - begin,
        read - opened,
        table.values.numel() * table.values.element_size() / 2**20,
        memory.peak / 2**20,
        batch,
        batch / statistics.median(of_pixels),
        batch / statistics.median(of_rays),
        batch / min(of_pixels),
        batch / min(of_rays),
    )


def as_text(found: Figures) -> str:
    million = 1e6
    return "\n".join(
        [
            f"{found.n_views} pictures of {found.size} x {found.size}, {found.n_threads} threads",
            f"open {found.seconds_to_open:.2f} s, read {found.seconds_to_read:.2f} s",
            f"table {found.table_mebibytes:.0f} MiB, peak while reading {found.peak_mebibytes:.0f} MiB",
            f"batches of {found.batch}: pixels and colors {found.pixels_per_second / million:.1f} M/s "
            f"(best {found.best_pixels_per_second / million:.1f}), with rays {found.rays_per_second / million:.1f} M/s "
            f"(best {found.best_rays_per_second / million:.1f})",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-views", type=int, default=100)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--batch", type=int, default=2**20)
    parser.add_argument("--n-threads", type=int, default=2)
    parser.add_argument("--arch", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    expect_place(options.json)
    found = run(options.n_views, options.size, options.batch, options.n_threads, options.arch)
    print(as_text(found))
    if options.json:
        write_json(options.json, json.dumps(asdict(found), indent=1))


if __name__ == "__main__":
    main()
