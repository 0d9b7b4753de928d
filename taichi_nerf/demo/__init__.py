"""A radiance field from pictures, small enough to read in one sitting: `pictures` is the scene, `field` is the method.

Every kernel that runs is one of `taichi_nerf.ops`.
"""

import math
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as imageio
import numpy as np
import torch
from imageio.v2 import get_writer
from torch import Tensor

from taichi_nerf.demo.field import Field, Occupancy, Report, psnr, render_view, train
from taichi_nerf.demo.pictures import RADIUS, SIZE, look_at_center, take_pictures

N_TRAINING_VIEWS, N_TEST_VIEWS = 40, 8


def to_bytes(color: Tensor) -> np.ndarray:
    return (color.clamp(0, 1) * 255).round().byte().cpu().numpy()


def save_comparison(file: Path, truths: list[Tensor], renders: list[Tensor], depths: list[Tensor]) -> None:
    """A row a view: truth | render | error, five times | depth, near is bright."""
    rows = []
    for truth, render, depth in zip(truths, renders, depths, strict=True):
        nearness = torch.where(depth > 0, 1 - (depth - RADIUS + 1) / 2, 0.0).clamp(0, 1)
        rows.append(torch.cat([truth, render, 5 * (truth - render).abs(), nearness[..., None].expand(-1, -1, 3)], 1))
    imageio.imwrite(file, to_bytes(torch.cat(rows)))


def save_orbit(file: Path, field: Field, occupancy: Occupancy, report: Report, n_frames: int = 60) -> None:
    device = occupancy.box.device
    with get_writer(file, fps=24, macro_block_size=2, quality=8) as video:
        for i in range(n_frames):
            pose = look_at_center(2 * math.pi * i / n_frames, 0.5).to(device)
            video.append_data(to_bytes(render_view(field, occupancy, pose)[0]))  # type: ignore[attr-defined]
            report((i + 1) / n_frames, "orbit")


@torch.no_grad()
def save_mesh(file: Path, field: Field, occupancy: Occupancy, resolution: int = 128) -> None:
    """Marching cubes on the density, colored by the field as seen from outside along the normals."""
    import skimage.measure
    import trimesh

    device = occupancy.box.device
    axis = torch.linspace(-1, 1, resolution, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    density = torch.cat([field.density(chunk) for chunk in points.split(2**18)])
    volume = density.view(resolution, resolution, resolution).cpu().numpy()
    spacing = 2 / (resolution - 1)
    low, high = float(volume.min()), float(volume.max())
    level = 25.0 if low < 25 < high else (low + high) / 2  # a field that has hardly trained is thin everywhere
    vertices, faces, normals, _ = skimage.measure.marching_cubes(volume, level=level, spacing=(spacing,) * 3)
    at = torch.from_numpy(np.ascontiguousarray(vertices - 1)).float().to(device)
    inward = torch.from_numpy(np.ascontiguousarray(normals)).float().to(device)
    color = torch.cat([field(p, d)[1] for p, d in zip(at.split(2**16), inward.split(2**16), strict=True)])
    trimesh.Trimesh(at.cpu().numpy(), faces, vertex_colors=to_bytes(color)).export(file)


class Outcome(NamedTuple):
    """How good it is and where it lies."""

    psnr: float  # mean over test views, which training never saw
    n_steps: int
    seconds: float  # of training
    files: list[Path]


def run(
    out: Path, device: torch.device, seconds: float = 60.0, seed: int = 0, report: Report = lambda done, text: None
) -> Outcome:
    """Take pictures, train, compare on held-out views, render an orbit, extract a mesh; files go to `out`."""
    torch.manual_seed(seed)
    report(0.0, "taking pictures")
    training = take_pictures(N_TRAINING_VIEWS, 0.0, device)
    test = take_pictures(N_TEST_VIEWS, 1.0, device)
    field = Field(seed).to(device)
    occupancy = Occupancy(torch.tensor([[-1.0, -1, -1], [1, 1, 1]], device=device))
    n_steps = train(field, occupancy, training, seconds, seed, report)
    pictures = [render_view(field, occupancy, pose) for pose in test.camera_to_worlds]
    truths = [(c + (1 - a)[:, None]).view(SIZE, SIZE, 3) for c, a in zip(test.color, test.coverage, strict=True)]
    scores = [psnr(float(((render - truth) ** 2).mean())) for (render, _), truth in zip(pictures, truths, strict=True)]
    files = [out / "comparison.png", out / "orbit.mp4", out / "mesh.ply"]
    save_comparison(files[0], truths[::2], [render for render, _ in pictures[::2]], [depth for _, depth in pictures[::2]])
    save_orbit(files[1], field, occupancy, report)
    save_mesh(files[2], field, occupancy)
    return Outcome(sum(scores) / len(scores), n_steps, seconds, files)
