"""The geometric terms of few-view training (`few_view_losses`) with DiffusioNeRF's schedules.

One differs: the opacity term grows in with the distortion instead of being there from the start. It is as strong as the colors
(1e-3 of 1024 rays), and in a field that begins transparent the quickest way to obey it is fog at the cameras.
"""

import torch
from torch import Tensor

from taichi_nerf import few_view_losses
from taichi_nerf.ops import ray_marching
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.scenes import SceneData
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training.few_view_config import PUBLISHED_RAYS, GeometrySettings
from taichi_nerf.training.schedules import grown
from taichi_nerf.training.terms import Moment, Term


class GeometryTerm(Term):
    def __init__(self, settings: GeometrySettings, scene: SceneData, views: list[int], device: torch.device):
        self.settings = settings
        self.near = scene.bounds.near
        self.views = torch.tensor(views, device=device)
        pinholes = scene.cameras[views].covering_pinholes() if settings.frustum else None
        if settings.frustum and pinholes is None:
            raise SettingsError(
                f"{scene.folder}: its cameras look all around, or in parallel, and have no frusta; --set geometry.frustum=0 does "
                "without"
            )
        # Those of lenses that distort hold all that is seen through them.
        self.frusta = None if pinholes is None else tuple(torch.as_tensor(each).float().to(device) for each in pinholes)

    def __call__(self, moment: Moment) -> Tensor:
        settings, seen, shown = self.settings, moment.seen, moment.shown
        assert seen is not None, "the model tells nothing of its rays"
        loss = self.along(moment, shown.rays, seen)
        opacity = settings.opacity * grown(moment.progress, settings.opacity_from, settings.opacity_full)
        if opacity:
            wanted = 1.0 if shown.alpha is None else shown.alpha
            loss = loss + opacity * PUBLISHED_RAYS * few_view_losses.shortfall(seen.rendered.opacity, wanted)
        if settings.density_decay:
            squares = torch.stack([weight.square().sum() for weight in moment.model.density_weights()])
            loss = loss + settings.density_decay * squares.sum()
        return loss

    def along(self, moment: Moment, rays: Rays, seen: RenderedBatch, enough: int = few_view_losses.ENOUGH) -> Tensor:
        """What concerns single rays: frusta and distortion. `enough`: cameras that see a place."""
        settings, out = self.settings, seen.rendered
        loss = out.opacity.new_zeros(())
        frustum = settings.frustum * (1.0 if moment.progress < settings.frustum_until else settings.frustum_later)
        if frustum:
            counts = self.counts(moment, rays, seen)
            loneliness = few_view_losses.loneliness(out.weights, counts, len(rays.origins), enough)
            loss = loss + frustum * PUBLISHED_RAYS * loneliness
        distortion = settings.distortion * grown(moment.progress, settings.distortion_from, settings.distortion_full)
        if distortion:
            depth = out.depth / out.opacity.clamp_min(1e-2)
            loss = loss + distortion * PUBLISHED_RAYS * few_view_losses.relative_spread(out.weights, seen.samples, depth)
        return loss

    @torch.no_grad()
    def counts(self, moment: Moment, rays: Rays, seen: RenderedBatch) -> Tensor:
        """How many training cameras see each sample."""
        rig = moment.model.rig
        positions = ray_marching.sample_positions(rays.origins.detach(), rays.directions.detach(), *seen.samples)
        assert self.frusta is not None, "the term was made without frusta"
        lenses, sizes = self.frusta
        longer = (rig.lenses() / rig.intrinsics).detach()[self.views, :2]  # as training has corrected them
        lenses = torch.cat([lenses[:, :2] * longer, lenses[:, 2:]], -1)
        return few_view_losses.frustum_count(positions, rig.poses().detach()[self.views], lenses, sizes, self.near)
