"""A prediction as a scene of its own: pictures of it from all around, on nothing, and a hash grid trained on these.

What the network takes seconds to show, the hash grid shows at once; and it renders, exports and opens in the viewer as every run.
"""

import json
from pathlib import Path

import numpy as np
import torch

from taichi_nerf.cameras import Array, Cameras, make_cameras, opengl_to_opencv
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes import load_scene
from taichi_nerf.scenes.unfinished import require_free, unfinished_folder
from taichi_nerf.scenes.write_png import write_png
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.pixelnerf_model import Prior
from taichi_nerf.training.pixelnerf_objects import ViewedObject
from taichi_nerf.training.pixelnerf_render import picture_by
from taichi_nerf.training.run import Outcome, train
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.trajectories import look_at

GOLDEN = np.pi * (3 - np.sqrt(5))
N_TRAIN, N_TEST = 60, 6
LOWEST, HIGHEST = -0.1, 1.2  # radians above the horizon
SCENE, RUN = "scene", "run"


def distil(
    prior: Prior,
    item: ViewedObject,
    sources: list[int],
    out: Path,
    device: torch.device,
    *,
    seconds: float = 30.0,
    width: int | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Outcome:
    """OUT/scene, pictures of the prediction, and OUT/run, a hash grid trained on them."""
    write_scene(prior, item, sources, out / SCENE, device, width=width, report=report)
    settings = SceneSettings(str((out / SCENE).resolve()))
    scene = load_scene(out / SCENE)
    config, _ = methods.choose(scene, settings, RunSettings(seed=seed, time_budget=seconds), device)
    with RunFolder.create(out / RUN) as folder:
        return train(config, scene, folder, device, report=report)


def require_places(out: Path) -> None:
    """Complain if what `distil` makes is there already."""
    for name in (SCENE, RUN):
        require_free(out / name)


def write_scene(
    prior: Prior,
    item: ViewedObject,
    sources: list[int],
    out: Path,
    device: torch.device,
    *,
    width: int | None = None,
    report: Report = silent,
) -> None:
    """Pictures with alpha from around the origin, in the form of NeRF's synthetic scenes."""
    distance = float(item.camera_to_worlds[0, :, 3].norm())
    reach = min(distance - item.near, item.far - distance) if item.near < distance < item.far else distance / 2
    encoded = prior.encode(item, sources, device)
    n = N_TRAIN + N_TEST
    cameras = cameras_around(item, n, distance, width)
    order = {"test": list(range(0, n, n // N_TEST))[:N_TEST]}
    order["train"] = [i for i in range(n) if i not in order["test"]]
    focal = float(cameras.intrinsics[0, 0])
    with unfinished_folder(out) as unfinished:
        done = 0
        for split, numbers in order.items():
            (unfinished / split).mkdir()
            frames = []
            for name, number in enumerate(numbers):
                picture = picture_by(prior, item, encoded, cameras, number, device)
                opacity = picture.opacity[..., None].clamp(0, 1)
                color = (picture.color - (1 - opacity) * prior.background) / opacity.clamp_min(1e-3)
                pixels = torch.cat([color.clamp(0, 1), opacity], -1)
                write_png(unfinished / split / f"r_{name}.png", (255 * pixels).round().to(torch.uint8).cpu().numpy())
                pose = np.eye(4)
                pose[:3] = opengl_to_opencv(cameras.camera_to_worlds[[number]])[0]  # the same flip both ways
                frames.append({"file_path": f"./{split}/r_{name}", "transform_matrix": pose.tolist()})
                done += 1
                report(done / n, f"picture {done} of {n} of the prediction")
            data = {"camera_angle_x": 2 * float(np.arctan(int(cameras.sizes[0, 0]) / 2 / focal)), "frames": frames}
            data["aabb"] = [[-reach] * 3, [reach] * 3]
            (unfinished / f"transforms_{split}.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


def cameras_around(item: ViewedObject, n: int, distance: float, width: int | None) -> Cameras:
    """With the focal length of the object's first, looking through the middle: the form has an angle, and no more of a lens."""
    size = width or item.size[0], round((width or item.size[0]) * item.size[1] / item.size[0])
    focal = float(item.intrinsics[0, 0]) * size[0] / item.size[0]
    return make_cameras(around(n, distance), [focal, focal, size[0] / 2, size[1] / 2], list(size))


def around(n: int, distance: float) -> Array:
    """[n, 3, 4] poses spread evenly over the part of a sphere that pictures of things are taken from."""
    k = np.arange(n) + 0.5
    height = np.sin(LOWEST) + (np.sin(HIGHEST) - np.sin(LOWEST)) * k / n
    level = np.sqrt(1 - height**2)
    eyes = distance * np.stack([np.cos(GOLDEN * k) * level, np.sin(GOLDEN * k) * level, height], -1)
    return look_at(eyes, np.zeros(3), np.array([0.0, 0, 1]))
