"""One or a few pictures of a thing, without poses, as views of an object in the pose that a prior is used to.

Matte: the picture's alpha, a mask beside it, or what differs from the color of its border. Then the thing is moved to the middle
and scaled so that it fills the given share of a square, over white. Cameras stand around it at one height and distance, a full
turn shared evenly among the pictures, as the published `eval_real` places its one camera (focal length 131.25 at 128 pixels,
distance 1.3, near 0.8, far 1.8: `--distance 1.3 --field-of-view 52 --reach 0.5`).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from taichi_nerf.cameras import Array, make_cameras
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import read_image
from taichi_nerf.training.pictures import colors_of, unit_floats
from taichi_nerf.training.pixelnerf_model import Prior
from taichi_nerf.training.pixelnerf_objects import ViewedObject, object_of
from taichi_nerf.training.train_pixelnerf import render_view
from taichi_nerf.trajectories import look_at

UP = np.array([0.0, 0, 1])
N_DIRECTIONS = 14  # that pictures are taken to be seen from: every 30 degrees, and 10 to each side of the best


@dataclass(frozen=True)
class Turntable:
    """Where the cameras are, and what they see. As in the sets of `procedural.object_set`."""

    distance: float = 2.0
    field_of_view: float = 39.6  # degrees across
    elevation: float = 25.0  # degrees above the horizon
    reach: float = 0.75  # of the object from the origin: near and far are distance ∓ reach
    fill: float = 0.75  # of the picture, by the longer side of the object's box
    threshold: float = 0.1  # by which a picture without alpha differs from its border where the thing is
    size: int = 64  # pixels

    def __post_init__(self) -> None:
        if not (0 < self.reach < self.distance and 0 < self.field_of_view < 170 and abs(self.elevation) < 90):
            raise ValueError("expected 0 < reach < distance, a field of view below 170 and an elevation below 90 degrees")
        if not (0 < self.fill <= 1 and self.threshold >= 0 and 8 <= self.size <= 1024):
            raise ValueError("expected fill from 0 to 1, a threshold of at least 0 and a size of 8 to 1024 pixels")


def on_turntable(
    files: list[Path],
    place: Turntable,
    masks: list[Path] | None = None,
    background: float = 1.0,
    azimuth: float = 0.0,  # degrees of the first picture: 0 looks along y, chairs of the procedural families in the face
) -> ViewedObject:
    """The pictures as views 0, 1, … of one object."""
    if masks and len(masks) != len(files):
        raise SceneError(masks[0], f"expected a mask for each of {len(files)} pictures, got {len(masks)}")
    shown, filled = [], []
    for i, file in enumerate(files):
        color, alpha = matted(file, place.threshold, masks[i] if masks else None)
        color, alpha = in_the_middle(color, alpha, place, file)
        over = color * alpha[..., None] + background * (1 - alpha[..., None])
        shown.append((over.clamp(0, 1) * 255).round().to(torch.uint8))
        filled.append(alpha > 0.02)
    angles = math.radians(azimuth) + 2 * np.pi * np.arange(len(files)) / len(files)
    height = math.radians(place.elevation)
    level = place.distance * math.cos(height)
    eyes = np.stack([level * np.sin(angles), -level * np.cos(angles), np.full(len(files), place.distance * math.sin(height))], -1)
    focal = place.size / 2 / math.tan(math.radians(place.field_of_view) / 2)
    middle = place.size / 2
    cameras = make_cameras(look_at(eyes, np.zeros(3), UP), [focal, focal, middle, middle], [place.size, place.size])
    near, far = place.distance - place.reach, place.distance + place.reach
    return object_of(files[0].stem, "turntable", torch.stack(shown), torch.stack(filled), cameras, near, far)


@torch.no_grad()
def with_best_azimuth(
    prior: Prior, item: ViewedObject, device: torch.device, report: Report = silent
) -> tuple[ViewedObject, float]:
    """The object turned so that the prior explains its first picture best, and by how many degrees.

    Asked about a view that it was given, a prior errs least if the pose is the true one: only then does what it knows of the
    category's shape agree with the outline and with what it sees in the picture. A prior that looks at places in the views'
    own axes alone cannot tell; it is not asked.
    """
    if prior.config.field.places != "world_and_view":
        return item, 0.0
    truth = item.pictures[0].float() / 255
    errors: dict[float, float] = {}
    for step in (30.0, 10.0):
        best = min(errors, key=lambda angle: errors[angle]) if errors else 0.0
        angles = [best - step, best + step] if errors else [step * k for k in range(12)]
        for angle in angles:
            there = turned(item, angle)
            encoded = prior.encode(there, list(range(item.n_views)), device)
            errors[angle] = float((render_view(prior, there, encoded, 0, device) - truth).square().mean())
            report(len(errors) / N_DIRECTIONS, f"direction {len(errors)} of {N_DIRECTIONS}")
    best = min(errors, key=lambda angle: errors[angle])
    return turned(item, best), best % 360


def turned(item: ViewedObject, degrees: float) -> ViewedObject:
    """The cameras moved around the vertical axis."""
    angle = torch.tensor(math.radians(degrees))
    rotation = torch.eye(3)
    rotation[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    return item._replace(camera_to_worlds=rotation @ item.camera_to_worlds)


def matted(file: Path, threshold: float, mask: Path | None) -> tuple[Tensor, Tensor]:
    """Color [h, w, 3] and alpha [h, w]."""
    picture = unit_floats(read_image(file))
    color = colors_of(picture)
    if mask is not None:
        alpha = unit_floats(read_image(mask))[..., 0]
        if alpha.shape != color.shape[:2]:
            raise SceneError(mask, f"is {alpha.shape[1]} x {alpha.shape[0]}, its picture {color.shape[1]} x {color.shape[0]}")
        return color, alpha
    if picture.shape[-1] == 4 and bool((picture[..., 3] < 1).any()):
        return color, picture[..., 3]
    border = torch.cat([color[0], color[-1], color[:, 0], color[:, -1]]).median(0).values
    return color, ((color - border).abs().amax(-1) > threshold).float()


def in_the_middle(color: Tensor, alpha: Tensor, place: Turntable, file: Path) -> tuple[Tensor, Tensor]:
    """Cut out, scaled and centred: [size, size, 3] and [size, size]."""
    there = (alpha > 0.5).nonzero()
    if not len(there):
        raise SceneError(file, "shows nothing that differs from its border; give a mask, or a lower threshold")
    (top, left), (bottom, right) = there.amin(0).tolist(), there.amax(0).tolist()
    side = (max(bottom - top, right - left) + 1) / place.fill
    y, x = (top + bottom + 1) / 2, (left + right + 1) / 2
    height, width = alpha.shape
    multiplied = torch.cat([color * alpha[..., None], alpha[..., None]], -1).permute(2, 0, 1)[None]
    # several looks a pixel, averaged: what is shrunk stays smooth
    n = place.size * max(1, math.ceil(side / place.size))
    even = (torch.arange(n) + 0.5) / n * side - side / 2
    grid = torch.stack(torch.meshgrid((x + even) * 2 / width - 1, (y + even) * 2 / height - 1, indexing="xy"), -1)
    found = nn.functional.grid_sample(multiplied, grid[None], "bilinear", "zeros", align_corners=False)
    found = nn.functional.adaptive_avg_pool2d(found, place.size)[0].permute(1, 2, 0)
    return found[..., :3] / found[..., 3:].clamp_min(1e-6), found[..., 3]


def orbit_of(item: ViewedObject, n_frames: int, view: int = 0) -> Array:
    """[n_frames, 3, 4] poses on a level circle through one of the object's cameras, around the origin."""
    eye = item.camera_to_worlds[view, :, 3].double().numpy()
    up = -item.camera_to_worlds[:, :, 1].double().mean(0).numpy()
    axis = UP if up @ UP > 0.3 * np.linalg.norm(up) else up / np.linalg.norm(up)
    height = eye @ axis
    out = eye - height * axis
    aside = np.cross(axis, out)
    angles = 2 * np.pi * np.arange(n_frames)[:, None] / n_frames
    return look_at(np.cos(angles) * out + np.sin(angles) * aside + height * axis, np.zeros(3), axis)
