"""A model as pictures of different kinds: what it looks like, and what it costs.

    color, depth, normals, opacity     what a picture shows, as `render` shows it
    sample count                       how many samples the first march takes on each ray; light is many, grey is none
    occupancy                          the cells that the grid takes for occupied, as solid cubes

All of it by rows of one picture, so that a large one can be given up half-way. A hasty picture, while the camera moves, takes
steps along rays that are twice as long and passes over samples that add little: it takes two thirds of the time and is 37 dB
from the full one (the demo's run, 256 x 256).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.cameras import Cameras
from taichi_nerf.export.colors import GREY, HELIX
from taichi_nerf.fields.space import unit_positions
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Culling, Picture, render_picture
from taichi_nerf.training.model import Model
from taichi_nerf.training.ngp_model import NgpModel
from taichi_nerf.training.pictures import shown
from taichi_nerf.training.resident_model import ResidentNgpModel
from taichi_nerf.viewer.cropped_field import CroppedField

OF_THE_GRID = ("sample count", "occupancy")  # these look at the occupancy grid
HASTY, HASTY_STRETCH = Culling(early_stop=1e-2, least_weight=1e-2), 2.0
FARTHEST = 160.0  # the greatest depth that viser's pictures hold
Crop = tuple[tuple[float, ...], tuple[float, ...]]


class Part(NamedTuple):
    """Some rows of a picture."""

    pixels: NDArray[Any]  # [h, w, 3] bytes
    depth: NDArray[Any]  # [h, w] along the optical axis; FARTHEST where nothing is


@dataclass
class Looks:
    """How one browser sees a model.

    Depths are colored over the range of the last whole picture. Of hasty ones the range drifts instead of jumping, so that
    colors do not flicker while the camera moves; once it rests, the range is that of what is seen, wherever one came from.
    """

    model: Model
    background: float  # the level behind colors
    inverse: bool  # colors are spread over 1 / depth
    limits: tuple[float, float] | None = None  # that colors are spread over
    seen: tuple[float, float] | None = None  # of the last whole picture

    def refusal(self, what: str, crop: Crop | None) -> str | None:
        """Why this model cannot be shown so, if it cannot."""
        if not isinstance(self.model, NgpModel):
            if what in OF_THE_GRID:
                return f"{what}: this run has no occupancy grid; --method ngp has one, but under sampler.kind=proposal"
            if crop is not None:
                return "the crop box works with an occupancy grid alone: --method ngp's, but under sampler.kind=proposal"
        return None

    @torch.no_grad()
    def rows(
        self, camera: Cameras, first: int, last: int, what: str = "color", crop: Crop | None = None, hasty: bool = False
    ) -> Part:
        """Rows first to last (exclusive) of what a camera sees."""
        rig = CameraRig(camera).to(self.model.box.device)
        width = int(camera.sizes[0, 0])
        rays = rays_of_rows(rig, width, first, last)
        forward = torch.tensor(camera.forwards[0], dtype=torch.float32, device=rays.directions.device)
        along = (rays.directions @ forward).view(last - first, width)
        if what in OF_THE_GRID:
            assert isinstance(self.model, NgpModel)
            self.model.pull()
            show = sample_counts if what == "sample count" else occupied_cells
            pixels, distance = show(self.model, rays, (last - first, width))
            return Part(pixels, z_depth(distance, along, None))
        picture = self.picture(rays, (width, last - first), what == "normals", crop, hasty)
        if self.seen is None or (first == 0 and last == camera.sizes[0, 1]):
            self.seen = limits_of(picture) or self.seen or (1.0, 2.0)
        self.limits = drifted(self.limits, self.seen) if hasty and self.limits is not None else self.seen
        return Part(
            shown(picture, what, self.background, self.limits, self.inverse), z_depth(picture.depth, along, picture.opacity)
        )

    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool, crop: Crop | None, hasty: bool) -> Picture:
        model = self.model
        if not isinstance(model, NgpModel) or (crop is None and not hasty):
            return model.picture(rays, size, with_normals)
        with stretched(model, HASTY_STRETCH if hasty else 1.0):
            if crop is None and isinstance(model, ResidentNgpModel):  # torch would copy its parameters at every launch
                return model.picture(rays, size, with_normals)
            model.pull()
            field = model.field if crop is None else CroppedField(model.field, torch.tensor(crop, device=model.box.device))
            culling = HASTY if hasty else model.config.culling
            return render_picture(field, model.sampler, rays, size, 0.0, culling, with_normals=with_normals)


@contextmanager
def stretched(model: NgpModel, factor: float) -> Iterator[None]:
    """Longer steps along rays."""
    before = model.sampler.stretch
    model.sampler.stretch = factor * before
    try:
        yield
    finally:
        model.sampler.stretch = before


def rays_of_rows(rig: CameraRig, width: int, first: int, last: int) -> Rays:
    """Through the centres of the pixels of some rows."""
    device = rig.models.device
    y, x = torch.meshgrid(torch.arange(first, last), torch.arange(width), indexing="ij")
    pixels = (torch.stack([x, y], -1).view(-1, 2) + 0.5).to(device)
    return rig.rays(pixels, torch.zeros(len(pixels), dtype=torch.int32, device=device))


def limits_of(picture: Picture) -> tuple[float, float] | None:
    """Near and far of what a picture shows, if it shows anything."""
    seen = picture.depth[picture.opacity > 0.5].cpu().numpy()
    if not len(seen):
        return None
    near, far = np.quantile(seen, [0.01, 0.99]).tolist()
    return max(near, 1e-3), max(far, 1.01 * max(near, 1e-3))


def drifted(before: tuple[float, float], now: tuple[float, float]) -> tuple[float, float]:
    return 0.7 * before[0] + 0.3 * now[0], 0.7 * before[1] + 0.3 * now[1]


def z_depth(distance: Tensor, along: Tensor, opacity: Tensor | None) -> NDArray[Any]:  # [h, w] each
    there = distance > 0 if opacity is None else (distance > 0) & (opacity > 0.3)
    return torch.where(there, distance * along, FARTHEST).clamp(0, FARTHEST).cpu().numpy()


def sample_counts(model: NgpModel, rays: Rays, shape: tuple[int, int]) -> tuple[NDArray[Any], Tensor]:
    """Bytes [h, w, 3], and distances: none, counts have no place in space."""
    counts = model.sampler(rays, None, None, True).spans[:, 1].view(shape).cpu().numpy()
    most = model.sampler.settings.max_samples_per_ray
    share = np.log1p(counts) / np.log1p(most)
    pixels = HELIX[np.rint((1 - np.clip(share, 0, 1)) * (len(HELIX) - 1)).astype(int)]
    return np.where((counts > 0)[..., None], pixels, GREY).astype(np.uint8), rays.origins.new_zeros(shape)


def occupied_cells(model: NgpModel, rays: Rays, shape: tuple[int, int]) -> tuple[NDArray[Any], Tensor]:
    """Bytes [h, w, 3] of the first occupied cell on each ray, lit by which face the ray meets, and the distances [h, w]."""
    sampler = model.sampler
    samples = sampler(rays, None, None, False)
    first, count = samples.spans.long().unbind(-1)
    met = (count > 0).nonzero()[:, 0]
    distance = torch.zeros(len(count), device=first.device)
    distance[met] = samples.t_starts[first[met]]
    ends = torch.stack([samples.t_starts[first[met]], samples.t_ends[first[met]]])
    cell, face = cells_met(model, *(rays.origins[met] + ends[..., None] * rays.directions[met]))
    light = torch.tensor([0.65, 0.8, 1.0], device=face.device)[face] * (0.85 + 0.15 * (cell.sum(-1) % 2))
    pixels = np.full((len(count), 3), GREY, np.uint8)
    pixels[met.cpu().numpy()] = (light.cpu().numpy()[:, None] * [255, 190, 90]).astype(np.uint8)
    return pixels.reshape(*shape, 3), distance.view(shape)


def cells_met(model: NgpModel, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The grid's cells that samples [m, 3] lie in, as three numbers each, and across which axis their rays came into them [m].

    A cell of an outer cascade is twice as wide as one of the next; a contracted one is a cube where the grid is, so the ray's
    course there tells the face.
    """
    sampler, n = model.sampler, model.sampler.settings.resolution
    start, middle, end = (
        2 * unit_positions(places, sampler.box, sampler.contraction) - 1 for places in (starts, (starts + ends) / 2, ends)
    )
    course = end - start
    cascade = torch.frexp(middle.abs().amax(-1)).exponent.clamp(0, sampler.settings.n_cascades - 1)  # the finest that has it
    place = (middle / torch.exp2(cascade.to(middle.dtype))[:, None] + 1) * (n / 2)
    cell = place.floor().clamp(0, n - 1)
    since = torch.where(course < 0, cell + 1 - place, place - cell) / course.abs()  # it passed the nearer face across each axis
    return cell, since.nan_to_num(nan=torch.inf).argmin(-1)
