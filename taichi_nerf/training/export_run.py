"""The surface or the points of a trained run, in the coordinates of the scene's own files."""

from collections.abc import Iterator

import numpy as np
import torch
import trimesh
from torch import Tensor

from taichi_nerf.cameras import Array, Cameras, least_turn, upward
from taichi_nerf.export.mesh import extract_mesh
from taichi_nerf.export.points import ColoredPoints, colored_points
from taichi_nerf.report import Report, silent
from taichi_nerf.training.pictures import picture_by, pixel_centers
from taichi_nerf.training.run import Run

LARGEST_STEP = 0.05  # of the distance, between neighbours: more is an edge, where points would hang in the air
MOST_VIEWS = 200
STRAIGHT = 0.966  # cosine of 15 degrees: cameras that lean less say which axis is up, not that it leans


def mesh_of_run(run: Run, resolution: int = 256, threshold: float | None = None, report: Report = silent) -> trimesh.Trimesh:
    """The surface within the scene's box: all of a bounded scene, of others what the cameras stand around."""
    model, box = run.model, run.model.box
    return extract_mesh(
        model.density,
        lambda positions, directions: model.color(positions.float(), directions.float()),
        box,
        resolution,
        threshold,
        to_source=run.scene.scene_from_source.inverse(),
        report=report,
    )


def points_of_run(run: Run, resolution: int = 256, report: Report = silent) -> ColoredPoints:
    """What the training views see within the box, as points no closer than box / resolution."""
    views = run.scene.splits["train"]
    views = views[:: -(-len(views) // MOST_VIEWS)]
    cameras, box = run.scene.cameras[views], run.model.box
    spacing = float((box[1] - box[0]).max()) / resolution

    def pictures() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for number in range(len(cameras)):
            picture = picture_by(run.model, cameras, number)
            opacity = picture.opacity
            color = picture.color / opacity.clamp_min(1e-3)[..., None]
            yield color.clamp(0, 1), picture.depth, opacity * within(cameras, number, picture.depth, box)
            report((number + 1) / len(cameras), f"view {number + 1} of {len(cameras)}")

    to_source = run.scene.scene_from_source.inverse()
    return colored_points(cameras, pictures(), spacing, largest_step=LARGEST_STEP, to_source=to_source)


def gltf_from_source(run: Run) -> Array:
    """[3, 3] the least turn after which y is up, as glTF has it, and the y axis of files whose z is up is -z."""
    up = run.scene.scene_from_source.rotation.T @ upward(run.scene.cameras)
    up /= np.linalg.norm(up)
    if np.abs(up).max() > STRAIGHT:
        up = np.where(np.abs(up) > STRAIGHT, np.sign(up), 0.0)
    if up[1] < -STRAIGHT:  # of half turns, that around x
        return np.diag([1.0, -1, -1]) @ least_turn(-up, np.array([0.0, 1, 0]))
    return least_turn(up, np.array([0.0, 1, 0]))


def within(cameras: Cameras, number: int, depth: Tensor, box: Tensor) -> Tensor:
    """[h, w] whether what is seen at this distance lies in the box."""
    height, width = depth.shape
    pixels = pixel_centers(width, height).numpy()
    origins, directions = (torch.from_numpy(part).to(box) for part in cameras.rays(number, pixels))
    at = origins + directions * depth.reshape(-1, 1)
    return ((at >= box[0]) & (at <= box[1])).all(-1).view(height, width)
