"""Pictures of procedural heads with known yaw: the built-in generator's training set, and the truth of its evaluation.

Every person is a seed of the family `heads`; the camera stands `yaw` around it on a level circle, looks at the middle, and fills
its field of view with the bust. The background is white.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from taichi_nerf.generator.image_set import ImageSet, open_image_set, save_image_set
from taichi_nerf.ops.procedural import see
from taichi_nerf.procedural.pictures import solids_of
from taichi_nerf.report import Report, silent
from taichi_nerf.runtime import current
from taichi_nerf.scenes.procedural import describe, family_and_number
from taichi_nerf.scenes.procedural.cameras import look_at

DISTANCE = 4.5
FIELD_OF_VIEW = 0.44  # radians: at that distance one unit to each side
REACH = 0.8  # of yaws, radians to each side
MIDDLE = (0.0, 0.0, -0.06)
N_SAMPLES = 2  # a pixel has its square of rays
HELD_OUT = 500_000  # first person of those that no training sees
NAME, PERSONS, VIEWS, SIZE = "heads", 1000, 4, 64


def heads(
    persons: Sequence[int],
    n_views: int,
    size: int = SIZE,
    report: Report = silent,
) -> ImageSet:
    """`n_views` pictures of each person at random yaws; they depend on the person's number alone."""
    images, yaws = [], []
    for done, person in enumerate(persons):
        drawn = np.random.default_rng([person, 64]).uniform(-REACH, REACH, n_views)
        images.append(views_of(person, drawn, size))
        yaws.append(drawn)
        report((done + 1) / len(persons), f"head {done + 1} of {len(persons)}")
    return ImageSet(np.concatenate(images), groups_of(persons, n_views), np.concatenate(yaws).astype(np.float32))


def views_of(person: int, yaws: NDArray[np.float64], size: int = SIZE) -> NDArray[np.uint8]:
    """[n, size, size, 3] one person as seen from these yaws (radians)."""
    scene = describe("heads", person)
    middle, device = np.array(MIDDLE), current().torch_device
    eyes = middle + DISTANCE * np.stack([np.sin(yaws), -np.cos(yaws), np.zeros_like(yaws)], -1)
    poses = torch.from_numpy(np.stack([look_at(eye, middle) for eye in eyes])).float().to(device)
    at = (torch.arange(size * N_SAMPLES) + 0.5) / N_SAMPLES
    pixels = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2).to(device)
    # All views at once; a camera's rays differ from another's only by its pose.
    plane = torch.cat([(pixels - size / 2) * (math.tan(FIELD_OF_VIEW / 2) / (size / 2)), torch.ones_like(pixels[:, :1])], -1)
    directions = torch.nn.functional.normalize(plane, dim=-1) @ poses[:, :, :3].mT  # [n, rays, 3]
    origins = poses[:, None, :, 3].expand_as(directions)
    radii = torch.full((directions[..., 0].numel(),), math.tan(FIELD_OF_VIEW / 2) / size / N_SAMPLES, device=device)
    seen = see(solids_of(scene), origins.reshape(-1, 3).contiguous(), directions.reshape(-1, 3).contiguous(), radii)
    alpha = (seen.shape >= 0).float()[:, None]
    color = (seen.color * alpha + (1 - alpha)).view(len(yaws), size, N_SAMPLES, size, N_SAMPLES, 3).mean((2, 4))
    return (color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def pictures_of(
    source: str,
    size: int | None,
    cached: Path,
    keep: bool,
    report: Report = silent,
) -> ImageSet:
    """A folder, an .npz file, or `heads[:persons]`, which the file `cached` may hold and otherwise are rendered.

    `keep`: what was rendered becomes that file.
    """
    family = family_and_number(source, (NAME,), PERSONS)
    if family is None:
        return open_image_set(source, size, report)
    n_persons, size = family[1], size or SIZE
    if cached.exists():
        found = open_image_set(cached)
        if found.groups is not None and found.size == size and np.array_equal(found.groups, groups_of(range(n_persons), VIEWS)):
            return found
    made = heads(range(n_persons), VIEWS, size, report=report)
    if keep:
        save_image_set(cached, made)
    return made


def groups_of(persons: Sequence[int], n_views: int) -> NDArray[np.int64]:
    """Who is in each picture."""
    return np.repeat(np.asarray(persons, np.int64), n_views)
