"""What the methods share that look at equally many samples on every ray, with one kind of network: batches, rates, pictures."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from taichi_nerf import random_numbers
from taichi_nerf.fields.view_mlp import OF_COLOR
from taichi_nerf.optimiser import Adam
from taichi_nerf.rays import Rays, RenderedRays, Samples
from taichi_nerf.rendering import SAMPLES_AT_ONCE, Picture, RenderedBatch, picture_in_parts, with_normals_at
from taichi_nerf.training.cast import Cast
from taichi_nerf.training.model import Model
from taichi_nerf.training.schedules import log_linear


class DenseModel(Model):
    """`config` has the sections `batch: RayBatchSettings` and `optimiser: LogLinearSettings`."""

    config: Any

    @property
    def first_n_rays(self) -> int:  # type: ignore[override]
        return int(self.config.batch.n_rays)

    def optimiser(self) -> Adam:
        config = self.config.optimiser
        networks = [weight for _, weight in self._networks()]
        groups = [{"name": "networks", "params": networks, "first_lr": config.first_rate}]
        made = Adam(groups, lr=config.first_rate, betas=(0.9, config.beta2), eps=config.epsilon, fused=True)
        if config.largest_gradient:
            made.register_step_pre_hook(lambda *_: shorten(networks, config.largest_gradient))
        return made

    def rate(self, progress: float) -> float:
        config = self.config.optimiser
        return log_linear(progress, 1.0, config.final_rate / config.first_rate, config.delay, config.delay_factor)

    def next_n_rays(self, n_rays: int, n_samples: int, n_ranks: int) -> int:
        return max(1, self.config.batch.n_rays // n_ranks)

    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool = False) -> Picture:
        n_rays = max(1, SAMPLES_AT_ONCE // self.samples_of_ray)
        found = picture_in_parts(lambda some: self._see(some, with_normals), rays, size, n_rays)
        return found._replace(opacity=found.opacity.clamp(0, 1))

    def _see(self, rays: Rays, with_normals: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What `picture_in_parts` asks for: of rays that are not cast, nothing."""
        found = self._cast(rays)
        out, depth = self._seen_over_black(found)
        color = out.color[:, :3]
        if with_normals:
            color = with_normals_at(color, out.opacity, depth, found.rays, self._density)
        color, opacity, depth = (
            part.new_zeros(len(rays.origins), *part.shape[1:]).index_copy_(0, found.which, part)
            for part in (color, out.opacity, depth)
        )
        return color, opacity, depth

    @torch.no_grad()
    def density(self, positions: Tensor) -> Tensor:
        return self._density(positions)

    def density_weights(self) -> list[Tensor]:
        return [weight for name, weight in self._networks() if OF_COLOR.isdisjoint(name.split("."))]

    def _networks(self) -> list[tuple[str, Tensor]]:
        """All that is learned but the cameras, by name."""
        return [(name, weight) for name, weight in self.named_parameters() if not name.startswith("rig.")]

    @property
    @abstractmethod
    def samples_of_ray(self) -> int:
        """That a picture looks at."""

    @abstractmethod
    def _density(self, positions: Tensor) -> Tensor:
        """[n] with gradients to the positions [n, 3]."""

    @abstractmethod
    def _cast(self, rays: Rays) -> Cast:
        """Those that can see anything, in the field's space."""

    @abstractmethod
    def _seen_over_black(self, found: Cast) -> tuple[RenderedRays, Tensor]:
        """What they see, at even places and without noise, and Σ w distance along them."""


def of_all_rays(
    found: Cast, rendered: RenderedRays, depth: Tensor, samples: Samples, background: Tensor, farthest: float
) -> RenderedBatch:  # [n_cast], background [n_rays, 3]
    """What all rays saw, of which those that were not cast saw the background."""
    n, which = len(background), found.which
    spans = torch.zeros(n, 2, dtype=torch.int32, device=which.device).index_copy_(0, which, samples.spans)
    t_starts, t_ends = (t.clamp(max=farthest) for t in samples[:2])
    owners = which.int().index_select(0, samples.ray_indices)
    nothing = torch.zeros(n, device=which.device)
    out = RenderedRays(
        background.index_copy(0, which, rendered.color[:, :3]),
        nothing.index_copy(0, which, rendered.opacity),
        nothing.index_copy(0, which, depth),
        rendered.weights,
    )
    return RenderedBatch(out, Samples(t_starts, t_ends, owners, spans), len(rendered.weights))


def draws(n_rays: int, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor | None:
    """Uniform numbers [n_rays, n]; without a generator none, which is evenly."""
    return None if generator is None else random_numbers.uniform(n_rays, n, generator=generator, device=like.device)


def shorten(parameters: list[Tensor], most: float) -> None:
    """Shorten the gradient of all of them together to at most this norm."""
    torch.nn.utils.clip_grad_norm_(parameters, most)
