"""How fast the viewer answers: pictures a second while the camera moves, and how soon the first and the finished one are there.

python -m taichi_nerf.benchmarks.viewer RUN

The studio is driven as browsers drive it, without one: what is measured is all from a wish to bytes that are ready to be sent.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from taichi_nerf import runtime
from taichi_nerf.cameras import Array
from taichi_nerf.training.run import load_run
from taichi_nerf.viewer.eye import Eye, Wish
from taichi_nerf.viewer.looks import Looks, Part
from taichi_nerf.viewer.stage import first_eye
from taichi_nerf.viewer.studio import Studio

SIZE, SECONDS = 256, 10.0


def measure(folder: Path, arch: str = "auto") -> dict[str, float]:
    """Figures of a trained run."""
    backend = runtime.start(arch)
    run = load_run(folder, backend.torch_device)
    eye, target, up = first_eye(run.scene)
    eye = replace(eye, aspect=1.0)
    looks = Looks(run.model, 1.0, run.scene.bounds.unbounded)
    for hasty in (True, False):
        looks.rows(eye.camera(64), 0, 64, hasty=hasty)
    times = sorted(timed(lambda k=k: encode(looks.rows(turned(eye, target, up, 3 * k).camera(SIZE), 0, SIZE, hasty=True)))
                   for k in range(15))  # fmt: skip
    found = {"frames_per_second_at_256": 1 / times[len(times) // 2]}
    studio, told = Studio(lambda: looks), list[tuple[float, int, bool]]()

    def take(part: Part, wish: Wish, finished: bool) -> None:
        encode(part)
        told.append((time.monotonic(), len(part.pixels), finished))

    studio.open(0, take, print)
    began = time.monotonic()
    studio.wish(0, Wish(eye))
    while not (told and told[-1][2]):
        studio.work()
    found |= {"first_picture_seconds": told[0][0] - began, "finished_512_seconds": told[-1][0] - began}
    told.clear()
    began = time.monotonic()
    while (passed := time.monotonic() - began) < SECONDS:
        studio.wish(0, Wish(turned(eye, target, up, 20 * passed), frames_per_second=8))
        if not studio.work():
            time.sleep(0.002)
    found |= {"moving_frames_per_second": len(told) / SECONDS, "moving_rows": float(np.median([rows for _, rows, _ in told]))}
    return found


def turned(eye: Eye, target: Array, up: Array, degrees: float) -> Eye:
    """An eye that has gone about a place."""
    x, y, z = up
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = np.radians(degrees)
    turn = np.eye(3) + np.sin(a) * cross + (1 - np.cos(a)) * cross @ cross
    half = np.concatenate([[np.cos(a / 2)], np.sin(a / 2) * up])
    w, v = eye.wxyz[0], np.array(eye.wxyz[1:])
    wxyz = np.concatenate([[half[0] * w - half[1:] @ v], half[0] * v + w * half[1:] + np.cross(half[1:], v)])
    found = Eye.of(target + turn @ (np.array(eye.position) - target), wxyz, eye.fov_y, eye.aspect)
    assert found is not None
    return found


def encode(part: Part) -> int:
    """As viser does before it sends."""
    depth = (part.depth * 1e5).astype(np.uint32)[..., None].view(np.uint8)
    return len(imageio.imwrite("<bytes>", part.pixels, extension=".jpeg")) + len(
        imageio.imwrite("<bytes>", depth, extension=".png")
    )


def timed(work) -> float:  # type: ignore[no-untyped-def]
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    for name, value in measure(Path(sys.argv[1])).items():
        print(f"{name:26} {value:8.2f}")
