"""What a prior makes of an object, seen by any camera: frames of a video, and what refining it on its own views gives."""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.cameras import Array, Cameras, make_cameras
from taichi_nerf.export.colors import side_by_side
from taichi_nerf.fields.pixel_aligned_field import Encoded
from taichi_nerf.optimiser import Adam
from taichi_nerf.rendering import Picture
from taichi_nerf.report import Report, silent
from taichi_nerf.settings import to_json_dict
from taichi_nerf.training.pictures import rays_of_all_pixels, shown
from taichi_nerf.training.pixelnerf_model import Prior
from taichi_nerf.training.pixelnerf_objects import ViewedObject
from taichi_nerf.training.pixelnerf_trainer import errors_of_pixels
from taichi_nerf.training.render_path import about_path, digest_of


def cameras_like(item: ViewedObject, poses: Array, width: int | None = None) -> Cameras:
    """Cameras with the lens of the object's first, in pictures of another width where one is given."""
    cameras = make_cameras(poses, item.intrinsics[0].double().numpy(), list(item.size))
    if width is None:
        return cameras
    return cameras.resized([width, round(width * item.size[1] / item.size[0])])


def picture_by(
    prior: Prior, item: ViewedObject, encoded: Encoded, cameras: Cameras, number: int, device: torch.device
) -> Picture:
    """What a camera sees of the object, over the background."""
    width, height = (int(side) for side in cameras.sizes[number])
    # Through the pixels' centres, of published weights, too: where their pictures' pixels lie is no matter here.
    rays = rays_of_all_pixels(CameraRig(cameras[[number]]).to(device), 0, width, height)
    return prior.picture(encoded, rays, (width, height), (item.near, item.far))


def frames(
    prior: Prior,
    item: ViewedObject,
    sources: list[int],
    cameras: Cameras,
    numbers: Sequence[int],
    device: torch.device,
    what: Sequence[str] = ("color",),
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, [h, w, 3] bytes) of each of these frames."""
    encoded = prior.encode(item, sources, device)
    for number in numbers:
        picture = picture_by(prior, item, encoded, cameras, number, device)
        yield number, side_by_side([shown(picture, kind, limits=(item.near, item.far)) for kind in what])


def about_frames(
    prior: Prior, item: ViewedObject, sources: list[int], cameras: Cameras, what: Sequence[str], refined: str
) -> dict[str, str | int]:
    """What tells the frames of one render from those of another; `refined`: how the prior will be refined before."""
    seen = item.only(sources)
    settings = json.dumps(to_json_dict(prior.config))
    return {
        **about_path(cameras, what),
        "sources": digest_of([seen.pictures, seen.filled, seen.camera_to_worlds, seen.intrinsics, [seen.near, seen.far]]),
        "model": digest_of([settings, *(tensor.cpu() for tensor in prior.field.state_dict().values())]),
        "refined": refined,
    }


def refine(
    prior: Prior,
    item: ViewedObject,
    sources: list[int],
    n_steps: int,
    device: torch.device,
    *,
    n_rays: int = 512,
    learning_rate: float = 1e-4,
    seed: int = 0,
    report: Report = silent,
) -> Prior:
    """A copy of the prior, fine-tuned to render the source views themselves: each from all, or, of several, from the others.

    Batch normalisation keeps its statistics: a few pictures say little about those.
    """
    field = deepcopy(prior.field).eval()
    optimiser = Adam(field.parameters(), learning_rate)
    generator = torch.Generator().manual_seed(seed)
    only = item.only(sources)
    n_views = only.n_views
    for step in range(n_steps):
        shown = int(torch.randint(n_views, (1,), generator=generator))
        alone = n_views == 1 or bool(torch.rand(1, generator=generator) < 0.5)
        asked = [view for view in range(n_views) if alone or view != shown]
        encoded = field.encode(only.sources(asked, device))
        errors, _ = errors_of_pixels(field, encoded, only.only([shown]), prior.config, n_rays, False, generator, device)
        loss = errors.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        report((step + 1) / n_steps, f"refining, step {step + 1} of {n_steps}, squared error {float(loss.detach()):.5f}")
    return replace(prior, field=field)
