"""The prior over patches as a term of the loss: a patch is rendered at each step, and the prior's gradient goes into it.

Three of four patches are seen by a training camera that is moved and turned a little, through the prior's own lens. The fourth
is a window of a training image: its colors are the image's, its depth is rendered, and only that is to change.
"""

import numpy as np
import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.few_view_losses import ENOUGH
from taichi_nerf.priors.channels import inverse_depth
from taichi_nerf.priors.diffusion_prior import ScoreWeights, patch_loss, tau_at
from taichi_nerf.priors.patch_cameras import (
    PatchLens,
    moved_pose,
    random_slopes,
    random_window,
    window_pixels,
)
from taichi_nerf.priors.prior import Prior
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.few_view_config import PatchPriorSettings
from taichi_nerf.training.geometry_term import GeometryTerm
from taichi_nerf.training.pictures import truth_of_view
from taichi_nerf.training.terms import Moment, Term

GREY = 206 / 255  # of the published code's background
LEAST_OPACITY = 1e-2  # that depths are divided by
MOST_KEPT = 12  # images
IN_METRES = ("rgbd", "hypersim")  # scenes whose files are
USUAL_DISTANCE = 2.0  # metres from cameras to what they look at, where nobody says
CONE = 2 / 12**0.5  # mip-NeRF's radius of a pixel, in pixels


class PriorTerm(Term):
    def __init__(
        self,
        settings: PatchPriorSettings,
        prior: Prior,
        scene: SceneData,
        views: list[int],
        metres: float,  # of a scene unit
        masks_are_alpha: bool,
        device: torch.device,
        geometry: GeometryTerm | None = None,  # of patches, too
    ):
        self.settings, self.prior, self.scene, self.views = settings, prior.to(device), scene, views
        self.metres, self.masks_are_alpha, self.device, self.geometry = metres, masks_are_alpha, device, geometry
        self.lens = PatchLens(prior.settings.size, prior.settings.focal)
        self.weights = ScoreWeights(settings.depth, settings.color)
        self.on_nothing = scene.is_object
        self._truths: dict[int, Tensor] = {}

    def __call__(self, moment: Moment) -> Tensor:
        settings = self.settings
        if moment.n_steps % settings.every:
            return moment.shown.truth.new_zeros(())
        view = self.views[int(torch.randint(len(self.views), (1,), generator=moment.generator))]
        from_image = float(torch.rand(1, generator=moment.generator)) < settings.image_share
        background = self._background(moment)
        if from_image:
            rays, forward, color = self._in_image(moment, view, background)
        else:
            rays, forward, color = *self._moved(moment, view), None
        seen = moment.model.look(rays, background.expand(len(rays.origins), 3), moment.generator)
        loss = settings.every * settings.weight * self._loss(moment, seen, (rays.directions * forward).sum(-1), color)
        # Its gradient alone: the value of the loss is what tells whether training goes well, and this one's says nothing.
        loss = loss - loss.detach()
        if self.geometry is not None:
            enough = 1 if settings.compat == "repo" else ENOUGH
            loss = loss + settings.every * self.geometry.along(moment, rays, seen, enough)
        return loss

    def _loss(self, moment: Moment, seen: RenderedBatch, cosines: Tensor, color: Tensor | None) -> Tensor:
        size, settings, out = self.lens.size, self.settings, seen.rendered
        along = out.depth if settings.compat == "repo" else out.depth / out.opacity.clamp_min(LEAST_OPACITY)
        depth = along * cosines * self.metres
        inverse = inverse_depth(depth, self.prior.settings.nearest)
        if self.on_nothing and settings.compat == "paper":
            inverse = inverse * out.opacity  # nothing is infinitely far away
        noise = None
        if settings.noise:
            shape = (self.prior.settings.denoiser.channels, size, size)
            noise = random_numbers.normal(*shape, generator=moment.generator, device=self.device)
        shown = out.color[:, :3] if color is None else color
        return patch_loss(
            self.prior,
            shown.clamp(0, 1).view(size, size, 3),
            inverse.view(size, size),
            depth.view(size, size),
            tau_at(moment.progress, settings.tau, settings.tau_until, settings.tau_last),
            self.weights,
            color_counts=color is None,
            noise=noise,
        )

    @torch.no_grad()
    def _moved(self, moment: Moment, view: int) -> tuple[Rays, Tensor]:
        pose = moved_pose(moment.model.rig.poses()[view], self.metres, moment.generator)
        slopes = random_slopes(self.lens, moment.generator, self.settings.compat).to(pose)
        directions = nn.functional.normalize(nn.functional.pad(slopes, (0, 1), value=1.0) @ pose[:, :3].T, dim=-1)
        origins = pose[:, 3].expand_as(directions).contiguous()
        return Rays(origins, directions, torch.full_like(origins[:, 0], CONE / self.lens.focal)), pose[:, 2]

    @torch.no_grad()
    def _in_image(self, moment: Moment, view: int, background: Tensor) -> tuple[Rays, Tensor, Tensor]:
        rig = moment.model.rig
        width, height = (int(side) for side in self.scene.cameras.sizes[view])
        fx, fy = rig.lenses()[view, :2].tolist()
        window = random_window(self.lens, (fx, fy), (width, height), moment.generator)
        pixels = window_pixels(self.lens, window)
        numbers = torch.full((len(pixels),), view, dtype=torch.int32, device=self.device)
        both = picture_at(self._truth(view), pixels, max(window.across, window.down)).to(self.device)
        shown = both[:, :3] + (1 - both[:, 3:]) * background
        return Rays(*(part.detach() for part in rig.rays(pixels.to(self.device), numbers))), rig.poses()[view, :, 2], shown

    def _truth(self, view: int) -> Tensor:
        """[h, w, 4] color times alpha, and alpha: as they are to be averaged. The last few are kept."""
        if view not in self._truths:
            if len(self._truths) >= MOST_KEPT:
                self._truths.pop(next(iter(self._truths)))
            color, alpha, _ = truth_of_view(self.scene, view, self.masks_are_alpha)
            self._truths[view] = torch.cat([color * alpha[..., None], alpha[..., None]], -1)
        return self._truths[view]

    def _background(self, moment: Moment) -> Tensor:
        """[1, 3] one color for the whole patch."""
        kind = moment.model.config.batch.background
        if self.settings.compat == "repo":
            return torch.full((1, 3), GREY, device=self.device)
        if kind == "random":
            return random_numbers.uniform(1, 3, generator=moment.generator, device=self.device)
        return torch.full((1, 3), float(kind == "white"), device=self.device)


def picture_at(picture: Tensor, pixels: Tensor, width: float) -> Tensor:  # [h, w, channels], [n, 2] → [n, channels]
    """Colors at places of an image, bilinearly, as means over squares of that many pixels."""
    height, columns = picture.shape[:2]
    n = max(1, round(width))
    shifts = ((torch.arange(n) + 0.5) / n - 0.5) * width
    shift = torch.stack(torch.meshgrid(shifts, shifts, indexing="xy"), -1).reshape(-1, 1, 2)
    at = 2 * (pixels + shift) / torch.tensor([columns, height]) - 1
    found = nn.functional.grid_sample(picture.movedim(-1, 0)[None], at[None], padding_mode="border", align_corners=False)
    return found[0].mean(1).T


def metres_of(scene: SceneData, metric_scale: float | None) -> tuple[float, str]:
    """How many metres a scene unit is, and why."""
    if metric_scale is not None:
        return metric_scale / scene.scene_from_source.scale, "by scene.metric_scale"
    if scene.kind in IN_METRES:
        return 1 / scene.scene_from_source.scale, f"{scene.kind} is in metres"
    distances = np.linalg.norm(scene.cameras.centers, axis=-1)
    return USUAL_DISTANCE / max(float(np.median(distances)), 1e-6), (
        f"a guess: cameras stand {USUAL_DISTANCE:g} m from the scene's middle; --set scene.metric_scale says better"
    )
